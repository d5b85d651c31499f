"""When Python collects garbage: by the plan's thresholds, seldom while requests run, or often to save memory.

Covers: the modes, a section without collections, full collection while nothing is asked of the service, and putting
everything back. Does not cover how long collections take (`gc_pauses`) nor those the sidecar asks for (`reclaim`),
which run in every mode.

Latency: what lives when the mode is chosen is frozen, young objects are collected half as often as planned, and the
oldest generation only while the service is idle, or after ten minutes without idleness: garbage in cycles must not
wait for ever where no sidecar watches. A third threshold of 0 would not stop its collections but start one with every
young one, hence a very large one.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from membudget_contract.control_api import GcMode, GcReport
from membudget_contract.errors import EnvironmentInvalid
from membudget_runtime.interpreter.gc_pauses import PauseClock
from membudget_runtime.periodic import Periodic

MODE_VARIABLE: Final = "MEMBUDGET_GC_MODE"

GcThresholds = tuple[int, int, int]
"""As `gc.set_threshold` takes them."""

NEVER: Final = 1_000_000_000
"""Collections of the middle generation before one of the oldest: none in the life of a process."""
MEMORY_THRESHOLDS: Final[GcThresholds] = (500, 5, 5)
YOUNG_FACTOR: Final = 2
"""Latency mode: so many times the planned objects before a young collection."""
IDLE_SECONDS: Final = 2.0
"""Without the end of a request: then nobody waits for a full collection."""
LATEST_SECONDS: Final = 600.0
"""Between two full collections of a service that is never idle."""
LOOK_SECONDS: Final = 1.0


def mode_asked(environment: Mapping[str, str]) -> GcMode:
    """The mode that the environment names; Latency where it names none: a service is asked and waited for.

    Raises:
        EnvironmentInvalid: it names no mode.
    """
    text = environment.get(MODE_VARIABLE, GcMode.LATENCY)
    try:
        return GcMode(text)
    except ValueError:
        raise EnvironmentInvalid(MODE_VARIABLE, f"{text!r} is none of {', '.join(GcMode)}") from None


def thresholds_in(mode: GcMode, planned: GcThresholds) -> GcThresholds:
    """What `gc.set_threshold` gets in a mode, with these thresholds in the plan."""
    match mode:
        case GcMode.DEFAULT:
            return planned
        case GcMode.LATENCY:
            return (YOUNG_FACTOR * planned[0], planned[1], NEVER)
        case GcMode.MEMORY:
            return MEMORY_THRESHOLDS


def full_collection_due(now: float, *, active_at: float | None, collected_at: float) -> bool:
    """Whether to collect the oldest generation now; all in seconds of one clock.

    A service that never told of a request is not known to be idle: `active_at` is None.
    """
    idle = active_at is not None and now - max(active_at, collected_at) >= IDLE_SECONDS
    return idle or now - collected_at >= LATEST_SECONDS


class GcTuner:
    """This process's garbage collection, from construction to `restore`. Thread-safe; one in a process.

    Changes nothing before `plan` or `use` is called; pauses are timed from the beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # a finalizer may come back here while it is held
        self._found = self._planned = gc.get_threshold()
        self._mode = GcMode.DEFAULT
        self._frozen = False
        self._frozen_objects = gc.get_freeze_count()
        self._sections = 0
        self._enabled_before = True
        self._active_at: float | None = None
        self._collected_at = clock()
        self._look: Periodic | None = None
        self._pauses = PauseClock()
        self._pauses.listen()

    def plan(self, thresholds: GcThresholds) -> None:
        """Hold a plan's thresholds; Default mode takes them as they are, Memory mode does not."""
        with self._lock:
            self._planned = thresholds
            gc.set_threshold(*thresholds_in(self._mode, thresholds))

    def use(self, mode: GcMode) -> None:
        """Work in this mode from now on; Latency when the service has started, so that what stays is frozen."""
        with self._lock:
            former, self._mode = self._mode, mode
            gc.set_threshold(*thresholds_in(mode, self._planned))
            if mode is former:
                return
            look, self._look = self._look, None
            if mode is GcMode.LATENCY:
                self._freeze()
                self._look = Periodic("idle-collection", LOOK_SECONDS, self.collect_if_idle)
            elif former is GcMode.LATENCY:
                self._unfreeze()
            self._frozen_objects = gc.get_freeze_count()
        if look is not None:
            look.close()  # not under the lock, which a finalizer in that thread may wait for

    def note_activity(self) -> None:
        """A request ended: the service is not idle. Costs a tenth of a microsecond."""
        self._active_at = self._clock()

    def collect_if_idle(self) -> bool:
        """Collect all generations if nobody waits for it and something was allocated since; whether it did."""
        now = self._clock()
        if not full_collection_due(now, active_at=self._active_at, collected_at=self._collected_at):
            return False
        self._collected_at = now
        if not any(gc.get_count()[1:]):  # not even a young collection since the last full one
            return False
        gc.collect()
        return True

    @contextmanager
    def uninterrupted(self) -> Generator[None]:
        """A section without automatic collections, in all threads; may be nested, and overlap in several threads.

        Automatic collections go on when the last such section ends, if they were on before the first. `gc.collect()`
        still collects.
        """
        with self._lock:
            if self._sections == 0:
                self._enabled_before = gc.isenabled()
                gc.disable()
            self._sections += 1
        try:
            yield
        finally:
            with self._lock:
                self._sections -= 1
                if self._sections == 0 and self._enabled_before:
                    gc.enable()

    def report(self) -> GcReport:
        """Counters since the process began, mode, thresholds in force, and pauses since this tuner was made.

        Frozen objects are told as they were when the mode changed: counting them walks over all of them, 5 ms for an
        engine's, in which no other thread runs.
        """
        generations = gc.get_stats()
        return GcReport(
            collections=sum(generation["collections"] for generation in generations),
            collected=sum(generation["collected"] for generation in generations),
            mode=self._mode,
            thresholds=gc.get_threshold(),
            frozen=self._frozen_objects,
            pauses=self._pauses.figures(),
        )

    def restore(self) -> None:
        """Put thresholds back as they were found, unfreeze, stop timing and idle collections. Again does nothing."""
        self.use(GcMode.DEFAULT)
        gc.set_threshold(*self._found)
        self._pauses.close()

    def _freeze(self) -> None:
        gc.collect()
        self._collected_at = self._clock()
        if gc.get_freeze_count() == 0:  # else somebody else has frozen, and what is his could not be told from ours
            gc.freeze()
            self._frozen = True

    def _unfreeze(self) -> None:
        if self._frozen:
            self._frozen = False
            gc.unfreeze()
