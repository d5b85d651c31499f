"""Which C allocator suits the engine: bytes back with the kernel after a burst, memory, and speed, side by side.

Needs Debian's libjemalloc2 and libtcmalloc-minimal4; an allocator that is not installed is left out and said so. Each
measurement is a fresh process of the same interpreter, three for each allocator in turn, the median of each figure.

The work is the engine's: four threads embed queries, search a FAISS index of 10,000 vectors, decode and encode answers.
Then an ingestion in four threads embeds 12,000 texts and holds rows and chunks, a random fiftieth of which stays when
it ends. Speeds are by CPU time, which other work on the machine changes least. "By itself" is read a second after the
end with nothing asked for; "asked" after the allocator's own call to give free pages back, which the runtime makes
after every action and every released grant.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from measuring import MIB, anonymous_bytes, resident_bytes, table

LIBRARIES = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu"
JEMALLOC = str(LIBRARIES / "libjemalloc.so.2")
TCMALLOC = str(LIBRARIES / "libtcmalloc_minimal.so.4")
TUNED = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
DECAY = {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:250,muzzy_decay_ms:0"}
RELEASE = {"TCMALLOC_RELEASE_RATE": "10"}

RUNS = 3
THREADS = 4
QUERIES = 100
"""By each thread, after as many to warm up."""
INGESTED = 3_000
"""Texts by each thread, after as many to warm up."""
KEPT_SHARE = 0.02
VECTORS = 10_000
DIMENSION = 384


@dataclass(frozen=True)
class Setting:
    """An allocator as a process would be started with it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    one_arena: bool = False
    """The runtime's own call at start, `mallopt(M_ARENA_MAX, 1)`."""

    def installed(self) -> bool:
        """Whether its library is there."""
        return Path(self.environment.get("LD_PRELOAD", "/")).exists()


SETTINGS = (
    Setting("glibc"),
    Setting("glibc, one arena (as the runtime sets it)", one_arena=True),
    Setting("glibc tuned by environment", TUNED),
    Setting("jemalloc", {"LD_PRELOAD": JEMALLOC}),
    Setting("jemalloc, decay 250 ms in the background", {"LD_PRELOAD": JEMALLOC, **DECAY}),
    Setting("tcmalloc", {"LD_PRELOAD": TCMALLOC}),
    Setting("tcmalloc, release rate 10", {"LD_PRELOAD": TCMALLOC, **RELEASE}),
    Setting("PYTHONMALLOC=malloc on glibc, one arena", {"PYTHONMALLOC": "malloc"}, one_arena=True),
)


class Figures(msgspec.Struct, frozen=True):
    """Of one process."""

    queries_per_cpu_second: float
    ingested_per_cpu_second: float
    serving_resident: int
    peak_anonymous: int
    by_itself: float
    """Share of what the burst took that was back a second after its end."""
    asked: float
    """The same after the allocator was asked."""
    trim_milliseconds: float


def measure(*, one_arena: bool) -> Figures:
    """In this process."""
    import faiss
    import numpy as np

    from membudget_engine.embedder import HashingEmbedder
    from membudget_runtime.own_memory import Allocator

    allocator = Allocator()
    if one_arena:
        allocator.use_one_arena()
    embedder = HashingEmbedder(DIMENSION)
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(np.random.default_rng(1).standard_normal((VECTORS, DIMENSION), dtype=np.float32))
    words = sorted({word for path in sorted(Path(os.__file__).parent.glob("*.py"))[:60] for word in _words(path)})

    def text(chosen: random.Random, length: int) -> str:
        return " ".join(chosen.choices(words, k=length))

    def serve(seed: int) -> None:
        chosen = random.Random(seed)
        recent: list[bytes] = []
        for _ in range(QUERIES):
            vector = embedder.embed([text(chosen, 12)])
            scores, rows = index.search(vector, 5)
            hits = [
                {"row": int(row), "score": float(score), "code": text(chosen, 150)}
                for row, score in zip(rows[0], scores[0], strict=True)
            ]
            recent.append(msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(hits))))
            del recent[:-100]

    held: list[list[object]] = [[] for _ in range(THREADS)]

    def ingest(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(INGESTED // 100):
            texts = [text(chosen, 40) for _ in range(100)]
            rows = embedder.embed(texts)
            held[seed].extend(
                (row.copy(), {"path": code[:40], "code": code}) for row, code in zip(rows, texts, strict=True)
            )

    _in_threads(serve)
    seconds = _in_threads(serve)
    serving = resident_bytes()
    _in_threads(ingest)
    for part in held:
        part.clear()
    allocator.trim()
    before = anonymous_bytes()
    ingesting = _in_threads(ingest)
    peak = anonymous_bytes()
    for part in held:
        part[:] = random.Random(7).sample(part, int(KEPT_SHARE * len(part)))
    time.sleep(1.0)
    by_itself = anonymous_bytes()
    started = time.perf_counter()
    allocator.trim()
    took = time.perf_counter() - started
    return Figures(
        queries_per_cpu_second=THREADS * QUERIES / seconds,
        ingested_per_cpu_second=THREADS * INGESTED / ingesting,
        serving_resident=serving,
        peak_anonymous=peak,
        by_itself=(peak - by_itself) / (peak - before),
        asked=(peak - anonymous_bytes()) / (peak - before),
        trim_milliseconds=1000 * took,
    )


def _words(path: Path) -> list[str]:
    return [word for word in path.read_text(encoding="utf-8").split() if word.isidentifier()]


def _in_threads(work: object) -> float:
    """CPU seconds of `work(0)` to `work(THREADS - 1)` side by side."""
    assert callable(work)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    started = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - started


def _measured(setting: Setting) -> Figures:
    environment = {**os.environ, **setting.environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    argv = [sys.executable, __file__, "one-arena" if setting.one_arena else "as-it-is"]
    done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Figures)


def main() -> None:
    """The table of docs/allocators.md."""
    installed = [setting for setting in SETTINGS if setting.installed()]
    for setting in SETTINGS:
        if setting not in installed:
            print(f"left out, not installed: {setting.name}")
    runs: dict[str, list[Figures]] = {setting.name: [] for setting in installed}
    for _ in range(RUNS):
        for setting in installed:
            runs[setting.name].append(_measured(setting))

    def median(name: str, figure: str) -> float:
        return statistics.median(getattr(run, figure) for run in runs[name])

    base = SETTINGS[0].name
    table(
        f"Allocators, median of {RUNS} processes each; speeds against {base}",
        (
            "allocator",
            "% back by itself in 1 s",
            "% back when asked",
            "asking, ms",
            "serving, RSS MiB",
            "burst, anonymous MiB",
            "queries/s, ratio",
            "ingestion, ratio",
        ),
        [
            (
                name,
                round(100 * median(name, "by_itself")),
                round(100 * median(name, "asked")),
                round(median(name, "trim_milliseconds")),
                round(median(name, "serving_resident") / MIB),
                round(median(name, "peak_anonymous") / MIB),
                median(name, "queries_per_cpu_second") / median(base, "queries_per_cpu_second"),
                median(name, "ingested_per_cpu_second") / median(base, "ingested_per_cpu_second"),
            )
            for name in runs
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.buffer.write(msgspec.json.encode(measure(one_arena=sys.argv[1] == "one-arena")))
    else:
        main()
