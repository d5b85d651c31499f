"""Exchanges with many pods at once: a bounded pool, and at most one exchange for each pod.

Covers: running, what is in flight, collecting results. Does not know what is exchanged. Its owner is one thread; the
pool's threads only put results into a queue and call `on_result`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

THREADS: Final = 64
"""100 pods that swallow packets for 2 s each hold up the others by 4 s at most."""

Result = TypeVar("Result")


class FanOut(Generic[Result]):
    """Results come back in the order in which exchanges end."""

    def __init__(self, on_result: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="exchange")
        self._on_result = on_result
        self._results: queue.SimpleQueue[tuple[str, Result | BaseException]] = queue.SimpleQueue()
        self.in_flight: set[str] = set()

    def start(self, pod_uid: str, exchange: Callable[[], Result]) -> None:
        """Begin an exchange with a pod that has none in flight."""
        self.in_flight.add(pod_uid)
        self._pool.submit(self._run, pod_uid, exchange)

    def collect(self, seconds: float, clock: Callable[[], float]) -> list[Result]:
        """What has ended; waits so long for what has not."""
        collected: list[Result] = []
        deadline = clock() + seconds
        while self.in_flight:
            try:
                pod_uid, result = self._results.get(timeout=max(deadline - clock(), 0))
            except queue.Empty:
                break
            self.in_flight.discard(pod_uid)
            if isinstance(result, BaseException):
                raise result
            collected.append(result)
        return collected

    def stop(self) -> None:
        """Start nothing more; what runs ends within its own bound."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, pod_uid: str, exchange: Callable[[], Result]) -> None:
        try:
            result: Result | BaseException = exchange()
        except BaseException as error:  # noqa: BLE001  raised again by the owner, in its thread
            result = error
        self._results.put((pod_uid, result))
        self._on_result()
