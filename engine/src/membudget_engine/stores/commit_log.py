"""The commits that changed a source file, read from git.

Covers: asking git for one file, bounded in commits, bytes, memory and seconds, with nothing that a hostile repository
or path may turn into a command. Does not cover keeping the answer (`caches.history_cache`).

A repository's own configuration can name programs for git to run. What `git log` may run is switched off: signatures,
pagers, monitors of the file system, external diffs, and fetching missing objects over any transport. Configuration
outside of the repository is not read. A repository of another user is refused by git itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
from pathlib import Path
from typing import Final

import msgspec

from membudget_engine.errors import HistoryUnavailable

MOST_COMMITS: Final = 50
TEXT_CHARACTERS: Final = 500
"""Of an author's name and of a subject; the rest is cut off."""
OUTPUT_BYTES: Final = 1024 * 1024
SECONDS: Final = 10.0
GIT_DATA_BYTES: Final = 256 * 1024 * 1024
"""Of one git process, by RLIMIT_DATA: it lives in the engine's cgroup, and one runs at a time."""

_FIELD: Final = b"\x1f"
_END: Final = b"\x1e"
_FORMAT: Final = "--format=%H%x1f%at%x1f%an%x1f%s%x1e"
_SETTINGS: Final = (
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.hooksPath=/dev/null",
    "log.showSignature=false",
    "gpg.program=false",
    "diff.external=",
    "protocol.allow=never",
)


class Commit(msgspec.Struct, frozen=True):
    """One commit that changed the file."""

    id: str
    author: str
    at: int
    """Unix second of the author's date."""
    subject: str


class CommitLog:
    """Asks git, one question at a time. `program` is git, by name or path."""

    def __init__(self, program: str = "git", seconds: float = SECONDS) -> None:
        self._program = program
        self._seconds = seconds
        self._one_at_a_time = threading.Lock()

    def commits(self, root: Path, file: Path) -> list[Commit]:
        """The newest commits that changed this file below `root`, newest first; none for one that git does not know.

        Raises:
            HistoryUnavailable: no git, no repository, too slow, or more than is taken.
        """
        with self._one_at_a_time:
            output = self._output(root, file)
        records = output.split(_END)[:-1]
        return [_commit(record) for record in records]

    def _output(self, root: Path, file: Path) -> bytes:
        arguments = [self._program, "--no-pager", "--literal-pathspecs", "--no-optional-locks"]
        for setting in _SETTINGS:
            arguments += ["-c", setting]
        arguments += ["log", f"--max-count={MOST_COMMITS}", "--no-color", "--no-ext-diff", "--no-textconv"]
        arguments += ["--encoding=UTF-8", _FORMAT, "--", str(file)]
        try:
            process = subprocess.Popen(
                arguments,
                cwd=root,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HistoryUnavailable(f"{self._program} cannot be run: {error.strerror}; install git") from None
        with process, contextlib.ExitStack() as at_end:
            # What a broken pipe or a time-out leaves must not be waited for.
            at_end.callback(process.kill)
            with contextlib.suppress(OSError):
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (GIT_DATA_BYTES, GIT_DATA_BYTES))
            return self._read(process)

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        too_late = threading.Event()

        def end() -> None:
            too_late.set()
            process.kill()

        timer = threading.Timer(self._seconds, end)
        timer.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            output = process.stdout.read(OUTPUT_BYTES + 1)
            if len(output) > OUTPUT_BYTES:
                raise HistoryUnavailable(f"the history is longer than {OUTPUT_BYTES} bytes")
            told = process.stderr.read(TEXT_CHARACTERS).decode(errors="replace").partition("\n")[0]
            code = process.wait()
        finally:
            timer.cancel()
        if too_late.is_set():
            raise HistoryUnavailable(f"git took longer than {self._seconds:g} s")
        if code != 0:
            raise HistoryUnavailable(f"git cannot tell it: {told or f'it ended with {code}'}")
        return output


def _environment() -> dict[str, str]:
    """Nothing of ours but the way to git; no configuration but the repository's."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _commit(record: bytes) -> Commit:
    identity, at, author, subject = (text.decode(errors="replace") for text in record.lstrip(b"\n").split(_FIELD, 3))
    return Commit(identity, author[:TEXT_CHARACTERS], int(at), subject[:TEXT_CHARACTERS])
