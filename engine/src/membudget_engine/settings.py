"""Settings of one engine process: folders, address, threads.

Covers: what is fixed from start to end, and why these defaults. Does not cover budgets: those move live
(`membudget_runtime.bounds`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

MAX_HITS: Final = 50
"""Hits one query may ask for."""

MAX_QUERY_CHARACTERS: Final = 4096
MAX_BODY_BYTES: Final = 64 * 1024
WAITING_QUERIES: Final = 256
"""Queries in work or waiting; one more is refused with a retriable 503 rather than queued without end."""

SWITCH_INTERVAL_SECONDS: Final = 0.0005
"""With the interpreter's 5 ms, 20 busy threads delay the control socket by 300 ms; with this by 13 ms."""

EMBEDDER_KEY: Final = "MEMBUDGET_EMBEDDER_KEY"
"""In the environment: arguments of a process are read by others."""

GRACE_SECONDS: Final = 30.0
"""What Kubernetes gives a pod where nothing is said."""


@dataclass(frozen=True, slots=True)
class EmbeddingServer:
    """A server of OpenAI's `/v1/embeddings`, and what it is asked for."""

    url: str
    """Of its API: `/embeddings` is appended, as to `http://127.0.0.1:8000/v1`."""
    model: str
    dimension: int
    """Of the model's vectors; an answer of any other is refused."""
    key: str | None = None
    """Sent as a bearer token."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be asked."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{self.url!r} is no embedding server: write http://host:port/v1")
        if not self.model or self.dimension < 1:
            raise ValueError(f"{self.url} needs a model and its dimension, not {self.model!r} and {self.dimension}")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One engine process."""

    data_folder: Path
    """Holds `<collection>/generation-<number>`; filled by `membudget-engine build`."""
    state_folder: Path
    """Own to this process: last budgets, spilled values."""
    run_folder: Path
    """Shared with the sidecar: `engine.sock`."""
    host: str
    port: int
    grace_seconds: float = GRACE_SECONDS
    """From the signal to the kill: terminationGracePeriodSeconds of the pod."""
    writer: bool = False
    """Whether it takes writes; the data folder is its alone then."""
    sources: tuple[tuple[str, Path], ...] = ()
    """Collections with the trees they were built from: files and their history are served."""
    embedding_server: EmbeddingServer | None = None
    """None: the built-in embedder."""

    @property
    def control_socket(self) -> Path:
        """Where the runtime listens."""
        return self.run_folder / "engine.sock"


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))


def query_workers(*, waiting_for_rows: bool = False) -> int:
    """Threads that answer queries: more than 4 only wait for the interpreter's lock.

    One more where queries wait for rows of a file now and then, as those of Compact collections do.
    """
    return min(4, max(2, processors()) + waiting_for_rows)


def limit_thread_pools(threads: int) -> None:
    """Bound the pools of numpy and FAISS; must run before either is imported."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
