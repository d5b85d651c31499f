"""Source files as they are on disk now, from memory where they are the same; and nothing else from that disk."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import EngineProcess
from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.build_command import build_sources
from membudget_engine.caches.file_cache import MAX_BYTES, FileCache
from membudget_engine.errors import FileMissing
from membudget_engine.stores.source_tree import MAX_FILE_BYTES, SourceTree
from membudget_runtime.memory_runtime import MemoryRuntime


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of 130 small files in a package, beside a secret."""
    (tmp_path / "secret.py").write_text("PASSWORD = 1\n")
    package = tmp_path / "tree" / "package"
    package.mkdir(parents=True)
    for number in range(130):
        (package / f"m{number}.py").write_text(f"NUMBER = {number}\n")
    return tmp_path / "tree"


@pytest.fixture
def files(runtime: MemoryRuntime, root: Path) -> FileCache:
    """Over the same tree for two collections."""
    return FileCache(runtime, {"core": SourceTree(root), "other": SourceTree(root)})


def test_a_file_is_read_once_while_it_stays_the_same(files: FileCache, root: Path) -> None:
    """R-E22: from memory, until it is written anew."""
    file = root / "package" / "m1.py"
    before = file.stat()
    texts = [files.text("core", "package/m1.py") for _ in range(3)]
    assert (texts, files.kept.counters.hits) == ([b"NUMBER = 1\n"] * 3, 2)

    file.write_text("NUMBER = 2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    assert files.text("core", "package/m1.py") == b"NUMBER = 2\n"
    assert len(files.kept) == 1


def test_lines_are_those_of_the_chunks(files: FileCache, root: Path) -> None:
    """R-E22: as the ingest reads it: UTF-8 whatever the file says, one newline for each line end."""
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\r\nNAME = '\xe4'\r\n")

    assert files.text("core", "latin.py") == "# -*- coding: latin-1 -*-\nNAME = 'ä'\n".encode()


def test_a_hundred_files_of_a_collection_are_kept_and_a_thousand_of_the_engine(files: FileCache) -> None:
    """R-E22: `maxLoadedFiles`, by number; the bound by bytes stands beside it."""
    for collection in ("core", "other"):
        for number in range(130):
            files.text(collection, f"package/m{number}.py")

    assert (files.kept.entries_of("core"), files.kept.entries_of("other")) == (100, 100)
    assert (files.kept.counts.in_all, files.kept.counters.evictions) == (1000, 60)


def test_large_files_are_bounded_by_bytes(files: FileCache, root: Path) -> None:
    """R-E22: by count and bytes."""
    for number in range(8):
        (root / f"large{number}.py").write_bytes(b"# " + os.urandom(100_000).hex().encode() + b"\n")
        files.text("core", f"large{number}.py")
    (root / "larger.py").write_bytes(b"# " + bytes(MAX_BYTES * 3 // 4).hex().encode() + b"\n")

    assert len(files.text("core", "larger.py")) > MAX_BYTES
    assert files.kept.owned_bytes() <= MAX_BYTES
    assert 1 < len(files.kept) < 6


def test_files_give_way_when_memory_is_short(files: FileCache, runtime: MemoryRuntime) -> None:
    """R-E22, R-E14: they are on disk anyway."""
    for number in range(50):
        files.text("core", f"package/m{number}.py")

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=1 << 40))

    assert (len(files.kept), files.kept.owned_bytes()) == (0, 0)
    assert files.text("core", "package/m3.py") == b"NUMBER = 3\n"


def _link_out(root: Path) -> str:
    (root / "link.py").symlink_to(root.parent / "secret.py")
    return "link.py"


def _folder_link_out(root: Path) -> str:
    (root / "up").symlink_to(root.parent)
    return "up/secret.py"


def _pipe(root: Path) -> str:
    os.mkfifo(root / "pipe.py")
    return "pipe.py"


def _folder(root: Path) -> str:
    (root / "folder.py").mkdir()
    return "folder.py"


def _too_large(root: Path) -> str:
    (root / "huge.py").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    return "huge.py"


def _no_text(root: Path) -> str:
    (root / "binary.py").write_bytes(b"\xff\xfe\x00")
    return "binary.py"


def _no_source(root: Path) -> str:
    (root / "notes.txt").write_text("mine")
    return "notes.txt"


def _loop(root: Path) -> str:
    (root / "loop.py").symlink_to(root / "loop.py")
    return "loop.py"


@pytest.mark.parametrize(
    "hostile", [_link_out, _folder_link_out, _pipe, _folder, _too_large, _no_text, _no_source, _loop]
)
def test_what_is_no_source_file_of_the_tree_is_not_read(
    files: FileCache, root: Path, hostile: Callable[[Path], str]
) -> None:
    """R-E22: links that leave it, pipes, folders, what is too large or no text."""
    with pytest.raises(FileMissing):
        files.text("core", hostile(root))


@pytest.mark.parametrize(
    "path",
    [
        "../secret.py",
        "package/../../secret.py",
        "/etc/hosts.py",
        "",
        ".",
        "package",
        "a\x00.py",
        "\ud800.py",
        "x" * 5000 + ".py",
    ],
)
def test_a_path_that_leaves_the_tree_is_missing(files: FileCache, root: Path, path: str) -> None:
    """R-E22: by dots, from the root, or by nonsense."""
    with pytest.raises(FileMissing):
        files.text("core", path)
    with pytest.raises(FileMissing):
        files.text("core", str(root.parent / "secret.py"))


def test_a_collection_without_a_tree_has_no_files(files: FileCache) -> None:
    """R-E22: the error says what to do."""
    with pytest.raises(FileMissing, match="--source"):
        files.text("unknown", "package/m1.py")


def test_an_engine_serves_the_files_of_its_collections(tmp_path: Path, root: Path) -> None:
    """R-E22: over HTTP, with escapes of every kind refused as a 404."""
    (root / "with space.py").write_text("def spaced():\n    return 'ä'\n")
    build_sources(tmp_path / "data", [f"small={root}"])
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--source", f"small={root}"]) as engine:
        engine.wait_until_serving()
        reply = engine.ask("GET", "/v1/files/small/with%20space.py")

        assert (reply.status, reply.content_type) == (200, "text/plain; charset=utf-8")
        assert reply.body == (root / "with space.py").read_bytes()
        for path in ("%2e%2e/secret.py", "..%2fsecret.py", "package%2f..%2f..%2fsecret.py", "%2fetc%2fhosts", "%00.py"):
            refused = engine.ask("GET", f"/v1/files/small/{path}")
            assert (refused.status, msgspec.json.decode(refused.body)["reason"]) == (404, "FileMissing")
        assert engine.ask("GET", "/v1/files/large/with%20space.py").status == 404
        assert "Traceback" not in engine.log


def test_an_engine_with_a_tree_for_no_collection_does_not_start(small_data: Path, tmp_path: Path, root: Path) -> None:
    """R-E22: a misspelt name would serve nothing, and nobody would know."""
    with EngineProcess(small_data, tmp_path / "engine", options=["--source", f"smal={root}"]) as engine:
        assert engine.process.wait(timeout=30) == 1
        assert "name one tree, for a collection that is served" in engine.log
