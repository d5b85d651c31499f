"""Covers a tree of Python source: which files belong to it, and the chunks of each, one file in memory at a time.

It does not cover how one module is cut into chunks (python_module) nor embedding and storing (index/build).
"""

import io
import os
import stat
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.python_module import module_chunks, printable

DEFAULT_EXCLUDES = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folder names left out at any depth; "tests" covers lib2to3/tests, "idle_test" covers idlelib."""

MAX_SOURCE_BYTES = 2 * 1024 * 1024
"""A larger file is skipped: parsing takes up to 63 times the text. The standard library's largest has 0.7 MB."""

_UNREADABLE = (SyntaxError, ValueError, LookupError, RecursionError, MemoryError, OSError)
"""SyntaxError also for unknown encodings, ValueError for undecodable and null bytes, LookupError for codecs that are
not text, MemoryError for CPython's parser when its own stack is full."""


@dataclass(frozen=True)
class SkippedFile:
    """A file that gave no chunks, and why."""

    path: str
    reason: str


@dataclass
class IngestReport:
    """What an ingest run met; it is complete when the generator is exhausted."""

    files: int = 0
    """Files read and cut; skipped ones are not counted here."""
    chunks: int = 0
    skipped: list[SkippedFile] = field(default_factory=list[SkippedFile])


def standard_library_root() -> Path:
    """The folder of the running Python's standard library: a corpus that every machine has."""
    return Path(sysconfig.get_path("stdlib"))


def python_chunks(root: Path, report: IngestReport, *, excludes: frozenset[str] = DEFAULT_EXCLUDES) -> Iterator[Chunk]:
    """Yields the chunks of every .py file under root in the order of the sorted paths, and fills the report.

    A file that cannot be read, decoded or parsed is added to `report.skipped`. Raises NotADirectoryError when root
    is none: an empty result for a mistyped path would look like an empty tree.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no directory: name the root of a source tree")
    resolved_root = root.resolve()
    for file in _python_files(root, excludes, report):
        path = printable(file.relative_to(root).as_posix())
        try:
            chunks = module_chunks(_read_source(file, resolved_root), path)
        except _UNREADABLE as error:
            report.skipped.append(SkippedFile(path, f"{type(error).__name__}: {error}"))
            continue
        report.files += 1
        report.chunks += len(chunks)
        yield from chunks


def _python_files(root: Path, excludes: frozenset[str], report: IngestReport) -> Iterator[Path]:
    def unlistable(error: OSError) -> None:
        report.skipped.append(SkippedFile(printable(str(error.filename)), f"{type(error).__name__}: {error}"))

    for folder, subfolders, names in os.walk(root, onerror=unlistable):
        subfolders[:] = sorted(set(subfolders) - excludes)
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(folder, name)


def _read_source(file: Path, resolved_root: Path) -> str:
    """The file's text with a newline for every line end that ast counts. Raises OSError, SyntaxError, ValueError."""
    if not file.resolve().is_relative_to(resolved_root):
        raise ValueError("a symbolic link that leaves the source tree is not followed")
    # Not blocking, and the kind is asked from the open file: a named pipe would wait for a writer for ever.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        raw = stream.read(MAX_SOURCE_BYTES + 1)
    if len(raw) > MAX_SOURCE_BYTES:
        raise ValueError(f"larger than {MAX_SOURCE_BYTES} bytes")
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
