"""Writes to collections that are served: what is acknowledged is found, survives, and is sealed without a gap."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.engine_process import wait_until
from engine.shown import shown_chunks
from engine.written import EMBEDDER, Written, note, notes, written
from membudget_contract.profiles import INDEX
from membudget_contract.quantities import MIB
from membudget_engine import due_publishing
from membudget_engine import writer as writer_module
from membudget_engine.errors import (
    BuildFailed,
    BuildInProgress,
    CollectionMissing,
    QueryInvalid,
    ReadOnly,
    SealPending,
    WriteInvalid,
    WriteLogInvalid,
)
from membudget_engine.index.build import build_collection
from membudget_engine.index.delta import block_bytes
from membudget_engine.index.generations import generation_directories, segment_directory
from membudget_engine.index.manifest import Representation
from membudget_engine.stores.write_log import LOG_FILE
from membudget_runtime.bounds import start_budgets
from membudget_runtime.errors import NoRoom, ValueTooLarge


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Written]:
    """A writer with the collection `core` of 40 notes, sealed."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        yield opened


def _generation(opened: Written) -> int:
    return opened.catalog.collections["core"].manifest.generation


def test_the_first_write_makes_the_collection_and_it_is_found(opened: Written) -> None:
    """R-E18: upsert; no collection is made beforehand."""
    assert {f"note-{number}": f"first {number}" for number in range(40)} == opened.texts("core")
    assert opened.best("core", "first note_17") == ["note-17"]


def test_an_upsert_replaces_adds_and_is_found_at_once(opened: Written) -> None:
    """R-E18: one chunk for each id, in the delta or in the generation, never both."""
    count = opened.writer.upsert("core", [note(3, "second 3"), note(99, "new zebra"), note(99, "newest zebra")])

    expected = {f"note-{number}": f"first {number}" for number in range(40)}
    assert {**expected, "note-3": "second 3", "note-99": "newest zebra"} == opened.texts("core")
    assert (count, opened.catalog.collections["core"].count) == (41, 41)
    assert opened.best("core", "newest zebra") == ["note-99"]
    with opened.catalog.use("core") as core:
        found = core.chunk("note-3")
        assert found is not None
        assert found.source == "second 3"


def test_what_was_deleted_is_not_found_whether_sealed_or_not(opened: Written) -> None:
    """R-E18: delete, and again; an upsert brings the id back."""
    opened.writer.upsert("core", [note(50, "fifty")])

    assert opened.writer.delete("core", ["note-50", "note-7", "note-7", "never"]) == 2
    assert opened.writer.delete("core", ["note-50", "note-7"]) == 0
    assert opened.texts("core").keys() & {"note-50", "note-7"} == set()
    with opened.catalog.use("core") as core:
        assert (core.chunk("note-7"), core.chunk("note-50"), core.count) == (None, None, 39)

    opened.writer.upsert("core", [note(7, "again")])
    assert opened.texts("core")["note-7"] == "again"


def test_hits_are_full_where_the_nearest_rows_were_deleted(opened: Written) -> None:
    """R-E18: nine of ten nearest gone; the next ones take their places, best first."""
    best = opened.best("core", "first note_17", 40)
    opened.writer.delete("core", best[:20])

    assert opened.best("core", "first note_17", 10) == best[20:30]


def test_a_restart_has_every_write(tmp_path: Path) -> None:
    """R-E17: sealed, written since, replaced and deleted."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        opened.writer.upsert("core", notes(range(30, 60), "second"))
        opened.writer.delete("core", ["note-0", "note-59"])
        expected, tag = opened.texts("core"), opened.catalog.collections["core"].tag
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert expected == again.texts("core")
        assert tag == again.catalog.collections["core"].tag
        assert len(expected) == 58


def test_a_seal_moves_the_writes_into_the_next_generation_and_changes_no_answer(opened: Written) -> None:
    """R-E01: the delta is empty afterwards, and the log keeps what the fallback lacks."""
    opened.writer.upsert("core", notes(range(35, 80), "second"))
    opened.writer.delete("core", ["note-1", "note-79"])
    expected, best = opened.texts("core"), opened.best("core", "second note_50")

    assert opened.writer.seal("core")

    assert (expected, best) == (opened.texts("core"), opened.best("core", "second note_50"))
    core = opened.catalog.collections["core"]
    assert core.overlay is not None
    assert (core.manifest.generation, core.count, len(core.overlay.delta)) == (2, 78, 0)
    # Forty rows of the first generation, six of them dead, and 44 of this one.
    assert ([one.count for one in core.manifest.segments], core.manifest.dead_rows) == ([40, 44], 6)
    assert not opened.writer.seal("core")
    assert _generation(opened) == 2


def test_a_damaged_newest_generation_loses_nothing(tmp_path: Path) -> None:
    """Fault 59: the fallback and the log together are every write."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        for step in range(3):
            opened.writer.upsert("core", notes(range(10 * step, 10 * step + 30), f"step {step}"))
            opened.writer.delete("core", [f"note-{step}"])
            opened.writer.seal("core")
        opened.writer.upsert("core", [note(500, "last")])
        expected = opened.texts("core")
    newest = generation_directories(tmp_path / "data" / "core")[-1][1]
    (segment_directory(newest.parent, 4) / "index.faiss").write_bytes(b"torn")
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert again.catalog.collections["core"].manifest.generation == 3
        assert expected == again.texts("core")
        again.writer.seal("core")
        assert (_generation(again), expected) == (5, again.texts("core"))


