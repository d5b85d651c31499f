import random
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_runtime.entry import Entry
from membudget_runtime.replacement import LeastRecentlyUsed
from membudget_runtime.table import Table


def entry(number: int) -> Entry[int]:
    """One under this key."""
    return Entry(number, "default", packed=False, expires_at=0.0)


turns = st.lists(
    st.tuples(st.sampled_from(["come", "leave", "shrink"]), st.integers(1, 2000), st.floats(0.0, 1.0)), max_size=20
)


@settings(deadline=None)
@given(turns=turns, seed=st.integers(0, 2**16))
def test_no_dict_grows_by_more_than_was_told_before(turns: list[tuple[str, int, float]], seed: int) -> None:
    """R-E02: an entry is admitted with the growth it causes; a million entries double 40 MiB at once."""
    table: Table[int] = Table("default", LeastRecentlyUsed())
    number, chance, unforeseen = 0, random.Random(seed), 0
    for turn, count, share in turns:
        if turn == "shrink" and table.entries:
            table.shrink()
        for _ in range(count if turn == "come" else 0):
            told = table.growth_bytes()
            unforeseen = max(unforeseen, table.add(entry(number)) - told)
            number += 1
        # The last one would take the table along.
        leaving = min(int(share * len(table.entries)), len(table.entries) - 1) if turn == "leave" else 0
        for key in chance.sample(list(table.entries), max(0, leaving)):
            table.remove(table.entries[key])
        assert (unforeseen, table.table_bytes) == (0, sys.getsizeof(table.entries))


def test_few_entries_that_come_and_go_take_no_more_room_than_was_told() -> None:
    """R-E02: one to three at a time, as a collection that is just begun."""
    table: Table[int] = Table("default", LeastRecentlyUsed())
    unforeseen = 0
    for number in range(100):
        told = table.growth_bytes()
        unforeseen = max(unforeseen, table.add(entry(number)) - told)
        if number % 3 == 2:
            for key in list(table.entries)[:-1]:
                table.remove(table.entries[key])
    assert unforeseen == 0


def test_a_dict_that_was_written_anew_is_not_taken_for_larger_than_it_is() -> None:
    """R-E02: 20,000 entries, nearly all leave, and as many come again."""
    table: Table[int] = Table("default", LeastRecentlyUsed())
    for number in range(20_000):
        table.add(entry(number))
    for number in range(19_000):
        table.remove(table.entries[number])
    table.shrink()
    unforeseen = 0
    for number in range(20_000, 40_000):
        told = table.growth_bytes()
        unforeseen = max(unforeseen, table.add(entry(number)) - told)
    assert unforeseen == 0
