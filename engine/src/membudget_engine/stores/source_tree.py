"""A folder of source files that a collection was built from, read one file at a time.

Covers: which paths below it may be read, and a file's text as the ingest saw it: UTF-8, a newline for every line end,
so that the lines of a chunk are the lines of the text. Does not cover what is kept in memory (`caches.file_cache`), nor
the history of a file (`commit_log`). The tree may change or vanish at any time; what it holds is trusted by nobody.
"""

from __future__ import annotations

import io
import os
import stat
import tokenize
from pathlib import Path
from typing import Final, NamedTuple

from membudget_engine.errors import FileMissing

MAX_FILE_BYTES: Final = 2 * 1024 * 1024
"""As for the ingest: a larger file was never indexed."""

_SUFFIX: Final = ".py"
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
"""A named pipe would let the open wait for its writer."""


class Stamp(NamedTuple):
    """Differs when a file was written anew."""

    inode: int
    size: int
    modified_ns: int


class SourceTree:
    """The source files below a folder."""

    def __init__(self, root: Path) -> None:
        """Raises NotADirectoryError when there is no such folder."""
        if not root.is_dir():
            raise NotADirectoryError(f"{root} is no folder: name the root of a collection's source tree")
        self.root = root.resolve()

    def stamp(self, path: str) -> Stamp:
        """What tells whether the file is still the same. Raises FileMissing."""
        try:
            status = self.file(path).lstat()
        except (OSError, ValueError) as error:
            raise _missing(path) from error
        return _stamp(path, status)

    def read(self, path: str) -> tuple[Stamp, bytes]:
        """The file's text, with the stamp of what was read. Raises FileMissing."""
        try:
            with open(os.open(self.file(path), _READ), "rb") as file:  # noqa: PTH123  a Path has no flags
                stamp = _stamp(path, os.fstat(file.fileno()))
                raw = file.read(MAX_FILE_BYTES + 1)
            if len(raw) > MAX_FILE_BYTES:
                raise _missing(path)
            return stamp, _text(raw)
        except (OSError, SyntaxError, ValueError, LookupError) as error:
            raise _missing(path) from error

    def file(self, path: str) -> Path:
        """Where it lies. Raises FileMissing for what is no source file, or lies outside of the tree."""
        try:
            wanted = self.root.joinpath(path)
            resolved = wanted.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise _missing(path) from error
        inside = resolved.is_relative_to(self.root) and ".." not in wanted.parts
        if wanted.suffix != _SUFFIX or path.startswith("/") or not inside:
            raise _missing(path)
        return resolved


def _text(raw: bytes) -> bytes:
    """As the ingest saw it. Raises SyntaxError, ValueError, LookupError: it is in no encoding that it names."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    text = raw.decode(encoding)
    if encoding == "utf-8" and b"\r" not in raw:
        # Nearly all of them: replacing and encoding takes ten times as long as this look.
        return raw
    return text.replace("\r\n", "\n").replace("\r", "\n").encode()


def _stamp(path: str, status: os.stat_result) -> Stamp:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        raise _missing(path)
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _missing(path: str) -> FileMissing:
    shown = path[:200].encode(errors="backslashreplace").decode()
    return FileMissing(f"{shown!r} is no source file of this collection that can be read")
