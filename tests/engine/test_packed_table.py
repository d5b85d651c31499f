"""A hash table in flat arrays, against a dict whose order is that of use."""

from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_engine.stores.packed_records import BLOCK_BYTES, PackedRecords
from membudget_engine.stores.packed_table import NONE, PackedTable

_Steps = st.lists(
    st.tuples(st.sampled_from(["add", "use", "remove", "drop oldest", "shrink"]), st.integers(0, 150)), max_size=400
)


def _table(keys: dict[int, str]) -> PackedTable:
    """Whose entries have the keys that stand here under their places."""
    table = PackedTable(lambda entry, key: keys[table.places[entry]] == key)
    return table


@settings(max_examples=150, deadline=None)
@given(_Steps, st.integers(0, 3000))
def test_it_finds_and_orders_as_a_dictionary_does(steps: list[tuple[str, int]], before: int) -> None:
    """R-E15: after thousands came and most of them left, too."""
    keys: dict[int, str] = {}
    table = _table(keys)
    model: dict[str, int] = {}
    for place in range(before):
        keys[place] = f"early {place}"
        table.add(keys[place], place)
    for place in range(before):
        table.remove(table.find(keys[place]))
    for place, (step, number) in enumerate(steps, before):
        key = f"key {number}"
        entry = table.find(key)
        assert (entry == NONE) == (key not in model)
        if step == "add" and entry == NONE:
            keys[place] = key
            table.add(key, place)
            model[key] = place
        elif step == "use" and entry != NONE:
            table.use(entry)
            model[key] = model.pop(key)
        elif step == "remove" and entry != NONE:
            table.remove(entry)
            del model[key]
        elif step == "drop oldest" and model:
            table.remove(table.oldest)
            del model[next(iter(model))]
        elif step == "shrink":
            table.shrink()
        assert len(table) == len(model)
    assert [(keys[table.places[entry]], table.places[entry]) for entry in table] == [*model.items()]


def test_entries_cost_29_bytes_and_an_emptied_table_nearly_nothing() -> None:
    """R-E15: what it says is what its arrays take."""
    keys = {place: f"key {place}" for place in range(50_000)}
    table = _table(keys)
    for place, key in keys.items():
        table.add(key, place)
    full = table.byte_count

    for place in range(49_900):
        table.remove(table.find(keys[place]))
    assert table.shrink()

    assert full / 50_000 < 34
    assert table.byte_count < 20_000
    assert [table.places[table.find(keys[place])] for place in range(49_900, 50_000)] == [*range(49_900, 50_000)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60_000), st.integers(0, 30)), max_size=60))
def test_records_stay_as_they_are_wherever_they_are_moved(steps: list[tuple[bool, int, int]]) -> None:
    """R-E15: and every block that is left empty goes back."""
    records = PackedRecords()
    held: dict[int, tuple[int, bytes]] = {}
    for turn, (adding, length, which) in enumerate(steps):
        if adding:
            content = bytes([turn % 251]) * length
            held[turn] = (records.add(content), content)
        elif held:
            place, _ = held.pop([*held][which % len(held)])
            records.drop(place)
        for number, moved in [*records.moved_together([(name, place) for name, (place, _) in held.items()])]:
            held[number] = (moved, held[number][1])
        assert [records.read(place) for place, _ in held.values()] == [content for _, content in held.values()]
    for place, _ in held.values():
        records.drop(place)
    assert (records.resident_bytes, records.dead_bytes()) == (0, 0)
    assert BLOCK_BYTES == 256 * 1024
