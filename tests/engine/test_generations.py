"""Finding the newest good generation among damaged, foreign and unfinished ones."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from membudget_engine.index.generations import (
    Generation,
    GenerationSearch,
    find_newest_generation,
    generation_directory,
    remove_leftovers,
    remove_old_generations,
)
from membudget_engine.index.manifest import INDEX_FILE, write_manifest


@pytest.fixture
def collection(tmp_path: Path, flat_generation: Generation) -> Path:
    """A collection with the generations 1 to 3."""
    for number in (1, 2, 3):
        directory = shutil.copytree(flat_generation.directory, generation_directory(tmp_path, number))
        write_manifest(directory, msgspec.structs.replace(flat_generation.manifest, generation=number))
    return tmp_path


def _damage(collection: Path, number: int) -> Path:
    directory = generation_directory(collection, number)
    with (directory / INDEX_FILE).open("r+b") as index:
        index.seek(1000)
        index.write(b"damage")
    return directory


def test_the_newest_generation_is_found(collection: Path, flat_generation: Generation) -> None:
    """R-E01: published by rename with a manifest."""
    manifest = msgspec.structs.replace(flat_generation.manifest, generation=3)
    newest = replace(flat_generation, directory=generation_directory(collection, 3), manifest=manifest)

    assert GenerationSearch(newest, ()) == find_newest_generation(collection)


def test_damaged_generations_are_skipped_with_the_reason(collection: Path) -> None:
    """R-E01: reported, never silently left out."""
    damaged = _damage(collection, 3)
    incomplete = generation_directory(collection, 4)
    incomplete.mkdir()
    renumbered = shutil.copytree(generation_directory(collection, 2), generation_directory(collection, 5))

    search = find_newest_generation(collection)

    assert search.found is not None
    assert generation_directory(collection, 2) == search.found.directory
    assert [renumbered, incomplete, damaged] == [skipped.directory for skipped in search.skipped]
    for skipped, reason in zip(search.skipped, ("of generation 2", "incomplete", "sha256"), strict=True):
        assert reason in skipped.reason


def test_a_folder_without_generations_gives_none_and_foreign_folders_are_no_matter(tmp_path: Path) -> None:
    """R-E01: nothing found is an answer, not an error."""
    for name in ("generation-1", "generation-00000001.bak", ".building-7", "lost+found"):
        (tmp_path / name).mkdir()

    assert GenerationSearch(None, ()) == find_newest_generation(tmp_path)


def test_a_collection_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """R-E01: an unreadable volume must not look empty."""
    with pytest.raises(FileNotFoundError):
        find_newest_generation(tmp_path / "nowhere")


def test_only_the_newest_complete_generation_before_the_newest_is_kept(collection: Path) -> None:
    """R-E01: one to fall back to, and a damaged one is none."""
    (generation_directory(collection, 2) / "manifest.json").unlink()

    remove_old_generations(collection, 3)

    assert sorted(path.name for path in collection.iterdir()) == ["generation-00000001", "generation-00000003"]


def test_leftovers_of_builders_and_removals_go_and_generations_stay(collection: Path) -> None:
    """R-E01: leftovers of dead builders are removed."""
    for name in (".building-4711", ".removing-generation-00000009"):
        (collection / name).mkdir()
        (collection / name / "vectors.f32").write_bytes(b"x")

    remove_leftovers(collection)

    assert sorted(path.name for path in collection.iterdir()) == [
        "generation-00000001",
        "generation-00000002",
        "generation-00000003",
    ]
