"""Writes the code chunks of a tree as JSON, a line each. Usage: corpus_lines TREE FILE.

File by file, in an order in which no package comes first; the same in every run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec

from membudget_engine.ingest.python_source import IngestReport, python_chunks
from membudget_engine.stores.code_chunk import code_chunk


def main(tree: str, file: str) -> None:
    """Write them all."""
    by_path: dict[str, list[bytes]] = {}
    for chunk in python_chunks(Path(tree), IngestReport()):
        by_path.setdefault(chunk.path, []).append(msgspec.json.encode(code_chunk(chunk)) + b"\n")
    with Path(file).open("wb") as lines:
        for path in random.Random(1).sample(sorted(by_path), len(by_path)):  # noqa: S311  an order, not a secret
            lines.writelines(by_path[path])


if __name__ == "__main__":
    main(*sys.argv[1:])
