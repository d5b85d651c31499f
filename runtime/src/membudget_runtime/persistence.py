"""Persist: what caches hold is written to the state folder, and is back in the next life of the process.

Covers: who has entries to persist, a file for each class of priority from Critical down, restoring them. Does not
cover the format (`entry_file`) nor when to persist: who runs the process asks for it.

A full disk so costs the lowest classes first, and so does a time that runs out: the class it ends in is cut behind the
last entry there was time for, unless what was persisted of it before is longer; that and those below it then keep what
was persisted before. Each file is replaced whole or not at all:
a process killed meanwhile leaves the older one. A damaged file is set aside as `<name>.damaged`, counted, and start-up
goes on.

So the files may be of several persists, and a collection of another class in each: the next life reads the newest
first, and the first value of a key holds. What no newer file has may be back as it was, with the time it has left: a
value that was replaced or dropped since the last persist that wrote its class whole.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Final, Protocol

from membudget_contract.control_api import Persisted
from membudget_contract.policy import Priority
from membudget_runtime.entry_file import TIME_OVER, KeptEntry, Written, read_entries, write_entries, written_at
from membudget_runtime.errors import EntriesDamaged

HIGHEST_FIRST: Final = tuple(sorted(Priority, key=lambda priority: priority.rank, reverse=True))

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

log = logging.getLogger(__name__)


class Persistent(Protocol):
    """Who has entries that may outlive the process. Called from the thread that asks for a persist."""

    def saved(self, priority: Priority) -> Iterable[KeptEntry]:
        """The entries of one class, the most valuable first: when time runs out, those behind are lost."""
        ...

    def restore(self, kept: KeptEntry) -> bool:
        """Take one back; False when it is of no use any more or has no room. The least valuable come first."""
        ...


class Persistence:
    """Entries of an earlier life come back on registration. Thread-safe."""

    def __init__(self, folder: Path, unix_time: Callable[[], float]) -> None:
        """`folder` is made when something is written."""
        self.set_aside = 0
        """Files that were damaged or foreign, in this life."""
        self.restored = 0
        """Entries of an earlier life that were taken back."""
        self._folder = folder
        self._unix_time = unix_time
        self._persistent: dict[str, Persistent] = {}
        self._serial = threading.Lock()

    def register(self, name: str, persistent: Persistent) -> int:
        """Persist this one's entries from now on, under this name; how many of a former life it took back.

        Raises:
            ValueError: the name is taken, or no name for a file.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} names no file: 1 to 100 of A-Z a-z 0-9 . _ -, a letter or digit first")
        with self._serial:
            if name in self._persistent:
                raise ValueError(f"{name!r} is persisted already")
            newest_first = sorted(self._files(name), key=written_at, reverse=True)
            restored = sum(self._restore(path, persistent) for path in newest_first)
            self._persistent[name] = persistent
            self.restored += restored
        return restored

    def persist(self, still_time: Callable[[], bool] = lambda: True) -> Persisted:
        """Write everything that is held now, the highest classes first, while there is time.

        The time since an entry's file was written counts from the beginning of the persist, for all files the same.
        """
        entries = written_bytes = 0
        problem: str | None = None
        with self._serial:
            now = self._unix_time()
            for priority, name in product(HIGHEST_FIRST, self._persistent):
                try:
                    written = self._write(name, priority, now, still_time)
                except Exception as error:  # noqa: BLE001  the others' entries are worth as much
                    reason = _reason(error)
                    log.warning("entries of %s, class %s, were not persisted: %s", name, priority, reason)
                    problem = problem or f"{name}, class {priority}: {reason}"
                    continue
                entries, written_bytes = entries + written.entries, written_bytes + written.byte_count
                if written.cut is not None:
                    reason = f"{written.cut} after {written.entries} entries"
                    log.warning("%s, class %s: %s", name, priority, reason)
                    problem = problem or f"{name}, class {priority}: {reason}"
                if written.cut == TIME_OVER:
                    break
        return Persisted(entries=entries, written_bytes=written_bytes, problem=problem)

    def forget(self, name: str) -> None:
        """Take away what is persisted under this name: it shall not be back in the next life."""
        with self._serial:
            for path in self._files(name) if name in self._persistent else ():
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning("%s may be back in the next life: %s", path, error.strerror)

    def _write(self, name: str, priority: Priority, now: float, still_time: Callable[[], bool]) -> Written:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        saved = self._persistent[name].saved(priority)
        return write_entries(self._file(name, priority), saved, now, still_time)

    def _files(self, name: str) -> list[Path]:
        """One for each class, the highest first."""
        return [self._file(name, priority) for priority in HIGHEST_FIRST]

    def _file(self, name: str, priority: Priority) -> Path:
        return self._folder / f"{name}.{priority}"

    def _restore(self, path: Path, persistent: Persistent) -> int:
        try:
            return sum(map(persistent.restore, read_entries(path, self._unix_time())))
        except FileNotFoundError:
            return 0
        except EntriesDamaged as error:
            log.warning("set aside: %s", error)
            self.set_aside += 1
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + ".damaged"))
            return 0


def _reason(error: Exception) -> str:
    """Of the file system in its own words, of a `Persistent` that failed with the kind of its error."""
    return error.strerror or str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
