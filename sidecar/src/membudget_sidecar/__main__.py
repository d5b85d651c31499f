"""`membudget-sidecar`: watches one engine.

Covers: arguments, and errors as one line that says what to do.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from membudget_sidecar.without_openssl import leave_openssl_out


def main(arguments: list[str] | None = None) -> int:
    """Watch until a signal; returns the exit code: 0 stopped, 1 refused with a reason, 2 wrong arguments."""
    leave_openssl_out()  # before any import of ours, since the contract takes hashlib along
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from membudget_contract.errors import ContractError
    from membudget_sidecar.servers import serve
    from membudget_sidecar.settings import SidecarSettings

    settings = SidecarSettings(
        run_folder=parsed.run,
        state_folder=parsed.state,
        policy_file=parsed.policy,
        host=parsed.host,
        port=parsed.port,
        api_port=parsed.api_port,
        keys_folder=parsed.keys,
        observe=parsed.observe,
        recording=parsed.record,
    )
    try:
        serve(settings)
    except (ContractError, OSError) as error:
        sys.stderr.write(f"membudget-sidecar: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from membudget_sidecar.settings import DEFAULT_PORT, DEFAULT_RUN_FOLDER

    parser = argparse.ArgumentParser(
        prog="membudget-sidecar", description="Keeps the engine beside it inside its memory budget."
    )
    parser.add_argument("--run", type=Path, default=DEFAULT_RUN_FOLDER, help="folder shared with the engine")
    parser.add_argument("--state", type=Path, required=True, help="own folder: the last good plan or order")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--policy", type=Path, help="a MemoryPolicy as YAML; read again when it changes or on SIGHUP")
    source.add_argument("--keys", type=Path, help="folder of public keys: follow the orders that a controller signs")
    watched = parser.add_mutually_exclusive_group()
    watched.add_argument(
        "--observe",
        metavar="NAME",
        help="watch a process that has no control socket, by the name of its program or script, again after a restart;"
        " nothing is done to it, what would have been done is exported (default: the engine on the control socket)",
    )
    watched.add_argument("--observe-pid", metavar="N", type=int, dest="observe", help="the same, by its pid")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write down looks and actions, up to 64 MiB, to try other policies on them with `membudget replay FILE`",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where /metrics and probes listen")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--api-port", type=int, help="serve the local API for reading on 127.0.0.1 too, at this port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
