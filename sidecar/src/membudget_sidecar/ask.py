"""`python3 -m membudget_sidecar.ask METHOD PATH [BODY]`: one question to the sidecar of this container.

Covers: how `membudget ... --pod` asks inside a pod, where only exec gets to the socket. Prints the status code on a
line of its own and the answer behind it. Exit code 0 when there was an answer, 1 when nobody answers.
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import Final

from membudget_contract.unix_http import UnixConnection
from membudget_sidecar.settings import DEFAULT_RUN_FOLDER

SECONDS: Final = 10.0
_USAGE: Final = "usage: python3 -m membudget_sidecar.ask METHOD PATH [BODY]\n"


def main(arguments: list[str], run_folder: Path = DEFAULT_RUN_FOLDER) -> int:
    """Ask once; returns the exit code."""
    if not 2 <= len(arguments) <= 3:  # noqa: PLR2004  as the usage says
        sys.stderr.write(_USAGE)
        return 2
    method, path, *body = arguments
    connection = UnixConnection(run_folder / "sidecar.sock", SECONDS)
    try:
        connection.request(method, path, *body, headers={"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"no sidecar answers in {run_folder}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.buffer.write(f"{answer.status}\n".encode() + content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
