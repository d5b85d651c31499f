"""Source trees as people have them: also broken, undecodable, linked and locked files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.python_source import (
    DEFAULT_EXCLUDES,
    MAX_SOURCE_BYTES,
    IngestReport,
    python_chunks,
    standard_library_root,
)


def _ingest(root: Path) -> tuple[list[Chunk], IngestReport]:
    report = IngestReport()
    return list(python_chunks(root, report)), report


def _reasons(report: IngestReport) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in report.skipped}


def test_the_standard_library_gives_over_ten_thousand_chunks_with_ids_of_their_own() -> None:
    """R-E15: a corpus of real code that every machine has."""
    report = IngestReport()
    ids: set[str] = set()
    count = 0
    for chunk in python_chunks(standard_library_root(), report):
        count += 1
        ids.add(chunk.id)
        assert DEFAULT_EXCLUDES.isdisjoint(chunk.path.split("/")[:-1])

    assert count > 10_000
    assert count == len(ids) == report.chunks
    assert report.files > 400


def test_files_come_in_the_order_of_their_paths_with_forward_slashes(tmp_path: Path) -> None:
    """R-E15: the same tree gives the same chunks in the same order."""
    for name in ("b.py", "a.py", "sub/c.py", "tests/left_out.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def f(): pass\n")

    chunks, report = _ingest(tmp_path)

    assert [chunk.path for chunk in chunks] == ["a.py", "b.py", "sub/c.py"]
    assert IngestReport(files=3, chunks=3) == report


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"def f(:\n", "SyntaxError"),
        (b"def f(): pass\x00\n", "null bytes"),
        (b"name = '\xff'\n", "SyntaxError"),
        (b"# coding: no-such-codec\n", "SyntaxError"),
        (b"# coding: rot13\n", "LookupError"),
        (b"# coding: ascii\nname = '\xff'\n", "UnicodeDecodeError"),
        (b"x = " + b"-" * 50_000 + b"1\n", "Error"),
        (b"x = 1\n" * (MAX_SOURCE_BYTES // 6 + 1), "larger than"),
    ],
)
def test_a_file_that_cannot_be_cut_is_reported_and_the_others_go_on(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """R-E15: never silently dropped."""
    (tmp_path / "broken.py").write_bytes(content)
    (tmp_path / "sound.py").write_text("def f(): pass\n")

    chunks, report = _ingest(tmp_path)

    assert [chunk.path for chunk in chunks] == ["sound.py"]
    assert report.files == 1
    assert list(_reasons(report)) == ["broken.py"]
    assert reason in _reasons(report)["broken.py"]


def test_links_out_of_the_tree_and_pipes_are_reported_and_links_within_are_followed(tmp_path: Path) -> None:
    """R-E15: a link must not read what lies outside, a pipe must not wait for ever."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.py").write_text("def secret(): pass\n")
    (root / "own.py").write_text("def own(): pass\n")
    (root / "leaves.py").symlink_to(tmp_path / "secret.py")
    (root / "stays.py").symlink_to(root / "own.py")
    (root / "dangling.py").symlink_to(root / "gone.py")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.py")

    chunks, report = _ingest(root)

    assert [chunk.path for chunk in chunks] == ["own.py", "stays.py"]
    assert {"dangling.py", "leaves.py", "pipe.py"} == set(_reasons(report))
    assert "symbolic link" in _reasons(report)["leaves.py"]


def test_declared_encodings_and_line_ends_are_read_as_python_reads_them(tmp_path: Path) -> None:
    """R-E15: line numbers agree with the file."""
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\r\ndef f():\r\n    return '\xe9'\r\n\rdef g(): pass\r")
    (tmp_path / "mark.py").write_bytes(b"\xef\xbb\xbfdef h(): pass\n")

    chunks, _ = _ingest(tmp_path)

    assert [(chunk.name, chunk.start_line, chunk.end_line) for chunk in chunks] == [
        ("f", 2, 3),
        ("g", 5, 5),
        ("h", 1, 1),
    ]
    assert chunks[0].source == "def f():\n    return 'é'"


def test_a_file_name_that_is_not_utf8_gives_a_path_that_can_be_stored(tmp_path: Path) -> None:
    """R-E15: lone surrogates would fail when the chunk is written."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.py")).write_text("def f(): pass\n")

    chunks, _ = _ingest(tmp_path)

    assert chunks[0].path == "odd\\udcff.py"


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """R-E15: a mistyped path must not look like an empty tree."""
    with pytest.raises(NotADirectoryError, match="nowhere"):
        _ingest(tmp_path / "nowhere")


def test_ids_are_the_same_in_another_process(tmp_path: Path) -> None:
    """R-E15: an id outlives the process that made it."""
    (tmp_path / "a.py").write_text("class A:\n    def f(self): pass\n")
    script = (
        "import sys, pathlib\n"
        "from membudget_engine.ingest.python_source import IngestReport, python_chunks\n"
        "print(*[chunk.id for chunk in python_chunks(pathlib.Path(sys.argv[1]), IngestReport())])"
    )

    other = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True, text=True)

    assert [chunk.id for chunk in _ingest(tmp_path)[0]] == other.stdout.split()
