"""`membudget-engine build` and `membudget-engine serve`.

Covers: arguments, and errors as one line that says what to do. Does not cover the work behind them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from membudget_engine.settings import EngineSettings, limit_thread_pools, processors


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 refused with a reason, 2 wrong arguments."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from membudget_contract.errors import ContractError
    from membudget_engine.errors import EngineError
    from membudget_runtime.errors import RuntimeMemoryError

    try:
        (_build if parsed.command == "build" else _serve)(parsed)
    except (EngineError, RuntimeMemoryError, ContractError, OSError) as error:
        sys.stderr.write(f"membudget-engine: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="membudget-engine", description="A retrieval engine inside a memory budget.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="index source trees as collections of code chunks")
    build.add_argument("--data", type=Path, required=True, help="folder of the collections")
    build.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a tree of Python files; `stdlib` alone is the running Python's standard library without its tests",
    )
    serve = commands.add_parser("serve", help="answer queries")
    serve.add_argument("--data", type=Path, required=True, help="folder of the collections")
    serve.add_argument("--state", type=Path, required=True, help="own folder: last budgets, spilled values")
    serve.add_argument("--run", type=Path, default=Path("/run/membudget"), help="folder of the control socket")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8080)
    return parser


def _serve(parsed: argparse.Namespace) -> None:
    # One query uses one thread; more workers than processors gain nothing.
    limit_thread_pools(1)
    from membudget_engine.lifecycle import serve

    serve(EngineSettings(parsed.data, parsed.state, parsed.run, parsed.host, parsed.port))


def _build(parsed: argparse.Namespace) -> None:
    limit_thread_pools(processors())
    from membudget_engine.build_command import build_sources

    build_sources(parsed.data, parsed.source)


if __name__ == "__main__":
    sys.exit(main())
