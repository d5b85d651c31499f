"""A measured program, started and read from outside: the kernel's figures of it, not its own.

Covers: its stages, and the anonymous memory at each. Does not cover what the program does (`measured`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from membudget_cli.programs import ProgramFailed, failure, running_module, start_talking, stop


class Stage(msgspec.Struct, frozen=True):
    """A moment at which the program stood still: what it said, and what the kernel said of it."""

    figures: tuple[float, ...]
    anonymous_bytes: int


class MeasuredProgram:
    """A program of `membudget_cli.profile.measured`, running within its with block."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self._log = folder / f"{name}.log"
        self._process = start_talking(_module(name), arguments, self._log)
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def stage(self, word: str) -> Stage:
        """Wait for the program to stand still there, read its memory, let it go on. Raises ProgramFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode().split()
        if said[:1] != [word]:
            raise ProgramFailed(failure(f"{self._name}, on its way to {word!r},", self._log))
        anonymous = anonymous_bytes(self._process.pid)
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return Stage(tuple(map(float, said[1:])), anonymous)


def run_to_end(name: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a program of `measured` that is not measured itself. Raises ProgramFailed."""
    log = folder / f"{name}.log"
    with running_module(_module(name), arguments, log) as process:
        code = process.wait()
    if code:
        raise ProgramFailed(failure(name, log))


def _module(name: str) -> str:
    return f"membudget_cli.profile.measured.{name}"


def anonymous_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """RssAnon of a process, as the kernel shows it to others. Raises ProgramFailed when it ended."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError as error:
        raise ProgramFailed(f"process {pid} cannot be read: {error}") from None
    fields = dict(line.split(":", 1) for line in lines)
    if "RssAnon" not in fields:
        raise ProgramFailed(f"process {pid} ended while it was measured")
    return int(fields["RssAnon"].split()[0]) * 1024
