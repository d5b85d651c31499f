"""A process that holds as many bytes of each kind as it is told, so that the kernel's figures can be held against it.

Run as a program it obeys lines of JSON on its standard input; `MemoryHolder` starts it in a cgroup and is the test's
end. Kinds: `anonymous` (private pages), `shared` (shared memory), `pipes` (kernel memory, in full pipes), `sockets`
(buffers of a TCP connection whose reader does not read), `file` (every page of a mapped file, read once).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the program is started without the tests' import path
    from memory_cgroup import MemoryCgroup

_PIPE_BYTES = 64 << 10  # the default capacity: 16 pages
_COLD_FILE = """
import os, sys
with open(sys.argv[1], "wb") as file:
    for _ in range(int(sys.argv[2]) >> 20):
        file.write(os.urandom(1 << 20))
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
"""


class MemoryHolder:
    """The test's end of one such process, a member of the cgroup until that is removed."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        argv = [sys.executable, __file__]
        self.process = cgroup.run(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "started"

    @property
    def pid(self) -> int:
        """The process that is measured."""
        return self.process.pid

    def hold(self, kind: str, amount: int | str) -> None:
        """That many bytes more of that kind, or every page of that file; returns when they are touched."""
        assert self._asked(kind, amount) == kind

    def die_of(self, kind: str, amount: int) -> int:
        """Ask for what it cannot have; its exit code, negative for a signal."""
        assert self._asked(kind, amount) == ""
        return self.process.wait(timeout=60)

    def _asked(self, kind: str, amount: int | str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([kind, amount]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def cold_file(path: Path, size: int) -> str:
    """A file of random bytes none of which is in the page cache: cache is charged to whoever touches it first."""
    subprocess.run([sys.executable, "-c", _COLD_FILE, str(path), str(size)], check=True)
    return str(path)


class _Holder:
    """Keeps a reference to all it holds."""

    def __init__(self) -> None:
        self._held: list[object] = []

    def hold(self, kind: str, amount: int | str) -> None:
        getattr(self, kind)(amount)

    def anonymous(self, amount: int) -> None:
        self._touched(mmap.mmap(-1, amount, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def shared(self, amount: int) -> None:
        self._touched(mmap.mmap(-1, amount, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))

    def pipes(self, amount: int) -> None:
        for _ in range(amount // _PIPE_BYTES):
            reading, writing = os.pipe()
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            os.write(writing, bytes(_PIPE_BYTES))
            self._held.append((reading, writing))

    def sockets(self, amount: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            writing = socket.create_connection(listening.getsockname())
            self._held += [writing, listening.accept()[0]]
        writing.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(amount // _PIPE_BYTES):
                writing.send(bytes(_PIPE_BYTES))

    def file(self, path: str) -> None:
        with Path(path).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for start in range(0, len(mapped), mmap.PAGESIZE):
            mapped[start]
        self._held.append(mapped)

    def _touched(self, block: mmap.mmap) -> None:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        self._held.append(block)


def main() -> None:
    """Obey until the standard input ends."""
    holder = _Holder()
    _answer("started")
    for line in sys.stdin:
        kind, amount = json.loads(line)
        holder.hold(kind, amount)
        _answer(kind)


def _answer(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
