"""Reload: observers are told that what is on disk may have changed.

Covers: who is told, what came of it, and a storm of reloads made one. Does not cover what an observer reloads (the
engine's index) nor what asks for it (control socket, signal).

While a reload runs, one more may wait, and everybody who asks meanwhile gets that one's result: each asker's reload
begins after it asked, and of any number of askers two at most make the observers work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple

from membudget_contract.control_api import ObserverResult, Reloaded
from membudget_runtime.errors import ReloadInside

PROBLEM_CHARACTERS: Final = 2000
"""Of one observer's problem in an answer."""

log = logging.getLogger(__name__)


class Reloading(NamedTuple):
    """What an observer did. With a problem it kept what it had, at least in part."""

    changed: bool
    problem: str | None = None


Observer = Callable[[], Reloading]


class Reloads:
    """Observers in the order of their registration. Thread-safe."""

    def __init__(self) -> None:
        self._observers: dict[str, Observer] = {}
        self._state = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: Future[Reloaded] | None = None
        self._runner: int | None = None

    def observe(self, name: str, observer: Observer) -> None:
        """Tell this one of every reload from now on."""
        with self._state:
            if name in self._observers:
                raise ValueError(f"observer {name!r} is registered already")
            self._observers[name] = observer

    def run(self) -> Reloaded:
        """Tell all observers, or wait for the next time they are told.

        Raises:
            ReloadInside: an observer asked for a reload; it would wait for itself.
        """
        if self._runner == threading.get_ident():
            raise ReloadInside("an observer of a reload cannot ask for one")
        with self._state:
            if self._waiting is None:
                self._waiting = Future()
            mine = self._waiting
        with self._turn:
            if not mine.done():
                self._carry_out(mine)
        return mine.result()

    def _carry_out(self, mine: Future[Reloaded]) -> None:
        with self._state:
            self._waiting = None
            observers = tuple(self._observers.items())
        self._runner = threading.get_ident()
        try:
            mine.set_result(_tell(observers))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            self._runner = None


def _tell(observers: tuple[tuple[str, Observer], ...]) -> Reloaded:
    told = [(name, _one(name, observer)) for name, observer in observers]
    problems = [f"{name}: {reloading.problem}" for name, reloading in told if reloading.problem is not None]
    return Reloaded(
        observers=tuple(
            ObserverResult(name=name, ok=reloading.problem is None, problem=reloading.problem)
            for name, reloading in told
        ),
        changed=any(reloading.changed for _, reloading in told),
        problem=problems[0] if problems else None,
    )


def _one(name: str, observer: Observer) -> Reloading:
    try:
        reloading = observer()
    except Exception as error:
        log.exception("reload: %s failed, what it had holds", name)
        reloading = Reloading(changed=False, problem=f"{type(error).__name__}: {error}")
    if reloading.problem is not None:
        reloading = reloading._replace(problem=reloading.problem[:PROBLEM_CHARACTERS])
    return reloading
