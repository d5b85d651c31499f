"""Engines that are traced from their first moment, each forked from one process that has imported everything.

A line on the standard input names data, state and run folder and a log file. The child stops itself before it does
anything, so that a tracer can take hold of it, and serves as a writer when it is continued; a line on the standard
output tells its pid, and another one its wait status when it has ended.
"""

import os
import signal
import sys

from membudget_engine import lifecycle  # so that no child has to import it
from membudget_engine.__main__ import main as engine


def serve(data: str, state: str, run: str, log: str) -> int:
    """In the child."""
    told, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (told, 1), (told, 2)):
        os.dup2(descriptor, number)
    os.kill(os.getpid(), signal.SIGSTOP)
    return engine(["serve", "--writer", "--port=0", f"--data={data}", f"--state={state}", f"--run={run}"])


def main() -> None:
    """Serve lines until the input ends."""
    assert lifecycle is not None
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(serve(*line.split()))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