def test_writes_during_a_seal_are_neither_lost_nor_doubled(opened: Written) -> None:
    """R-E18: 200 writes while generations come and go under queries; every answer is a state that was."""
    ended, problems = threading.Event(), list[str]()

    def query() -> None:
        while not ended.is_set():
            found = opened.best("core", "anything at all", 10_000)
            if len(found) != len(set(found)) or not {f"note-{n}" for n in range(20)} <= set(found):
                problems.append(f"{len(found)} found, {len(set(found))} different")

    def seal() -> None:
        while not ended.is_set():
            opened.writer.seal("core")

    threads = [threading.Thread(target=query) for _ in range(2)] + [threading.Thread(target=seal)]
    for thread in threads:
        thread.start()
    for number in range(200):
        opened.writer.upsert("core", [note(number % 60, f"write {number}")])
        opened.writer.delete("core", [f"note-{30 + number % 20}"])
    ended.set()
    for thread in threads:
        thread.join()
    held = {number % 60: f"write {number}" for number in range(200)}
    assert problems == []
    assert _generation(opened) > 2
    texts = opened.texts("core")
    assert {f"note-{n}": text for n, text in held.items() if f"note-{n}" in texts} == texts
    assert {f"note-{n}" for n in range(20)} <= texts.keys()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.lists(st.integers(0, 12), min_size=1, max_size=4)),
            st.tuples(st.just("delete"), st.lists(st.integers(0, 12), min_size=1, max_size=4)),
            st.tuples(st.just("seal"), st.just([])),
            st.tuples(st.just("restart"), st.just([])),
        ),
        max_size=12,
    )
)
def test_any_order_of_writes_seals_and_restarts_is_a_plain_dict(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    """R-E18, R-E17: against a dict that does the same."""
    folder = tmp_path_factory.mktemp("any")
    model = {f"note-{number}": f"first {number}" for number in range(5)}

    def run(opened: Written, pending: list[tuple[int, tuple[str, list[int]]]]) -> None:
        while pending:
            place, (kind, numbers) = pending.pop(0)
            ids = [f"note-{number}" for number in numbers]
            if kind == "put":
                opened.writer.upsert("core", [note(number, f"step {place}") for number in numbers])
                model.update(dict.fromkeys(ids, f"step {place}"))
            elif kind == "delete":
                assert opened.writer.delete("core", ids) == len(model.keys() & set(ids))
                for gone in ids:
                    model.pop(gone, None)
            elif kind == "seal":
                opened.writer.seal("core")
            else:
                return
            assert model == opened.texts("core")

    pending = list(enumerate(steps))
    with written(folder / "data", folder / "state") as opened:
        opened.writer.upsert("core", notes(range(5), "first"))
        run(opened, pending)
    while pending:
        with written(folder / "data", folder / "state") as opened:
            assert model == opened.texts("core")
            run(opened, pending)


def test_unsealed_writes_never_take_the_room_that_their_seal_needs(tmp_path: Path) -> None:
    """R-E16, R-E21: under a small ceiling they are refused before; else none of them could ever be sealed."""
    small = msgspec.structs.replace(start_budgets({"MEMBUDGET_TOTAL": "16Gi"}), components={INDEX: 15 * MIB})
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        opened.writer.upsert("core", notes(range(1), "first"))
        opened.runtime.apply(small)
        batch, refused = 0, False
        while not refused:
            try:
                opened.writer.upsert("core", notes(range(200 * batch, 200 * batch + 200), f"batch {batch}"))
                batch += 1
            except SealPending:
                refused = True

        assert batch > 5
        assert opened.writer.seal("core")
        assert 200 * batch == len(opened.texts("core"))
        opened.writer.upsert("core", notes(range(200), "again"))


def test_a_full_delta_is_sealed_in_the_background_and_then_takes_writes_again(
    opened: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E21: bounded bytes; what does not fit is a typed refusal that may be tried again."""
    for module in (writer_module, due_publishing):
        monkeypatch.setattr(module, "DELTA_BYTES", 2 * block_bytes(EMBEDDER.dimension))
    before = _generation(opened)
    refused = 0
    for batch in range(8):
        while True:
            try:
                opened.writer.upsert("core", notes(range(200 * batch, 200 * batch + 200), f"batch {batch}"))
                break
            except SealPending:
                refused += 1
                generation = _generation(opened)
                wait_until(lambda generation=generation: _generation(opened) > generation)
    assert len(opened.texts("core")) == 1600
    assert _generation(opened) > before
    overlay = opened.catalog.collections["core"].overlay
    assert overlay is not None
    assert overlay.delta.owned_bytes <= 2 * block_bytes(EMBEDDER.dimension)


def test_the_deltas_bytes_are_in_the_ledger_before_they_are_allocated(opened: Written) -> None:
    """R-E10: a block at a time, in the component of the index."""
    before = opened.indexes.owned_bytes()
    opened.writer.upsert("core", [note(1, "one")])
    # With a bit for each of the forty rows, now that one of them is dead.
    assert opened.indexes.owned_bytes() - before == block_bytes(EMBEDDER.dimension) + 40 // 8
    opened.writer.upsert("core", notes(range(100), "hundred"))
    assert opened.indexes.owned_bytes() - before == block_bytes(EMBEDDER.dimension) + 40 // 8


def test_without_room_an_upsert_is_refused_with_the_figure_and_deletes_work(tmp_path: Path) -> None:
    """R-E21: deletes need no memory; nothing of the refused write is there."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
    with written(tmp_path / "data", tmp_path / "state", total="1Mi") as opened:
        growth = block_bytes(EMBEDDER.dimension)
        with pytest.raises((NoRoom, ValueTooLarge), match=f"{growth} bytes"):
            opened.writer.upsert("core", [note(1, "refused")])
        assert opened.texts("core")["note-1"] == "first 1"
        assert opened.writer.delete("core", ["note-2"]) == 1
        with pytest.raises((NoRoom, ValueTooLarge), match=r"index: \d{7,} bytes"):
            opened.writer.seal("core")
        assert "note-2" not in opened.texts("core")
        assert _generation(opened) == 1
        assert opened.runtime.ledger.managed_bytes() < growth + 100_000


def test_what_is_no_write_is_refused_before_anything_is_written(opened: Written) -> None:
    """R-E18: each with the reason."""
    vectors = np.ones((1, 8), dtype=np.float32)
    with pytest.raises(WriteInvalid, match="one chunk at least"):
        opened.writer.upsert("core", [])
    with pytest.raises(WriteInvalid, match="takes no vectors"):
        opened.writer.upsert("core", [note(1, "x")], vectors)
    with pytest.raises(WriteInvalid, match="NaN"):
        opened.writer.upsert("other", [note(1, "x")], vectors * np.nan)
    with pytest.raises(WriteInvalid, match="as many vectors"):
        opened.writer.upsert("other", notes(range(2), "x"), vectors)
    with pytest.raises(WriteInvalid, match="no name"):
        opened.writer.upsert("../escape", [note(1, "x")])
    with pytest.raises(CollectionMissing):
        opened.writer.delete("other", ["note-1"])
    assert list(opened.catalog.collections) == ["core"]
    assert opened.texts("core")["note-1"] == "first 1"


def test_a_collection_of_given_vectors_takes_only_vectors_of_its_dimension(opened: Written) -> None:
    """R-E18: from the caller; text asks nothing of it."""
    vectors = np.eye(8, dtype=np.float32)
    opened.writer.upsert("given", notes(range(8), "vector"), vectors)

    with opened.catalog.use("given") as given_vectors:
        found = given_vectors.find(vectors[3:4], 1)
        assert given_vectors.manifest.embedder == "given-8"
        assert ["note-3"] == [chunk.id for chunk in shown_chunks(given_vectors, [found[0][1]])]
    with pytest.raises(WriteInvalid, match="takes no text"):
        opened.writer.upsert("given", [note(1, "x")])
    with pytest.raises(WriteInvalid, match="8 places"):
        opened.writer.upsert("given", [note(1, "x")], np.ones((1, 9), dtype=np.float32))


def test_a_second_writer_and_a_builder_are_kept_out_and_a_reader_is_not(opened: Written, tmp_path: Path) -> None:
    """R-E01: one writer; the second serves what was sealed and says so."""
    with written(tmp_path / "data", tmp_path / "other-state") as second:
        assert second.texts("core") == opened.texts("core")
        with pytest.raises(BuildInProgress):
            second.writer.upsert("core", [note(1, "x")])
    with pytest.raises(BuildInProgress):
        _built(tmp_path / "data" / "core")


def _built(target: Path) -> None:
    build_collection(
        collection="core", chunks=notes(range(3), "built"), embedder=EMBEDDER, target=target, threads=1,
        progress=lambda _: None,
    )  # fmt: skip


def test_a_build_does_not_replace_what_was_written(tmp_path: Path) -> None:
    """R-E01: it would hide writes that were acknowledged."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(4), "first"))
    with pytest.raises(BuildFailed, match="holds writes"):
        _built(tmp_path / "data" / "core")


def test_a_built_collection_is_written_to(tmp_path: Path) -> None:
    """R-E18: built by the command, then kept by a writer; a generation built meanwhile is taken."""
    target = tmp_path / "data" / "core"
    _built(target)
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", [note(1, "written")])
        assert {"note-0": "built 0", "note-1": "written", "note-2": "built 2"} == opened.texts("core")


@pytest.mark.parametrize("damage", ["torn", "foreign", "older", "no text"])
def test_a_damaged_log_is_told_the_generation_is_served_and_writes_are_refused(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 69: a write on top of a log that misses some would bury them."""
    core = tmp_path / "data" / "core"
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(4), "first"))
        opened.writer.upsert("core", [note(0, "before")])
    saved = shutil.copy(core / LOG_FILE, tmp_path / "saved")
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", [note(1, "second")])
        opened.writer.seal("core")
    for extra in ("-wal", "-shm"):
        core.joinpath(LOG_FILE + extra).unlink(missing_ok=True)
    if damage == "older":
        shutil.copy(saved, core / LOG_FILE)
    elif damage == "foreign":
        shutil.copy(core / "generation-00000001" / "chunks.sqlite", core / LOG_FILE)
    elif damage == "no text":
        damaged = core.joinpath(LOG_FILE).read_bytes().replace(b"tablewrites", b"table\xff\xfe\xfd\xfc\xfb\xfa")
        core.joinpath(LOG_FILE).write_bytes(damaged)
    else:
        core.joinpath(LOG_FILE).write_bytes(b"x" * 40_000)
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert again.texts("core")["note-1"] == "second"
        assert "without what was written" in caplog.text
        with pytest.raises(WriteLogInvalid):
            again.writer.upsert("core", [note(2, "third")])


