"""Covers putting a generation into its place: its files synced, its manifest last, its name by a rename.

It does not cover what is in its files (build, sealing) nor when (publishing). Interrupted anywhere, the last generation
stays the newest. A new segment has its name before a generation names it; one that the former had stays where it is.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from membudget_engine.failpoints import Failpoint, passed
from membudget_engine.index.dead_rows import DeadRows, write_dead_rows
from membudget_engine.index.generations import (
    BUILDING_PREFIX,
    Generation,
    SegmentFolder,
    generation_directories,
    generation_directory,
    remove_old_generations,
    segment_directory,
)
from membudget_engine.index.manifest import FileEntry, Manifest, entry_of, write_manifest


def next_number(target: Path) -> int:
    """Of the collection's next generation. Raises OSError for an unlistable folder."""
    return max((number for number, _ in generation_directories(target)), default=0) + 1


def building_folder(target: Path, purpose: str = "") -> Path:
    """An empty hidden folder, for the holder of the collection's build lock. Raises OSError."""
    building = target / f"{BUILDING_PREFIX}{os.getpid()}{purpose}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    return building


def publish_segments(
    target: Path, number: int, segments: Sequence[SegmentFolder], dead: Sequence[DeadRows], sealed: int
) -> Generation:
    """Publishes a generation of these segments, whose files are synced. For the holder of the build lock.

    A segment in a hidden folder is moved from there. Raises OSError, and ManifestInvalid for one larger than what is
    read; then nothing was published.
    """
    building = building_folder(target)
    with ExitStack() as on_failure:
        on_failure.callback(shutil.rmtree, building, ignore_errors=True)
        for segment in segments:
            directory = segment_directory(target, segment.manifest.generation)
            if segment.directory != directory:
                on_failure.callback(shutil.rmtree, directory, ignore_errors=True)
                _place(segment, directory)
        passed(Failpoint.SEGMENT_PLACED)
        dead_file = write_dead_rows(building, dead)
        files = {} if dead_file is None else {dead_file.name: synced_entry(dead_file)}
        manifest = _manifest_of([one.manifest for one in segments], number, sealed, dead, files)
        _name(building, manifest, generation_directory(target, number))
        on_failure.pop_all()
    return _settled(generation_directory(target, number), manifest)


def _place(segment: SegmentFolder, directory: Path) -> None:
    """Gives a new segment its name; the only one of a generation is linked: that generation keeps it too."""
    collection = directory.parent.parent
    if not directory.parent.is_dir():
        directory.parent.mkdir()
        sync(collection)
    hidden = segment.directory
    if hidden.parent == collection and not hidden.name.startswith(BUILDING_PREFIX):
        hidden = building_folder(collection, "-linked")
        for name in segment.manifest.files:
            os.link(segment.directory / name, hidden / name)
    sync(hidden)
    hidden.rename(directory)
    sync(directory.parent)


def publish(building: Path, manifest: Manifest, directory: Path) -> Generation:
    """Gives a folder, whose files are synced, its manifest and its name; removes what it replaces.

    Raises OSError, and ManifestInvalid for a manifest larger than what is read.
    """
    _name(building, manifest, directory)
    return _settled(directory, manifest)


def synced_entry(file: Path) -> FileEntry:
    """Of a file that is on the disk now. Raises OSError."""
    sync(file)
    return entry_of(file)


def sync(path: Path) -> None:
    """A file or folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(building: Path, manifest: Manifest, directory: Path) -> None:
    sync(write_manifest(building, manifest))
    sync(building)
    passed(Failpoint.MANIFEST_WRITTEN)
    building.rename(directory)
    passed(Failpoint.PUBLISHED)


def _settled(directory: Path, manifest: Manifest) -> Generation:
    sync(directory.parent)
    remove_old_generations(directory.parent, manifest.generation)
    passed(Failpoint.OLD_REMOVED)
    return Generation(directory, manifest)


def _manifest_of(
    segments: Sequence[Manifest], number: int, sealed: int, dead: Sequence[DeadRows], files: dict[str, FileEntry]
) -> Manifest:
    largest = max(segments, key=lambda segment: segment.count)
    measured = [segment.recall for segment in segments if segment.recall is not None]
    return Manifest(
        collection=largest.collection,
        generation=number,
        count=sum(segment.count for segment in segments),
        dimension=largest.dimension,
        index_type=largest.index_type,
        nlist=largest.nlist,
        nprobe=largest.nprobe,
        probe_margin=largest.probe_margin,
        representation=largest.representation,
        code_bits=largest.code_bits,
        rerank=largest.rerank,
        recall=min(measured, default=None),
        sealed=sealed,
        embedder=largest.embedder,
        reduction=largest.reduction,
        created=datetime.now(UTC),
        files=files,
        dead_rows=sum(rows.dead for rows in dead),
        segments=tuple(segments),
    )
