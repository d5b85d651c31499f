"""Asks an engine as agents do until its input ends: ask_on.py PORT AGENTS. Some questions return often.

Prints `asking` when it has begun.
"""

import sys

from membudget_cli.demo.agents import Agents
from membudget_cli.demo.trace import distinct_queries, skewed
from membudget_engine.ingest.python_source import standard_library_root

QUESTIONS = 6000
PAUSE_SECONDS = 0.05


def main(port: str, agents: str) -> None:
    """Until the input ends."""
    questions = distinct_queries("stdlib", standard_library_root(), QUESTIONS)
    asking = Agents(int(port), [skewed(questions, seed) for seed in range(int(agents))], PAUSE_SECONDS)
    asking.start()
    sys.stdout.write("asking\n")
    sys.stdout.flush()
    sys.stdin.read()
    asking.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
