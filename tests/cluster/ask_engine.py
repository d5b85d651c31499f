"""Asks an engine inside the network namespace: ask_engine.py PORT FIRST COUNT. Prints `ANSWERED FAILED`."""

import sys

from membudget_cli.demo.agents import Agents
from membudget_cli.demo.trace import distinct_queries
from membudget_engine.ingest.python_source import standard_library_root

AGENTS = 4


def main(port: str, first: str, count: str) -> None:
    """So many distinct questions, from the `first` on, each once."""
    last = int(first) + int(count)
    queries = distinct_queries("stdlib", standard_library_root(), last)[int(first) :]
    agents = Agents(int(port), [iter(queries[number::AGENTS]) for number in range(AGENTS)], pause_seconds=0.0)
    agents.start()
    agents.wait()
    sys.stdout.write(f"{agents.answers} {agents.failures}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
