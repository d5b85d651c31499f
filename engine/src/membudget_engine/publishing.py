"""Publishing what was written: a seal adds a segment to the collection, a compaction makes one of several.

Covers: the next generation of a collection, the memory set aside for it, and serving it in place of the former one
while queries and writes go on. Does not cover the files of a segment (`sealing`, `index.build`), the rename
(`index.publication`) nor when (`due_publishing`).

A seal writes the log's writes up to a number as one more segment; what it found dead by then stands in the generation.
Nothing that was sealed before is copied. A compaction writes its segment while seals go on,
and takes the place of those it was made of in a generation of its own; what died meanwhile is dead in it too.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from membudget_contract.profiles import INDEX
from membudget_engine.collection import Collection, open_generation
from membudget_engine.errors import SealPending
from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.held_collections import Held
from membudget_engine.index.build import Plan, build_bytes, training_rows_of, write_segment
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.dead_rows import DeadRows, survivors
from membudget_engine.index.generations import Generation, SegmentFolder, fallback_manifest
from membudget_engine.index.manifest import MANIFEST_FILE, MOST_SEGMENTS, REDUCTION_FILE, Manifest
from membudget_engine.index.publication import building_folder, next_number, publish_segments
from membudget_engine.overlay import Overlay
from membudget_engine.sealing import write_logged, write_merged
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.write_problems import Concern
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import Ledger

LEAST_TRAINING_ROWS: Final = 1_000
"""FAISS trains no list on less than one row, and there are 1,000 lists at most."""
WRITING_THREADS: Final = 1

SEAL: Final = "seal"
COMPACTION: Final = "compaction"

Run = Callable[[Sequence[int], Sequence[int]], range | None]
"""Of the rows of each segment and the dead among them: the places of those that are to become one."""

log = logging.getLogger(__name__)


class _Merged(NamedTuple):
    """A compaction under way: what it is made of, and what was dead in that when it began."""

    run: range
    then: tuple[DeadRows, ...]
    segment: SegmentFolder | None
    """None where no row holds."""

    def in_place(self, dead: Sequence[DeadRows]) -> list[DeadRows]:
        """The dead rows of each segment once this one is in its place, from those before."""
        merged = survivors(zip(self.then, dead[self.run.start : self.run.stop], strict=True))
        own = [] if self.segment is None else [merged]
        return [*dead[: self.run.start], *own, *dead[self.run.stop :]]


class Publishing:
    """Publishes the generations of one engine's collections. Every method may be called from any thread."""

    def __init__(
        self, indexes: ServedIndexes, ledger: Ledger, left: Callable[[str], object], given_up: Callable[[], bool]
    ) -> None:
        """`left` hears the name of each collection whose generation changed; `given_up` ends what is under way."""
        self.published: Counter[str] = Counter()
        """Generations, by what they were published for."""
        self.written_bytes: Counter[str] = Counter()
        """Of their files, those alone that were not there before."""
        self._indexes = indexes
        self._catalog = indexes.catalog
        self._ledger = ledger
        self._left = left
        self._given_up = given_up

    def seal(self, held: Held) -> bool:
        """Seals now what was written; False when nothing was, or nothing would be left.

        Raises:
            NoRoom, ValueTooLarge: with the bytes that building takes; everything stays as it is.
            SealPending: there are as many segments as there may be.
            BuildFailed, OSError and what opening a generation raises: likewise.
        """
        sealed = self._seal(held)
        # Whoever asked for it: what the background could not do is done.
        self._catalog.problems.end(held.name, Concern.SEALING)
        return sealed

    def _seal(self, held: Held) -> bool:
        with held.sealing, self._catalog.use(held.name) as opened:
            overlay = opened.overlay
            assert overlay is not None
            with held.writing:
                through, count = overlay.sequence, opened.count
                dead = [rows.copy() for rows in overlay.dead]
                held.refusing = False
            if not through or not count:
                return False
            if len(dead) >= MOST_SEGMENTS:
                waiting = self._catalog.problems.reason(held.name, Concern.MERGING) or "they are being merged"
                raise SealPending(f"{held.name} has {len(dead)} segments, no more are possible: {waiting}")
            manifest = opened.manifest
            plan = _plan(opened.generation, through)
            rows = held.log.count(manifest.sealed, through)
            with self.room_to_build(held.name, plan, rows, _moved_bytes(opened)) as granted:
                passed(Failpoint.SEAL_BEGUN)
                number = next_number(held.folder)
                with _hidden_folder(held.folder, "-segment") as folder:
                    new = write_segment(
                        folder,
                        granted,
                        number,
                        lambda building: write_logged(building, held.log, manifest.sealed, through, self._given_up),
                    )
                    segments, last = opened.generation.segments, list[DeadRows]()
                    if new is not None:
                        segments, last = (*segments, SegmentFolder(folder, new)), [DeadRows(new.count)]
                    generation = publish_segments(held.folder, number, segments, [*dead, *last], through)
                self.count(SEAL, generation, new)
                self._serve(held, generation, opened, lambda now: [*now, *last])
            self._forget(held, generation)
        self._indexes.settle()
        log.info("%s: writes up to %d are in generation %d", held.name, through, number)
        return True

    def compact(self, held: Held, choose: Run) -> bool:
        """Makes one segment of those that `choose` names, seals going on meanwhile; False when there is nothing to do.

        Raises as `seal`.
        """
        with held.compacting, _hidden_folder(held.folder, "-merged") as folder:
            with held.sealing, self._catalog.use(held.name) as opened:
                then = opened.sealed_dead
                run = choose([rows.count for rows in then], [rows.dead for rows in then])
                if run is None or (len(run) == 1 and not then[run.start].dead):
                    return False
                # They stay where they are: every generation that a seal publishes meanwhile names them.
                former = opened.generation.segments[run.start : run.stop]
                copied = 0 if opened.overlay is None else opened.overlay.delta.owned_bytes
            rows = sum(rows.count - rows.dead for rows in then[run.start : run.stop])
            with self.room_to_build(held.name, _plan(opened.generation, 0), rows, copied) as granted:
                passed(Failpoint.COMPACTION_BEGUN)
                merged = self._merged(folder, granted, former, then, run)
                passed(Failpoint.SEGMENTS_MERGED)
                generation = self._take_place(held, merged)
        if generation is None:
            return False
        passed(Failpoint.COMPACTED)
        self._catalog.problems.end(held.name, Concern.MERGING)
        self._indexes.settle()
        log.info("%s: %d segments are one in generation %d", held.name, len(run), generation.manifest.generation)
        return True

    def least_seal_bytes(self, opened: Collection, writes: int) -> int:
        """What `seal` sets aside at least for so many unsealed writes."""
        plan = replace(_plan(opened.generation, 0), training_rows=LEAST_TRAINING_ROWS)
        return build_bytes(plan, writes) + _moved_bytes(opened)

    @contextmanager
    def room_to_build(self, name: str, plan: Plan, count: int, more: int = 0) -> Generator[Plan]:
        """The plan with as many rows to train on as there is room for, and room for so many bytes more.

        Raises NoRoom or ValueTooLarge, with the bytes of the least that would do.
        """
        rows = training_rows_of(plan, count)
        priority = self._ledger.bounds.ranking.priority(name)
        while True:
            granted = replace(plan, training_rows=rows)
            byte_count = build_bytes(granted, count) + more
            try:
                self._ledger.set_aside(INDEX, byte_count, priority)
                break
            except (NoRoom, ValueTooLarge):
                if rows <= LEAST_TRAINING_ROWS:
                    self._give_pages_back(byte_count)
                    raise
                rows = max(LEAST_TRAINING_ROWS, rows // 2)
        try:
            yield granted
        finally:
            self._ledger.return_reserved(INDEX, byte_count)
            self._ledger.trim()

    def _give_pages_back(self, byte_count: int) -> None:
        """Mapped pages that count against the same room go, the longest unused first: the next try finds it."""
        if self._ledger.bounds.counts_mapped():
            self._indexes.page_out(byte_count)

    def count(self, kind: str, generation: Generation, new: Manifest | None) -> None:
        """A generation was published, with this segment as what is new in it."""
        written = sum(entry.bytes for one in (generation.manifest, new) if one for entry in one.files.values())
        self.written_bytes[kind] += written + (generation.directory / MANIFEST_FILE).stat().st_size
        self.published[kind] += 1

    def _merged(
        self, folder: Path, plan: Plan, former: Sequence[SegmentFolder], then: Sequence[DeadRows], run: range
    ) -> _Merged:
        dead = tuple(then[run.start : run.stop])
        building = folder / "merged"
        building.mkdir()
        parts = list(zip(former, dead, strict=True))
        # It gets its number when it is published: seals take theirs meanwhile.
        new = write_segment(building, plan, 1, lambda target: write_merged(target, parts, self._given_up))
        return _Merged(run, dead, None if new is None else SegmentFolder(building, new))

    def _take_place(self, held: Held, merged: _Merged) -> Generation | None:
        """Publishes and serves the merged segment in place of the former ones; None where no segment would be left."""
        with held.sealing, self._catalog.use(held.name) as opened:
            number = next_number(held.folder)
            segments = list(opened.generation.segments)
            new = None
            if merged.segment is not None:
                new = msgspec.structs.replace(merged.segment.manifest, generation=number)
            own = [] if merged.segment is None or new is None else [SegmentFolder(merged.segment.directory, new)]
            segments[merged.run.start : merged.run.stop] = own
            if not segments:
                return None
            # As of what is sealed, not of what was written since: readers have no log.
            dead = merged.in_place(opened.sealed_dead)
            generation = publish_segments(held.folder, number, segments, dead, opened.manifest.sealed)
            self.count(COMPACTION, generation, new)
            self._serve(held, generation, opened, merged.in_place)
            self._forget(held, generation)
        return generation

    def _serve(
        self,
        held: Held,
        generation: Generation,
        former: Collection,
        dead_of: Callable[[Sequence[DeadRows]], Sequence[DeadRows]],
    ) -> None:
        """Queries get this generation from now on; `dead_of` makes its dead rows of those of the former by now."""
        manifest = generation.manifest
        opened = open_generation(held.name, generation, former=former)
        with self._indexes.changing, held.writing:
            overlay = former.overlay
            assert overlay is not None
            newer = Overlay(
                dead_of(overlay.dead), manifest.dimension, held.log, overlay.delta.written_after(manifest.sealed)
            )
            if overlay.sequence > manifest.sealed:
                newer.sequence = overlay.sequence
            if len(opened.segments) > len(former.segments):
                # What was written again while the newest segment was; in all others it is dead already.
                for _, write in held.log.after(manifest.sealed):
                    newer.end(opened.chunks.row_of(write.id))
            before = self._catalog.exchange(replace(opened, overlay=newer))
        passed(Failpoint.EXCHANGED)
        if before is not None:
            self._catalog.retire(before)
        self._left(held.name)

    def _forget(self, held: Held, generation: Generation) -> None:
        """What two generations hold leaves the log."""
        fallback = fallback_manifest(held.folder, generation.manifest.generation)
        if fallback is not None:
            held.log.purge(fallback.sealed)
        passed(Failpoint.PURGED)


def _moved_bytes(opened: Collection) -> int:
    """Of codes that are in memory twice while a segment that lies in its generation's own folder gets another path."""
    own = opened.generation.directory
    moved = [one.index for one in opened.segments if one.folder.directory == own]
    return sum(index.owned_bytes for index in moved if isinstance(index, CompactIndex))


def _plan(generation: Generation, sealed: int) -> Plan:
    """Of a segment more, as those that there are."""
    manifest = generation.manifest
    file = generation.segments[0].directory / REDUCTION_FILE
    return Plan(
        manifest.collection,
        manifest.embedder,
        manifest.dimension,
        WRITING_THREADS,
        manifest.representation,
        sealed=sealed,
        reduction=None if manifest.reduction is None else (file, manifest.reduction),
    )


@contextmanager
def _hidden_folder(collection: Path, purpose: str) -> Generator[Path]:
    folder = building_folder(collection, purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