def test_a_log_that_is_gone_begins_anew_behind_the_generation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 69: as where a generation alone was brought to another volume; later writes are not taken for sealed."""
    core = tmp_path / "data" / "core"
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(4), "first"))
        opened.writer.upsert("core", [note(1, "second")])
        opened.writer.seal("core")
    for file in core.glob(f"{LOG_FILE}*"):
        file.unlink()
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert "its log is not here" in caplog.text
        again.writer.upsert("core", [note(2, "third")])
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert again.texts("core")["note-2"] == "third"


def test_a_collection_none_of_whose_generations_is_good_is_not_begun_anew(tmp_path: Path) -> None:
    """R-E01: its files may be all that is left of it."""
    core = tmp_path / "data" / "core"
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(4), "first"))
    (core / "generation-00000001" / "manifest.json").write_bytes(b"{}")
    with written(tmp_path / "data", tmp_path / "state") as again, pytest.raises(ReadOnly, match="none is served"):
        again.writer.upsert("core", notes(range(4), "second"))


def test_the_last_chunk_may_go_and_the_collection_stays(opened: Written) -> None:
    """R-E18: empty is served; no generation is, so it is not sealed."""
    opened.writer.delete("core", [f"note-{number}" for number in range(40)])
    assert (opened.texts("core"), opened.writer.seal("core"), _generation(opened)) == ({}, False, 1)
    opened.writer.upsert("core", [note(1, "again")])
    assert opened.writer.seal("core")
    assert {"note-1": "again"} == opened.texts("core")


@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8", "Compact"])
def test_every_representation_is_kept_by_a_seal(opened: Written, representation: Representation) -> None:
    """R-E01: by collection, from the write that made it."""
    opened.writer.upsert("other", notes(range(300), "first"), representation=representation)
    opened.writer.upsert("other", notes(range(250, 350), "second"))
    opened.writer.delete("other", ["note-3"])
    expected = opened.texts("other")
    assert opened.writer.seal("other")
    assert opened.catalog.collections["other"].manifest.representation == representation
    assert expected == opened.texts("other")
    assert opened.best("other", "second note_300") == ["note-300"]


def test_a_query_of_a_wrong_dimension_is_refused_with_writes_too(opened: Written) -> None:
    """R-E18: by the index, before the delta is looked at."""
    with opened.catalog.use("core") as core, pytest.raises(QueryInvalid):
        core.find(np.ones((1, 3), dtype=np.float32), 5)
