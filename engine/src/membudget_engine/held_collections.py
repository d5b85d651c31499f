"""The collections that this engine alone writes to: each with its folder's lock, its log, and what was written.

Covers: taking a collection over, with every write that its log has over its generation. Does not cover writing
(`writer`) nor publishing generations (`publishing`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, embedder_problem, open_generation
from membudget_engine.embedder import Embedder
from membudget_engine.errors import CollectionMissing, EngineError, ReadOnly, WriteLogInvalid
from membudget_engine.index.build import sole_builder
from membudget_engine.index.generations import find_newest_generation, is_newest, remove_leftovers
from membudget_engine.overlay import Overlay
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.stores.write_log import WriteLog
from membudget_engine.write_problems import Concern

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """A collection that nobody but this engine writes to.

    Locks are taken in the order compacting, sealing, `ServedIndexes.changing`, writing.
    """

    name: str
    folder: Path
    log: WriteLog
    at_end: ExitStack
    writing: threading.Lock = field(default_factory=threading.Lock)
    sealing: threading.Lock = field(default_factory=threading.Lock)
    """Held while a generation is published and put into its place."""
    compacting: threading.Lock = field(default_factory=threading.Lock)
    refusing: bool = False
    """Whether a write found no room since the last seal."""


class HeldCollections:
    """By name. Thread-safe."""

    def __init__(
        self, data_folder: Path, embedder: Embedder, indexes: ServedIndexes, left: Callable[[str], object]
    ) -> None:
        """`left` hears the name of each collection whose generation changed."""
        self._data_folder = data_folder
        self._embedder = embedder
        self._catalog: Catalog = indexes.catalog
        self._indexes = indexes
        self._left = left
        self._held: dict[str, Held] = {}
        self.holding = threading.RLock()
        """Held by whoever takes a collection over or makes one."""

    @property
    def all(self) -> list[Held]:
        """Those that were taken over."""
        return list(self._held.values())

    def missing(self, name: str) -> bool:
        """Whether no collection of this name is served."""
        return name not in self._catalog.collections

    def take(self, name: str) -> Held:
        """The collection as held by this engine, taken over first where it is not; raises ReadOnly when it cannot."""
        held = self._held.get(name)
        if held is not None:
            return held
        try:
            held = self._taken_over(name)
        except CollectionMissing:
            raise
        except (EngineError, OSError) as error:
            self._catalog.problems.tell(name, Concern.WRITING, str(error))
            raise
        self._catalog.problems.end(name, Concern.WRITING)
        return held

    def close(self) -> None:
        """Let go of all."""
        with self.holding:
            for held in self._held.values():
                held.at_end.close()
            self._held.clear()

    def _taken_over(self, name: str) -> Held:
        with self.holding, ExitStack() as on_failure:
            if name in self._held:
                return self._held[name]
            if self.missing(name):
                raise CollectionMissing(f"no collection {name!r}")
            folder = self._data_folder / name
            on_failure.enter_context(sole_builder(folder))
            remove_leftovers(folder)
            with self._indexes.changing:
                opened = self._newest(folder, name)
                written = WriteLog(folder, opened.manifest.dimension, opened.manifest.sealed)
                on_failure.callback(written.close)
                self._catalog.lay_over(name, _restored(opened, written))
            held = self._held[name] = Held(name, folder, written, on_failure.pop_all())
            return held

    def _newest(self, folder: Path, name: str) -> Collection:
        """What is served, brought to what was published before this engine held the folder."""
        opened = self._catalog.collections[name]
        found = opened.generation if is_newest(folder, opened.manifest) else find_newest_generation(folder).found
        if found is None or found.manifest == opened.manifest:
            return opened
        problem = embedder_problem(found.manifest, self._embedder)
        if problem is not None:
            raise ReadOnly(f"{name} has a newer generation that was {problem}")
        newer = open_generation(name, found, former=opened)
        before = self._catalog.exchange(newer)
        if before is not None:
            self._catalog.retire(before)
            self._left(name)
        return newer


def _restored(opened: Collection, written: WriteLog) -> Overlay:
    """Everything in the log that the generation lacks."""
    manifest = opened.manifest
    if written.new and manifest.sealed:
        log.warning("%s: its log is not here: what was written and not sealed is not either", opened.name)
    if written.sequence < manifest.sealed:
        raise WriteLogInvalid(
            f"{opened.name}: its log ends with {written.sequence}, its generation has {manifest.sealed}: "
            "the log is older than the generation; restore it, or move it away"
        )
    overlay = Overlay(opened.sealed_dead, manifest.dimension, written)
    for number, write in written.after(manifest.sealed):
        overlay.apply(write, number, opened.chunks.row_of(write.id))
    return overlay
