"""Opens one generation's index, loaded or mapped, and searches it. Usage: index_reader loaded|mapped FOLDER QUERIES.

Stands still at `empty`, `open` and `searched P50 P90`, in seconds of a query, each found at the second time it was
asked: warm, as an engine in use is. Queries are embedded before `empty`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from membudget_cli.figures import quantile
from membudget_cli.profile.measured.stages import stand_still
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.settings import limit_thread_pools

HITS: Final = 10


def main(kind: str, folder: str, queries: str) -> None:
    """Open, search twice, say how long the second time took."""
    found = find_newest_generation(Path(folder)).found
    if found is None:
        sys.exit(f"no good generation in {folder}")
    vectors = HashingEmbedder().embed([f"open file number {number} of the pool" for number in range(int(queries))])
    stand_still("empty")
    opener = LoadedIndex if kind == "loaded" else MappedIndex
    index = opener.open(found.directory, found.manifest)
    stand_still("open")
    for row in range(len(vectors)):
        index.search(vectors[row : row + 1], HITS)
    seconds: list[float] = []
    for row in range(len(vectors)):
        started = time.perf_counter()
        index.search(vectors[row : row + 1], HITS)
        seconds.append(time.perf_counter() - started)
    ordered = sorted(seconds)
    stand_still("searched", quantile(ordered, 0.5) or 0.0, quantile(ordered, 0.9) or 0.0)


if __name__ == "__main__":
    limit_thread_pools(1)
    main(*sys.argv[1:])
