"""Reload observers: each is told, one that fails stands alone, a storm becomes two reloads at a time."""

import inspect
import sys
import threading
import time

import pytest

from membudget_contract.control_api import ObserverResult
from membudget_runtime.errors import ReloadInside
from membudget_runtime.reloads import PROBLEM_CHARACTERS, Reloading, Reloads


def test_an_observer_that_raises_is_reported_and_the_others_are_told() -> None:
    """R-P09, fault 51: in the order of their registration."""
    reloads, told = Reloads(), list[str]()

    def tell(name: str) -> Reloading:
        told.append(name)
        return Reloading(changed=name == "index")

    def fail() -> Reloading:
        told.append("settings")
        raise LookupError("the file is gone")

    reloads.observe("first", lambda: tell("first"))
    reloads.observe("settings", fail)
    reloads.observe("index", lambda: tell("index"))
    answer = reloads.run()
    assert told == ["first", "settings", "index"]
    assert answer.observers == (
        ObserverResult(name="first", ok=True, problem=None),
        ObserverResult(name="settings", ok=False, problem="LookupError: the file is gone"),
        ObserverResult(name="index", ok=True, problem=None),
    )
    assert (answer.changed, answer.problem) == (True, "settings: LookupError: the file is gone")
    told.clear()
    assert (reloads.run().changed, len(told)) == (True, 3)


def test_a_problem_without_an_error_is_told_and_bounded() -> None:
    """R-P09: as of a damaged generation that was passed over."""
    reloads = Reloads()
    reloads.observe("index", lambda: Reloading(changed=True, problem="x" * 10_000))
    answer = reloads.run()
    problem = answer.observers[0].problem
    assert (answer.changed, answer.observers[0].ok, problem) == (True, False, "x" * PROBLEM_CHARACTERS)


def test_an_observer_is_registered_once() -> None:
    """R-P09: two under one name could not be told apart."""
    reloads = Reloads()
    reloads.observe("index", lambda: Reloading(changed=False))
    with pytest.raises(ValueError, match="registered already"):
        reloads.observe("index", lambda: Reloading(changed=False))


def test_an_observer_that_asks_for_a_reload_is_refused_instead_of_waiting_for_itself() -> None:
    """R-P09, fault 50: no deadlock."""
    reloads = Reloads()

    def ask_again() -> Reloading:
        reloads.run()
        raise AssertionError("unreachable")

    reloads.observe("self", ask_again)
    answers: list[str | None] = []
    asker = threading.Thread(target=lambda: answers.extend(reloads.run().problem for _ in range(2)), daemon=True)
    asker.start()
    asker.join(timeout=10)
    assert answers == [f"self: {ReloadInside.__name__}: an observer of a reload cannot ask for one"] * 2


class Held:
    """An observer that waits until it may go on, and counts; the state it sees is what was there when it began."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)
        self.runs = 0
        self.version = 0
        self.seen: list[int] = []

    def __call__(self) -> Reloading:
        """One reload."""
        self.runs += 1
        self.seen.append(self.version)
        self.entered.release()
        self.may_go_on.acquire()
        return Reloading(changed=True)


def waits_for_its_turn(thread: threading.Thread) -> bool:
    """Whether it has asked: the line it is at is the one where an asker waits."""
    lines, first = inspect.getsourcelines(Reloads.run)
    turn = next(first + number for number, line in enumerate(lines) if "with self._turn" in line)
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  documented as it is
    frame = frames.get(thread.ident or 0)
    return frame is not None and frame.f_lineno == turn


def test_while_one_runs_one_more_waits_for_all_who_ask() -> None:
    """R-P09, fault 50: of 200 askers two reloads, and each asker's began after it asked."""
    reloads, held = Reloads(), Held()
    reloads.observe("index", held)
    answers: list[bool] = []
    first = threading.Thread(target=lambda: answers.append(reloads.run().changed))
    first.start()
    held.entered.acquire()
    held.version = 1
    askers = [threading.Thread(target=lambda: answers.append(reloads.run().changed)) for _ in range(200)]
    for asker in askers:
        asker.start()
    while not all(map(waits_for_its_turn, askers)):
        time.sleep(0.001)
    for _ in range(1 + len(askers)):
        held.may_go_on.release()
    for thread in (first, *askers):
        thread.join(timeout=20)
    assert (held.runs, held.seen, answers) == (2, [0, 1], [True] * 201)


def test_a_storm_ends_and_everybody_is_answered() -> None:
    """R-P09, fault 50: from many threads, again and again."""
    reloads, runs = Reloads(), list[int]()
    reloads.observe("index", lambda: Reloading(changed=bool(runs.append(1))))
    answered: list[str | None] = []

    def ask() -> None:
        answered.extend(reloads.run().problem for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (answered, 0 < len(runs) <= 2_000) == ([None] * 2_000, True)
