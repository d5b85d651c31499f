"""1,000,000 vectors of 512 in 150 MB: built from a file in a cgroup of that limit, then served in another.

The vectors are those of compact_index, more of them. They are generated block by block into an .npy file, and with each
block the true neighbours of the first 1,000 queries come closer, outside of any cgroup: never is more than a block in
memory. Then `membudget-engine build` reads the file in a cgroup of 150 MB, page cache included, and a process opens
what it published in a new cgroup of 150 MB, with nothing of it in the page cache.

Needs root and a machine on which cgroups can be made, 6 GB of disk below TMPDIR, and ten minutes or more. An
interruption costs the step it falls into, the build a batch: started again, it goes on from there. What it wrote is
removed at the end, or by `rm`, as it says. MB are MiB.

    python benches/million_vectors.py [COUNT]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compact_index import DIMENSION, HITS, JUDGED, PAGE, QUERIES, THREADS, as_built, clustered, in_cgroup
from measuring import MIB, put_section, table_text
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.index.manifest import Manifest
from membudget_engine.index.recall import merged_best

COUNT = 1_000_000
LIMIT_MB = 150
BUILD_MEMORY = "96Mi"
"""Anonymous memory at most beside that of a bare process, of which there are 21 MB."""

COLLECTION = "million"
BLOCK = 20_000
SAMPLED_SECONDS = 0.1

_Int64 = npt.NDArray[np.int64]


def write_vectors(folder: Path, count: int) -> None:
    """`rows.npy`, `queries.npy` and `neighbours.npy`."""
    queries = np.concatenate(list(clustered(QUERIES, seed=2)))
    judged = queries[:JUDGED]
    scores = np.full((JUDGED, HITS), -np.inf, dtype=np.float32)
    neighbours: _Int64 = np.full((JUDGED, HITS), -1, dtype=np.int64)
    done = 0
    with (folder / "rows.npy.part").open("wb") as stream:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (count, DIMENSION)}
        np.lib.format.write_array_header_1_0(stream, shape)
        for block in clustered(count, seed=1):
            stream.write(block.data)
            ids = np.arange(done, done + len(block), dtype=np.int64)
            scores, neighbours = merged_best(scores, neighbours, judged @ block.T, ids)
            done += len(block)
            _tell(f"{done:,} of {count:,} vectors written and compared with {JUDGED:,} queries")
        os.fsync(stream.fileno())
    np.save(folder / "queries.npy", queries)
    np.save(folder / "neighbours.npy", neighbours)
    (folder / "rows.npy.part").rename(folder / "rows.npy")


def build(folder: Path) -> dict[str, float]:
    """Figures of `membudget-engine build` in the cgroup; it goes on with what an interrupted one staged."""
    from memory_cgroup import memory_cgroup

    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(folder / "data")]
    argv += ["--memory", BUILD_MEMORY, "--representation", f"{COLLECTION}=Compact"]
    argv += ["--source", f"{COLLECTION}={folder / 'rows.npy'}"]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    started, anonymous, worked = time.monotonic(), 0, 0.0
    with memory_cgroup(LIMIT_MB * MIB) as cgroup:
        process = cgroup.run(argv, env=environment)
        while process.poll() is None:
            anonymous = max(anonymous, _anonymous_bytes(process))
            time.sleep(SAMPLED_SECONDS)
        worked = os.times().children_user + os.times().children_system
        if process.returncode or cgroup.oom_kills():
            sys.exit(f"the build ended with {process.returncode}, {cgroup.oom_kills()} OOM kills")
        return {
            "seconds": time.monotonic() - started,
            "cpu_seconds": worked,
            "anonymous": anonymous / MIB,
            "peak": cgroup.peak_usage() / MIB,
        }


def _anonymous_bytes(process: subprocess.Popen[bytes]) -> int:
    """RssAnon now; 0 of one that has ended."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def serve(folder: Path, manifest: Manifest, generation: Path) -> dict[str, float]:
    """Figures of the published index as compact_index takes them, cold at first."""
    link = folder / "compact"
    link.unlink(missing_ok=True)
    link.symlink_to(generation)
    figures = in_cgroup(folder, as_built(manifest, LIMIT_MB))
    if figures is None:
        sys.exit("the kernel killed what served")
    return figures


def run(folder: Path, count: int) -> None:
    """Every step that was not done before, then the table."""
    if not (folder / "rows.npy").exists():
        write_vectors(folder, count)
    built = folder / "built.json"
    if not built.exists():
        figures = build(folder)
        built.write_text(json.dumps(figures))
    found = find_newest_generation(folder / "data" / COLLECTION).found
    assert found is not None
    figures, served = json.loads(built.read_text()), serve(folder, found.manifest, found.directory)
    manifest = found.manifest
    beside = f"{manifest.created:%Y-%m-%d}, load average {os.getloadavg()[2]:.0f} beside the queries"
    text = f"{beside}; {_built(manifest, figures)}\n\n{_served(manifest, served)}"
    sys.stdout.write(f"{text}\n")
    if count == COUNT:
        put_section(PAGE, "million_vectors", text)


def _built(manifest: Manifest, figures: dict[str, float]) -> str:
    columns = ["vectors", "build seconds", "CPU seconds", "anonymous MB at most", "peak of the cgroup MB", "recall@10"]
    numbers = [round(figures[key]) for key in ("seconds", "cpu_seconds", "anonymous", "peak")]
    return table_text(columns, [[f"{manifest.count:,}", *numbers, f"{manifest.recall:.3f}"]])


def _served(manifest: Manifest, served: dict[str, float]) -> str:
    columns = ["lists / probes / rerank", "recall@10", "queries/s", "CPU us/query", "p50 ms", "p99 ms",
               "anonymous MB", "peak of the cgroup MB"]  # fmt: skip
    asked = f"{manifest.nlist} / {as_built(manifest, LIMIT_MB).asked}"
    numbers = [round(served[key]) for key in ("anonymous", "peak")]
    times = [round(served["rate"]), round(served["cpu_us"]), served["p50_ms"], served["p99_ms"]]
    row = [asked, f"{served['recall']:.3f}", *times, *numbers]
    return f"{THREADS} query threads, {table_text(columns, [row])}"


def _tell(text: str) -> None:
    sys.stderr.write(f"\r{text}")
    sys.stderr.flush()


def main() -> None:
    """Of COUNT vectors, a million where nothing is said."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    folder = Path(tempfile.gettempdir()) / f"membudget-{count}-vectors"
    folder.mkdir(exist_ok=True)
    try:
        run(folder, count)
    except KeyboardInterrupt:
        sys.exit(f"\ninterrupted: the same command goes on from here, `rm -r {folder}` gives the disk back")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
