"""`membudget-engine build` as a person runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from membudget_engine.build_command import build_sources
from membudget_engine.errors import BuildFailed
from membudget_engine.index.generations import find_newest_generation

MODULE = "def answer():\n    return 42\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of one module with one function."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "module.py").write_text(MODULE)
    return folder


def _build(data: Path, *sources: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(data)]
    argv += [source if source.startswith("--") else f"--source={source}" for source in sources]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_each_source_becomes_a_collection_and_one_line_of_the_log(tmp_path: Path, source: Path) -> None:
    """R-E16: and no line of FAISS."""
    (source / "broken.py").write_text("def (")

    ended = _build(tmp_path / "data", f"core-api={source}", f"archive.2={source}")

    assert ended.returncode == 0
    core, archive = ended.stderr.splitlines()
    assert "INFO core-api: 1 chunks of 1 files, Flat, generation 1, " in core
    assert core.endswith("1 files skipped")
    assert "INFO archive.2: 1 chunks" in archive
    for name in ("core-api", "archive.2"):
        found = find_newest_generation(tmp_path / "data" / name).found
        assert found is not None
        assert (found.manifest.collection, found.manifest.count) == (name, 1)


@pytest.mark.parametrize(
    "written",
    ["json", "=/tmp", "core=", "core=/does/not/exist", "../core=/tmp", "..=/tmp", ".hidden=/tmp", "a/b=/tmp", " =/tmp"],
)
def test_a_source_written_wrongly_is_told_in_one_line_and_nothing_is_built(
    tmp_path: Path, source: Path, written: str
) -> None:
    """R-E16: also not the good ones before it, which may take minutes."""
    with pytest.raises(BuildFailed) as error:
        build_sources(tmp_path / "data", [f"core={source}", written])

    assert str(error.value).startswith(repr(written))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_the_command_ends_with_code_1_and_one_line(tmp_path: Path) -> None:
    """R-E16: not with a traceback."""
    ended = _build(tmp_path / "data", "nothing")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "membudget-engine: 'nothing' is no source: write stdlib, or NAME=PATH with PATH a folder or a file: "
        ".json, .ndjson, .jsonl, .npy, .fvecs\n"
    )


def test_two_sources_of_one_name_are_refused(tmp_path: Path, source: Path) -> None:
    """R-E16: the second would replace the first as its next generation."""
    with pytest.raises(BuildFailed, match="two sources for 'core'"):
        build_sources(tmp_path / "data", [f"core={source}", f"core={tmp_path}"])

    assert not (tmp_path / "data").exists()


def test_what_is_there_is_kept_where_that_is_asked_for(tmp_path: Path, source: Path) -> None:
    """R-E16: a step before an engine starts may run again; what is missing is built."""
    data = tmp_path / "data"
    build_sources(data, [f"core={source}"])
    (source / "more.py").write_text(MODULE)

    build_sources(data, [f"core={source}", f"other={source}"], keep=True)

    found = {name: find_newest_generation(data / name).found for name in ("core", "other")}
    counts = {name: (one.manifest.generation, one.manifest.count) for name, one in found.items() if one is not None}
    assert {"core": (1, 1), "other": (1, 2)} == counts
    assert 0 == _build(data, f"core={source}", "--keep").returncode


def test_a_tree_without_code_is_told_in_one_line(tmp_path: Path) -> None:
    """R-E16: an empty generation would hide the last good one."""
    (tmp_path / "empty").mkdir()

    ended = _build(tmp_path / "data", f"core={tmp_path / 'empty'}")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("membudget-engine: no chunks for ")


def test_a_long_build_tells_how_far_it_is(build_log: list[str]) -> None:
    """R-E16: progress, every two seconds."""
    *progress, summary = build_log
    counts = [int(line.split(": ")[1].removesuffix(" chunks")) for line in progress]

    assert counts
    assert sorted(set(counts)) == counts
    assert " chunks of " in summary
