"""Covers the folders of a collection: their names, finding the newest good one, and removing what is of no more use.

It does not cover what is inside one (build, manifest, mapped). A collection's folder holds `generation-<8 digits>`
folders, which never change, and hidden ones of a builder at work or of a removal that was interrupted. A generation of
one segment has it in its own folder. Of others it names the segments: those lie in `segments/segment-<8 digits>`, each
for as long as a generation names it, under the same path for whoever has it open.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from membudget_engine.errors import FileDamaged, ManifestInvalid
from membudget_engine.index.manifest import ComparedFile, Manifest, read_manifest, verify

BUILDING_PREFIX = ".building-"
SEGMENTS_FOLDER = "segments"
_REMOVING_PREFIX = ".removing-"
_GENERATION_NAME = re.compile(r"generation-([0-9]{8})")


@dataclass(frozen=True)
class SegmentFolder:
    """Where a segment of a generation lies, and what it holds."""

    directory: Path
    manifest: Manifest


@dataclass(frozen=True)
class Generation:
    """A generation whose files were all compared with its manifest."""

    directory: Path
    manifest: Manifest
    compared: frozenset[ComparedFile] = field(default=frozenset(), compare=False, repr=False)
    """Those files as they were then; none where this process wrote them for it."""

    @property
    def segments(self) -> tuple[SegmentFolder, ...]:
        """Oldest first."""
        return segment_folders(self.directory, self.manifest)


@dataclass(frozen=True)
class SkippedGeneration:
    """A generation that cannot be used, and why."""

    directory: Path
    reason: str


@dataclass(frozen=True)
class GenerationSearch:
    """What a look into a collection's folder gave: the newest good generation, and what is newer but damaged."""

    found: Generation | None
    skipped: tuple[SkippedGeneration, ...]


def find_newest_generation(collection: Path, compared: frozenset[ComparedFile] = frozenset()) -> GenerationSearch:
    """Reads and verifies generations from the newest on until one is good. Raises OSError for an unlistable folder.

    Files that were `compared` before and are as they were then are not read again: generations share segments.
    """
    skipped: list[SkippedGeneration] = []
    for number, directory in reversed(generation_directories(collection)):
        try:
            manifest = _numbered_manifest(directory, number)
            seen = verify_generation(directory, manifest, compared)
        except (ManifestInvalid, FileDamaged) as error:
            skipped.append(SkippedGeneration(directory, str(error)))
        else:
            return GenerationSearch(Generation(directory, manifest, seen), tuple(skipped))
    return GenerationSearch(None, tuple(skipped))


def is_newest(collection: Path, manifest: Manifest) -> bool:
    """Whether the newest generation is the one of this manifest; no file but its manifest is read.

    Raises OSError for an unlistable folder.
    """
    directories = generation_directories(collection)
    if not directories:
        return False
    number, directory = directories[-1]
    try:
        return _numbered_manifest(directory, number) == manifest
    except ManifestInvalid:
        return False


def segment_folders(directory: Path, manifest: Manifest) -> tuple[SegmentFolder, ...]:
    """The segments of a generation, oldest first; its own folder where it has no other."""
    if not manifest.segments:
        return (SegmentFolder(directory, manifest),)
    return tuple(SegmentFolder(segment_directory(directory.parent, one.generation), one) for one in manifest.segments)


def segment_directory(collection: Path, number: int) -> Path:
    """Where the segment stands that was published with the generation of this number first."""
    return collection / SEGMENTS_FOLDER / f"segment-{number:08}"


def verify_generation(
    directory: Path, manifest: Manifest, compared: frozenset[ComparedFile] = frozenset()
) -> frozenset[ComparedFile]:
    """Compares every file of a generation, those of its segments too; raises FileDamaged. Otherwise as `verify`."""
    seen = verify(directory, manifest, compared)
    for segment in segment_folders(directory, manifest) if manifest.segments else ():
        seen |= verify(segment.directory, segment.manifest, compared)
    return seen


def generation_directories(collection: Path) -> list[tuple[int, Path]]:
    """Number and folder of each generation, good or not, oldest first."""
    matches = [(_GENERATION_NAME.fullmatch(path.name), path) for path in collection.iterdir()]
    return sorted((int(match[1]), path) for match, path in matches if match)


def generation_directory(collection: Path, number: int) -> Path:
    """Where the generation of this number stands."""
    return collection / f"generation-{number:08}"


def remove_leftovers(collection: Path) -> None:
    """Removes what dead builders left. Only for the holder of the collection's build lock."""
    for path in collection.iterdir():
        if path.name.startswith((BUILDING_PREFIX, _REMOVING_PREFIX)):
            shutil.rmtree(path)
    _remove_unnamed_segments(collection)


def remove_old_generations(collection: Path, newest: int) -> None:
    """Keeps the newest and the newest complete one before it, to fall back to; readers of others keep their mapping."""
    older = [directory for number, directory in reversed(generation_directories(collection)) if number < newest]
    fallback = next((directory for directory in older if _is_complete(directory)), None)
    for directory in older:
        if directory != fallback:
            # Renamed first: a removal that is interrupted must not look like a damaged generation.
            shutil.rmtree(directory.rename(collection / f"{_REMOVING_PREFIX}{directory.name}"))
    _remove_unnamed_segments(collection)


def fallback_manifest(collection: Path, newest: int) -> Manifest | None:
    """Of the newest complete generation before this one. Raises OSError for an unlistable folder."""
    for number, directory in reversed(generation_directories(collection)):
        if number < newest and _is_complete(directory):
            return read_manifest(directory)
    return None


def _remove_unnamed_segments(collection: Path) -> None:
    """Those that no generation names whose manifest can be read."""
    folder = collection / SEGMENTS_FOLDER
    if not folder.is_dir():
        return
    named: set[Path] = set()
    for _, directory in generation_directories(collection):
        with suppress(ManifestInvalid):
            named |= {segment.directory for segment in segment_folders(directory, read_manifest(directory))}
    for path in folder.iterdir():
        if path not in named:
            shutil.rmtree(path)


def _numbered_manifest(directory: Path, number: int) -> Manifest:
    manifest = read_manifest(directory)
    if manifest.generation != number:
        raise ManifestInvalid(f"{directory} holds the manifest of generation {manifest.generation}: rebuild it")
    return manifest


def _is_complete(directory: Path) -> bool:
    try:
        read_manifest(directory)
    except ManifestInvalid:
        return False
    return True
