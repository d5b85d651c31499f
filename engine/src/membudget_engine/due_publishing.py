"""Seals and compactions in the background, when they are due.

Covers: how full a delta may be, two threads, one of each kind, and trying again what failed. Does not cover what
a seal or a compaction does (`publishing`) nor which segments are merged (`index.segment_merging`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from membudget_engine.catalog import Catalog
from membudget_engine.errors import EngineError
from membudget_engine.held_collections import Held, HeldCollections
from membudget_engine.index.segment_merging import run_to_merge, too_many_dead
from membudget_engine.publishing import Publishing
from membudget_engine.write_problems import Concern
from membudget_runtime.errors import RuntimeMemoryError

DELTA_BYTES: Final = 8 * 1024 * 1024
"""Of one collection: 4,000 vectors of 384 places, which a query scans in 0.6 ms."""
SEAL_FROM_SHARE: Final = 0.5
"""Of those bytes; the other half takes the writes that come while a seal runs."""
RETRY_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 60.0
"""Between two tries of a compaction: each may copy all of a collection before it finds the volume full."""

_NOT_YET: Final = {
    Concern.SEALING: "what was written is not sealed yet",
    Concern.MERGING: "its segments are not merged yet",
}

log = logging.getLogger(__name__)


class DuePublishing:
    """Two threads. Every method may be called from any other."""

    def __init__(self, catalog: Catalog, held: HeldCollections, publishing: Publishing) -> None:
        self._catalog = catalog
        self._held = held
        self._publishing = publishing
        self._ended = False
        self._seal, self._merge = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._seal_when_due, name="seal", daemon=True),
            threading.Thread(target=self._merge_when_due, name="compact", daemon=True),
        ]

    @property
    def ended(self) -> bool:
        """Whether what is under way is to be given up."""
        return self._ended

    def start(self) -> None:
        """Look at everything now, and whenever `wake` says so."""
        for thread in self._threads:
            thread.start()
        self.wake()

    def wake(self) -> None:
        """Look again."""
        self._seal.set()
        self._merge.set()

    def wake_when_due(self, name: str) -> None:
        """Look again if something of this collection is due."""
        if any(held.name == name and self._is_due(held) for held in self._held.all):
            self._seal.set()

    def close(self) -> None:
        """Ends: a seal or compaction under way is given up, what was written is in the log."""
        self._ended = True
        self.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _is_due(self, held: Held) -> bool:
        opened = self._catalog.collections.get(held.name)
        overlay = None if opened is None else opened.overlay
        if opened is None or overlay is None:
            return False
        manifest = opened.manifest
        died = too_many_dead(overlay.dead_rows, manifest.count)
        full = overlay.delta.owned_bytes > SEAL_FROM_SHARE * DELTA_BYTES
        return full or held.refusing or (died and not too_many_dead(manifest.dead_rows, manifest.count))

    def _seal_when_due(self) -> None:
        retry = False
        while True:
            self._seal.wait(RETRY_SECONDS if retry else None)
            self._seal.clear()
            if self._ended:
                return
            done = [self._done_or_told(held, self._sealed, Concern.SEALING) for held in self._held.all]
            retry = not all(done)

    def _merge_when_due(self) -> None:
        retry: float | None = None
        while True:
            self._merge.wait(retry)
            self._merge.clear()
            if self._ended:
                return
            done = [self._done_or_told(held, self._merged, Concern.MERGING) for held in self._held.all]
            retry = None if all(done) else min(MOST_RETRY_SECONDS, 2 * (retry or RETRY_SECONDS))

    def _sealed(self, held: Held) -> None:
        if self._is_due(held):
            self._publishing.seal(held)
            self._merge.set()

    def _merged(self, held: Held) -> None:
        opened = self._catalog.collections.get(held.name)
        dead = () if opened is None else opened.sealed_dead
        if run_to_merge([rows.count for rows in dead], [rows.dead for rows in dead]) is not None:
            self._publishing.compact(held, run_to_merge)
        self._catalog.problems.end(held.name, Concern.MERGING)

    def _done_or_told(self, held: Held, work: Callable[[Held], None], concern: Concern) -> bool:
        try:
            work(held)
        except (EngineError, RuntimeMemoryError, OSError, MemoryError) as error:
            self._tell(held, str(error) or "the process got no memory for it", concern)
        except Exception as error:  # noqa: BLE001  a defect in one collection leaves the thread to the others
            self._tell(held, f"a defect of this engine: {error!r}", concern, defect=error)
        else:
            return True
        return False

    def _tell(self, held: Held, problem: str, concern: Concern, *, defect: Exception | None = None) -> None:
        """Once, however often it is tried again."""
        if self._catalog.problems.tell(held.name, concern, problem) and not self._ended:
            level = logging.WARNING if defect is None else logging.ERROR
            log.log(level, "%s: %s: %s", held.name, _NOT_YET[concern], problem, exc_info=defect)
