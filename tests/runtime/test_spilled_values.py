"""Values that a service moves to disk by key, and loads back."""

import contextlib
import os
import random
import threading
from pathlib import Path

import pytest

from membudget_runtime.errors import SpillDamaged, SpillFailed
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.spill import SpillStore
from membudget_runtime.spilled_values import SpilledValues
from runtime.fakes import MB


def test_values_come_back_by_key_until_they_are_forgotten(tmp_path: Path) -> None:
    """R-E23, R-E13: several by one write, each for itself; a forgotten one leaves nothing behind."""
    store = SpillStore(tmp_path, MB)
    values: SpilledValues[str] = SpilledValues(store)
    values.spill({"a": b"one", "b": b"", "c": os.urandom(5000)})
    assert (values.load("a"), values.load("b"), values.load("d"), len(values)) == (b"one", b"", None, 3)
    assert len(list(tmp_path.iterdir())) == 1
    assert [values.forget(key) for key in ("a", "b", "c", "d")] == [True, True, True, False]
    assert (list(tmp_path.iterdir()), store.used_bytes, "a" in values) == ([], 0, False)


def test_a_value_that_is_spilled_again_replaces_the_older_one(tmp_path: Path) -> None:
    """R-E23: whose bytes come back."""
    store = SpillStore(tmp_path, MB)
    values: SpilledValues[str] = SpilledValues(store)
    values.spill({"a": bytes(1000)})
    values.spill({"a": b"new"})
    values.spill({})
    assert (values.load("a"), len(values), store.used_bytes, len(list(tmp_path.iterdir()))) == (b"new", 1, 11, 1)


def test_what_the_folder_does_not_take_is_refused_whole_and_the_older_value_stays(tmp_path: Path) -> None:
    """R-E23, R-E13: the service keeps it in memory."""
    values: SpilledValues[str] = SpilledValues(SpillStore(tmp_path, 1000))
    values.spill({"a": b"old"})
    with pytest.raises(SpillFailed):
        values.spill({"a": bytes(600), "b": bytes(600)})
    assert (values.load("a"), values.load("b"), len(values)) == (b"old", None, 1)


def test_a_damaged_value_is_an_error_once_and_gone_then(tmp_path: Path) -> None:
    """R-E23, R-E13: never other bytes than were written."""
    store = SpillStore(tmp_path, MB)
    values: SpilledValues[str] = SpilledValues(store)
    values.spill({"a": b"value"})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"value", b"wrong"))
    with pytest.raises(SpillDamaged):
        values.load("a")
    assert (values.load("a"), store.used_bytes, list(tmp_path.iterdir())) == (None, 0, [])


def test_threads_that_replace_and_forget_while_others_load_see_whole_values_only(tmp_path: Path) -> None:
    """R-E23, fault 66: no damage is told where there is none."""
    values: SpilledValues[int] = SpilledValues(SpillStore(tmp_path, 64 * MB))
    wrong: list[object] = []

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(150):
                key = chance.randrange(4)
                values.spill({key: b"%d/" % key * chance.randrange(1, 500)})
                for _ in range(4):
                    value = values.load(chance.randrange(4))
                    wrong.extend([value] * (value is not None and len(set(value.split(b"/"))) != 2))
                values.forget(chance.randrange(4))
        except Exception as error:  # noqa: BLE001  any is what the test looks for
            wrong.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_runtime_lends_its_folder_and_its_bound(tmp_path: Path) -> None:
    """R-E23: beside what its caches spill."""
    with contextlib.closing(MemoryRuntime(tmp_path, {})) as runtime:
        values: SpilledValues[str] = runtime.spilled_values()
        values.spill({"a": b"value"})
        assert (values.load("a"), runtime.spill.used_bytes) == (b"value", 13)
