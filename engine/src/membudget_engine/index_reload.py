"""Reload of the index: newer generations are served from now on, without a query failing.

Covers: looking for the newest good generation of each collection again, and exchanging it. Does not cover who asks
(control socket, SIGHUP) nor building (`index.build`).

A newer generation that is damaged, of another embedder or unreadable is told, and the present one is served on; so is
a collection whose folder has gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from membudget_engine.catalog import Catalog
from membudget_engine.collection import collection_folders, embedder_problem, open_generation
from membudget_engine.embedder import Embedder
from membudget_engine.errors import EngineError
from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.index.generations import find_newest_generation, is_newest
from membudget_engine.served_indexes import ServedIndexes
from membudget_runtime.reloads import Reloading

log = logging.getLogger(__name__)


class IndexReload:
    """An observer for `MemoryRuntime.on_reload`; `left` hears the name of each collection whose generation changed."""

    def __init__(
        self,
        data_folder: Path,
        embedder: Embedder,
        catalog: Catalog,
        indexes: ServedIndexes,
        left: Callable[[str], object],
    ) -> None:
        self._data_folder = data_folder
        self._embedder = embedder
        self._catalog = catalog
        self._indexes = indexes
        self._left = left

    def __call__(self) -> Reloading:
        """Look at every collection; raises OSError when the data folder cannot be listed. One at a time."""
        folders = collection_folders(self._data_folder)
        looks = [self._look(folder) for folder in folders]
        gone = self._catalog.collections.keys() - {folder.name for folder in folders}
        settled = self._indexes.settle()
        problems = [look.problem for look in looks]
        problems += [f"{name}: its folder is gone, the open generation is served on" for name in sorted(gone)]
        told = [problem for problem in (*problems, settled) if problem is not None]
        return Reloading(any(look.changed for look in looks), "; ".join(told) or None)

    def _look(self, folder: Path) -> Reloading:
        served = self._catalog.collections.get(folder.name)
        try:
            if served is not None and (served.overlay is not None or is_newest(folder, served.manifest)):
                # What this engine writes to it seals itself, and nobody else may.
                return Reloading(changed=False)
            return self._take_newest(folder)
        except (EngineError, OSError) as error:
            # What was never served may be no collection at all, as a volume's lost+found.
            problem = f"{folder.name}: {error}" if served is not None or isinstance(error, EngineError) else None
            return Reloading(changed=False, problem=problem)

    def _take_newest(self, folder: Path) -> Reloading:
        served = self._catalog.collections.get(folder.name)
        search = find_newest_generation(folder, frozenset() if served is None else served.generation.compared)
        skipped = [f"{folder.name}: {skipped.reason}" for skipped in search.skipped]
        problem = "; ".join(skipped) or None
        if search.found is None:
            return Reloading(changed=False, problem=problem)
        manifest = search.found.manifest
        if served is not None and not (
            manifest.generation > served.manifest.generation or manifest.created > served.manifest.created
        ):
            return Reloading(changed=False, problem=problem)
        refused = embedder_problem(manifest, self._embedder)
        if refused is not None:
            return Reloading(changed=False, problem=f"{folder.name}: {search.found.directory.name} was {refused}")
        opened = open_generation(folder.name, search.found, former=served)
        passed(Failpoint.RELOAD_OPENED)
        # Only now: new budgets, and evictions behind them, do not wait while a large generation is read.
        with self._indexes.changing:
            before = self._catalog.exchange(opened)
        passed(Failpoint.RELOAD_EXCHANGED)
        if before is not None:
            self._catalog.retire(before)
            self._left(folder.name)
        log.info("%s: generation %d is served", folder.name, manifest.generation)
        return Reloading(changed=True, problem=problem)
