"""`membudget-engine build`, `membudget-engine serve` and `membudget-engine check`.

Covers: arguments, log, and errors as one line that says what to do. Does not cover the work behind them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from membudget_engine.health_check import not_ready_because
from membudget_engine.reload_signal import ReloadSignal
from membudget_engine.settings import (
    EMBEDDER_KEY,
    GRACE_SECONDS,
    EmbeddingServer,
    EngineSettings,
    limit_thread_pools,
    processors,
)
from membudget_engine.stop_signal import StopAsked, StopSignal, ignore_signals


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 refused or not ready with a reason, 2 wrong arguments."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.command == "check":
        return _check(parsed)
    parsed.embedding_server = _embedding_server(parser, parsed)
    try:
        # Before anything heavy: as process 1 it would not hear a signal that comes earlier.
        signals = (StopSignal(), ReloadSignal()) if parsed.command == "serve" else None
        _log_to_stderr()
        return _run(parsed, signals)
    except StopAsked:
        logging.getLogger(__name__).info("stopped before serving")
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        if parsed.command == "serve":
            ignore_signals()


def _run(parsed: argparse.Namespace, signals: tuple[StopSignal, ReloadSignal] | None) -> int:
    from membudget_contract.errors import ContractError
    from membudget_engine.errors import EngineError
    from membudget_runtime.errors import RuntimeMemoryError

    try:
        if signals is None:
            _build(parsed)
        else:
            _serve(parsed, *signals)
    except (EngineError, RuntimeMemoryError, ContractError, OSError) as error:
        sys.stderr.write(f"membudget-engine: {error}\n")
        return 1
    return 0


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for talkative in ("faiss", "uvicorn.error"):
        # FAISS tells of each variant it did not find, uvicorn of each of its own steps.
        logging.getLogger(talkative).setLevel(logging.WARNING)


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
        help="a tree of Python files, or a file: .json, .ndjson, .jsonl, .npy, .fvecs; `stdlib` alone is the running "
        "Python's standard library without its tests",
    )
    build.add_argument(
        "--representation",
        action="append",
        default=[],
        metavar="NAME=REPRESENTATION",
        help="Exact (mapped float32, the default), Float16, Int8, or Compact (codes in memory, mapped float16 rows)",
    )
    build.add_argument(
        "--reduce",
        action="append",
        default=[],
        metavar="NAME[=PLACES]",
        help="project its vectors on their first principal components, 256 unless said; what is lost is measured",
    )
    build.add_argument(
        "--memory", default="512Mi", metavar="QUANTITY", help="anonymous memory for building from a file"
    )
    build.add_argument(
        "--key", action="append", default=[], metavar="FIELD=KEY", help="a document's KEY is the chunk's FIELD"
    )
    build.add_argument(
        "--only", action="append", default=[], metavar="FIELD=PATTERN", help="leave out documents that do not match"
    )
    build.add_argument("--keep", action="store_true", help="leave a collection that is there already as it is")
    _add_embedder(build)
    serve = commands.add_parser("serve", help="answer queries")
    serve.add_argument("--data", type=Path, required=True, help="folder of the collections")
    serve.add_argument("--state", type=Path, required=True, help="own folder: last budgets, spilled values")
    serve.add_argument("--run", type=Path, default=Path("/run/membudget"), help="folder of the control socket")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8080, help="0 takes a free one and logs it")
    grace_help = "from the stop signal to the kill, as the pod's terminationGracePeriodSeconds"
    serve.add_argument("--grace", type=_grace, default=GRACE_SECONDS, metavar="SECONDS", help=grace_help)
    serve.add_argument(
        "--source",
        type=_source,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the tree that this collection was built from: its files and their history are served",
    )
    serve.add_argument("--writer", action="store_true", help="take writes; the data folder is this engine's alone then")
    _add_embedder(serve)
    check = commands.add_parser("check", help="say by the exit code whether an engine is ready: 0 it is, 1 it is not")
    check.add_argument("--host", default="127.0.0.1", help="where it serves")
    check.add_argument("--port", type=_port, default=8080)
    return parser


def _add_embedder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--embedder", metavar="URL", help="an OpenAI-compatible API, as http://127.0.0.1:8000/v1; default: built in"
    )
    command.add_argument("--embedder-model", default="", metavar="NAME", help="what it is asked for")
    command.add_argument("--embedder-dimension", type=int, default=0, metavar="PLACES", help="of its vectors")


def _embedding_server(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> EmbeddingServer | None:
    """What the arguments name; they are refused when it cannot be asked."""
    if parsed.embedder is None:
        return None
    key = os.environ.get(EMBEDDER_KEY)
    try:
        return EmbeddingServer(parsed.embedder, parsed.embedder_model, parsed.embedder_dimension, key)
    except ValueError as error:
        parser.error(str(error))


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 0xFFFF:  # noqa: PLR2004  a port has 16 bits
        raise argparse.ArgumentTypeError(f"{port} is no port: 0 to 65535")
    return port


def _grace(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86_400:  # noqa: PLR2004  a second to a day
        raise argparse.ArgumentTypeError(f"{text} is no grace period: 1 to 86400 seconds")
    return seconds


def _source(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not name or not separator or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is no source: write NAME=PATH")
    return name, Path(path)


def _check(parsed: argparse.Namespace) -> int:
    problem = not_ready_because(parsed.host, parsed.port)
    sys.stdout.write(f"{problem or 'ready'}\n")
    return 0 if problem is None else 1


def _serve(parsed: argparse.Namespace, stop: StopSignal, reload_signal: ReloadSignal) -> None:
    # One query uses one thread: the workers are enough for all processors.
    limit_thread_pools(1)
    from membudget_engine.lifecycle import serve

    stop.interrupt_start_up()
    settings = EngineSettings(
        parsed.data,
        parsed.state,
        parsed.run,
        parsed.host,
        parsed.port,
        parsed.grace,
        writer=parsed.writer,
        sources=tuple(parsed.source),
        embedding_server=parsed.embedding_server,
    )
    serve(settings, stop, reload_signal)


def _build(parsed: argparse.Namespace) -> None:
    limit_thread_pools(processors())
    from membudget_contract.quantities import parse_quantity
    from membudget_engine.build_command import build_sources
    from membudget_engine.ingest.steps import FileSteps

    steps = FileSteps(parsed.key, parsed.only)
    build_sources(
        parsed.data,
        parsed.source,
        parsed.representation,
        memory_bytes=parse_quantity(parsed.memory),
        file_steps=steps,
        keep=parsed.keep,
        reductions=parsed.reduce,
        embedding_server=parsed.embedding_server,
    )


if __name__ == "__main__":
    sys.exit(main())
