"""Generations of several segments: a seal copies nothing, a compaction loses nothing, and readers see one state."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import wait_until
from engine.shown import shown_chunks
from engine.written import EMBEDDER, Written, note, notes, written
from membudget_engine import publishing as publishing_module
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, open_collections
from membudget_engine.errors import FileDamaged, ManifestInvalid, SealPending
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.generations import find_newest_generation, generation_directories, segment_directory
from membudget_engine.index.manifest import (
    DEAD_FILE,
    INDEX_FILE,
    VECTORS_FILE,
    Manifest,
    read_manifest,
    write_manifest,
)
from membudget_engine.index_reload import IndexReload
from membudget_engine.publishing import COMPACTION, SEAL, Publishing
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.stores.chunk_store import CHUNKS_FILE
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import Ledger
from membudget_runtime.reloads import Reloading

RECORDED = Path(__file__).with_name("recorded") / "version-1"
"""A data folder as the release before segments left it: `core` with 20 notes."""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Written]:
    """A writer with the collection `core` of 40 notes, sealed."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        yield opened


def _core(opened: Written) -> Collection:
    return opened.catalog.collections["core"]


def _sealed(data: Path) -> dict[str, str]:
    """What an engine that only reads finds: it has no log."""
    core = open_collections(data, EMBEDDER)["core"]
    try:
        rows = [row for _, row in core.find(EMBEDDER.embed(["anything at all"]), 10_000)]
        found = {chunk.id: chunk.source for chunk in shown_chunks(core, rows)}
        assert (len(found), len(rows)) == (core.count, core.count)
        assert all(core.chunk(chunk_id) is not None for chunk_id in found)
        return found
    finally:
        core.close()


def _files(folder: Path) -> dict[str, int]:
    """Inodes by path."""
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_a_seal_writes_a_segment_and_touches_no_other(opened: Written, tmp_path: Path) -> None:
    """R-E01: bytes written are those of the new segment, the dead rows and the manifest, whatever was there."""
    segments = tmp_path / "data" / "core" / "segments"
    opened.writer.upsert("core", notes(range(30, 50), "second"))
    opened.writer.seal("core")
    before = _files(segments)
    opened.writer.upsert("core", [note(1, "third")])
    counted = opened.writer.publishing.written_bytes[SEAL]
    opened.writer.seal("core")

    after = _files(segments)
    assert before.items() <= after.items()
    new = [segments / name for name in after.keys() - before.keys()]
    generation = _core(opened).generation.directory
    assert {path.parent.name for path in new} == {"segment-00000003"}
    assert sorted(path.name for path in generation.iterdir()) == [DEAD_FILE, "manifest.json"]
    written_bytes = sum(path.stat().st_size for path in (*new, *generation.iterdir()))
    assert opened.writer.publishing.written_bytes[SEAL] - counted == written_bytes
    assert [one.count for one in _core(opened).manifest.segments] == [40, 20, 1]
    assert _core(opened).manifest.dead_rows == 11


def test_a_seal_shares_the_open_segments_and_closes_none_of_them(opened: Written) -> None:
    """R-E01: what has its codes in memory is not loaded twice; a mapping stays warm."""
    opened.writer.upsert("core", [note(50, "fifty")])
    opened.writer.seal("core")
    base = _core(opened).segments
    opened.writer.upsert("core", [note(51, "fifty-one")])
    opened.writer.seal("core")

    assert _core(opened).segments[:2] == base
    assert [len(one.index.search(EMBEDDER.embed(["x"]), 1)[0]) for one in base] == [1, 1]


def test_readers_without_the_log_see_what_was_sealed_and_nothing_twice(opened: Written, tmp_path: Path) -> None:
    """R-E01: tombstones are in the generation; what was written since is not, nor what it replaced gone."""
    opened.writer.upsert("core", notes(range(30, 50), "second"))
    opened.writer.delete("core", ["note-1", "note-49"])
    expected = opened.texts("core")
    opened.writer.seal("core")
    opened.writer.upsert("core", [note(2, "unsealed")])
    opened.writer.delete("core", ["note-3"])

    assert expected == _sealed(tmp_path / "data")
    assert opened.writer.compact("core")
    assert expected == _sealed(tmp_path / "data")


def test_a_compaction_leaves_one_segment_without_dead_rows_and_changes_no_answer(
    opened: Written, tmp_path: Path
) -> None:
    """R-E01: and the former segments go when no generation names them."""
    for step in range(4):
        opened.writer.upsert("core", notes(range(10 * step, 10 * step + 15), f"step {step}"))
        opened.writer.delete("core", [f"note-{step}"])
        opened.writer.seal("core")
    expected, best = opened.texts("core"), opened.best("core", "step 3 note_32", 5)
    manifest = _core(opened).manifest
    assert (len(manifest.segments), manifest.count - manifest.dead_rows) == (5, len(expected))
    assert manifest.dead_rows > 40

    assert opened.writer.compact("core")

    assert (expected, best) == (opened.texts("core"), opened.best("core", "step 3 note_32", 5))
    assert (len(_core(opened).segments), _core(opened).manifest.dead_rows) == (1, 0)
    assert not opened.writer.compact("core")
    assert opened.writer.publishing.published == {SEAL: 5, COMPACTION: 1}
    opened.writer.upsert("core", [note(1, "again")])
    opened.writer.seal("core")
    folders = sorted(path.name for path in (tmp_path / "data" / "core" / "segments").iterdir())
    assert folders == ["segment-00000006", "segment-00000007"]


def test_writes_and_seals_while_segments_are_merged_are_neither_lost_nor_undone(
    opened: Written, tmp_path: Path
) -> None:
    """R-E18: replaced, deleted and added meanwhile, sealed and not; found at once, after a restart, and by readers."""
    opened.writer.upsert("core", notes(range(30, 60), "second"))
    opened.writer.seal("core")
    states = dict[str, dict[str, str]]()

    def meanwhile() -> bool:
        if states:
            return False
        opened.writer.upsert("core", [*notes(range(5), "meanwhile"), note(70, "new")])
        opened.writer.delete("core", ["note-10", "note-35"])
        opened.writer.seal("core")
        states["sealed"] = opened.texts("core")
        opened.writer.upsert("core", [note(20, "unsealed"), note(3, "twice")])
        opened.writer.delete("core", ["note-21"])
        states["written"] = opened.texts("core")
        return False

    # Asked whether to give up while the rows of the segments are read.
    publishing = Publishing(opened.indexes, opened.runtime.ledger, lambda _: None, meanwhile)
    assert publishing.compact(opened.writer.held.take("core"), lambda rows, _: range(len(rows)))

    assert [one.count for one in _core(opened).manifest.segments] == [60, 6]
    assert states["written"] == opened.texts("core")
    assert states["sealed"] == _sealed(tmp_path / "data")
    opened.writer.close()
    with written(tmp_path / "data", tmp_path / "again") as again:
        assert states["written"] == again.texts("core")
        again.writer.seal("core")
        assert states["written"] == again.texts("core") == _sealed(tmp_path / "data")


def test_under_seals_and_compactions_every_query_finds_each_chunk_once(opened: Written) -> None:
    """R-E18, fault 49: a replaced row is found as one of both, never neither; no query fails."""
    ended, problems, generations = threading.Event(), list[str](), set[int]()
    expected = sorted(f"note-{number}" for number in range(40))

    def query() -> None:
        found = opened.best("core", "anything at all", 10_000)
        if sorted(found) != expected:
            problems.append(f"{len(found)} found, {len(set(found))} different")

    def publish() -> None:
        opened.writer.seal("core")
        opened.writer.compact("core")
        generations.add(_core(opened).manifest.generation)

    threads = [threading.Thread(target=_repeated, args=(work, ended, problems)) for work in (query, query, publish)]
    for thread in threads:
        thread.start()
    writes = 0
    while writes < 150 or (len(generations) < 2 and not problems):
        opened.writer.upsert("core", [note(writes % 40, f"write {writes}")])
        writes += 1
    ended.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert {f"note-{number % 40}": f"write {number}" for number in range(writes)} == opened.texts("core")


def _repeated(work: Callable[[], None], ended: threading.Event, problems: list[str]) -> None:
    while not ended.is_set():
        try:
            work()
        except BaseException as error:
            problems.append(repr(error))
            raise


def test_a_fifth_of_the_rows_dead_is_merged_away_in_the_background(opened: Written) -> None:
    """R-E01: deletes alone seal tombstones, and then the rows go."""
    opened.writer.upsert("core", notes(range(3_000), "many"))
    opened.writer.seal("core")
    assert opened.writer.delete("core", [f"note-{number}" for number in range(1_200)]) == 1_200
    wait_until(lambda: _core(opened).manifest.count == 1_800)
    assert (_core(opened).manifest.dead_rows, _core(opened).count) == (0, 1_800)


def test_sixteen_segments_are_merged_in_the_background(opened: Written) -> None:
    """R-E01: design's bound; the largest stays where it is."""
    for step in range(15):
        opened.writer.upsert("core", [note(100 + step, f"step {step}")])
        opened.writer.seal("core")
    wait_until(lambda: len(_core(opened).segments) < 16)
    assert [one.count for one in _core(opened).manifest.segments] == [40, 15]
    assert len(opened.texts("core")) == 55


def test_a_compaction_without_room_is_refused_with_the_figure_and_nothing_changes(tmp_path: Path) -> None:
    """R-E21: reserved first; the segments are served on."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        for step in range(3):
            opened.writer.upsert("core", notes(range(10 * step, 10 * step + 15), f"step {step}"))
            opened.writer.seal("core")
        expected = opened.texts("core")
    with written(tmp_path / "data", tmp_path / "state", total="1Mi") as opened:
        with pytest.raises((NoRoom, ValueTooLarge), match=r"index: \d{7,} bytes"):
            opened.writer.compact("core")
        assert (len(_core(opened).segments), expected) == (3, opened.texts("core"))
        assert opened.runtime.ledger.reserved_bytes(opened.indexes) == 0
        assert not [path for path in (tmp_path / "data" / "core").iterdir() if path.name.startswith(".")]


def test_what_is_charged_is_the_delta_and_a_bit_for_each_row_of_a_segment_with_a_dead_one(opened: Written) -> None:
    """R-E10: segments that generations share count once, also while a query holds a former one."""
    for step in range(2):
        opened.writer.upsert("core", notes(range(step, 20), f"step {step}"))
        opened.writer.seal("core")
    with opened.catalog.use("core"):
        opened.writer.upsert("core", [note(90, "x")])
        opened.writer.seal("core")
        held = opened.indexes.owned_bytes()
    # Forty rows of which twenty are dead, twenty of which 19 are: as sealed and as they are now.
    assert opened.indexes.owned_bytes() == 2 * (5 + 3)
    assert held > opened.indexes.owned_bytes()


def test_more_segments_than_a_manifest_holds_are_not_begun(opened: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E21: where compactions find no room for long, writes are refused in the end, and may be tried again."""
    monkeypatch.setattr(publishing_module, "MOST_SEGMENTS", 2)
    opened.writer.upsert("core", [note(50, "fifty")])
    opened.writer.seal("core")
    opened.writer.upsert("core", [note(51, "one more")])
    with pytest.raises(SealPending, match="2 segments, no more are possible"):
        opened.writer.seal("core")
    assert opened.writer.compact("core")
    assert opened.writer.seal("core")


@pytest.mark.parametrize("name", [CHUNKS_FILE, VECTORS_FILE])
@pytest.mark.parametrize("torn", [False, True])
def test_a_segment_that_was_damaged_since_it_was_opened_is_not_merged(tmp_path: Path, name: str, *, torn: bool) -> None:
    """R-E18, fault 69: in a new segment damage would be sound by its manifest, and the good copies gone."""
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        opened.writer.upsert("core", notes(range(40, 80), "second"))
        opened.writer.seal("core")
        before = opened.catalog.collections["core"].generation
        file = before.segments[-1].directory / name
        size = file.stat().st_size
        if torn:
            os.truncate(file, size // 2)
        else:
            with file.open("r+b") as stream:
                stream.seek(size // 2)
                stream.write(b"\x55" * 40)

        with pytest.raises(FileDamaged, match="rebuild the generation"):
            opened.writer.compact("core")
        assert before == opened.catalog.collections["core"].generation


def test_a_segment_of_a_writer_that_died_before_its_generation_is_removed(tmp_path: Path) -> None:
    """R-E01: its number is given again."""
    core = tmp_path / "data" / "core"
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        opened.writer.upsert("core", [note(1, "second")])
        opened.writer.seal("core")
    shutil.copytree(segment_directory(core, 2), segment_directory(core, 3))
    with written(tmp_path / "data", tmp_path / "state") as again:
        assert not segment_directory(core, 3).exists()
        again.writer.upsert("core", [note(1, "third")])
        again.writer.seal("core")
        assert again.texts("core")["note-1"] == "third"


def test_a_recorded_collection_of_version_1_is_served_written_to_and_becomes_the_first_segment(
    tmp_path: Path,
) -> None:
    """R-E01: files of the release before; linked, not copied, and still there to fall back to."""
    data = shutil.copytree(RECORDED, tmp_path / "data")
    recorded = {f"note-{number}": f"frozen {number}" for number in range(20)}
    assert recorded == _sealed(data)
    with written(data, tmp_path / "state") as opened:
        opened.writer.upsert("core", [note(3, "written"), note(30, "new")])
        opened.writer.delete("core", ["note-4"])
        opened.writer.seal("core")
        expected = opened.texts("core")
        segments = _core(opened).manifest.segments
        assert [(one.version, one.generation, one.count) for one in segments] == [(1, 1, 20), (2, 2, 2)]
    former = data / "core" / "generation-00000001" / INDEX_FILE
    assert former.stat().st_ino == (segment_directory(data / "core", 1) / INDEX_FILE).stat().st_ino
    assert expected == _sealed(data) == {**_without(recorded, "note-4"), "note-3": "written", "note-30": "new"}
    (generation_directories(data / "core")[-1][1] / "manifest.json").write_bytes(b"{}")
    with written(data, tmp_path / "state") as again:
        assert (_core(again).manifest.version, expected) == (1, again.texts("core"))


def _without(texts: dict[str, str], chunk_id: str) -> dict[str, str]:
    return {other: text for other, text in texts.items() if other != chunk_id}


def _changed(manifest: Manifest, change: str) -> Manifest:
    first, second = manifest.segments
    replace = msgspec.structs.replace
    changes: dict[str, Callable[[], Manifest]] = {
        "version": lambda: replace(manifest, version=1),
        "sum": lambda: replace(manifest, count=manifest.count + 1),
        "twice": lambda: replace(manifest, segments=(first, replace(second, generation=first.generation))),
        "of another": lambda: replace(manifest, segments=(first, replace(second, embedder="other"))),
        "nested": lambda: replace(manifest, segments=(first, replace(second, segments=(first,)))),
        "dead and no file": lambda: replace(manifest, files={}),
        "all dead": lambda: replace(manifest, dead_rows=manifest.count),
        "dead without segments": lambda: replace(first, dead_rows=1),
        "from later": lambda: replace(manifest, segments=(first, replace(second, generation=9))),
        "lists": lambda: replace(manifest, segments=(first, replace(second, nprobe=3))),
    }
    return changes[change]()


@pytest.mark.parametrize(
    "change",
    [
        "version",
        "sum",
        "twice",
        "of another",
        "nested",
        "dead and no file",
        "all dead",
        "dead without segments",
        "from later",
        "lists",
    ],
)
def test_a_manifest_whose_segments_do_not_make_up_its_generation_is_refused(
    opened: Written, tmp_path: Path, change: str
) -> None:
    """Faults 59-61: before any of their files is opened."""
    opened.writer.upsert("core", [note(1, "second")])
    opened.writer.seal("core")
    write_manifest(tmp_path, _changed(_core(opened).manifest, change))
    with pytest.raises(ManifestInvalid):
        read_manifest(tmp_path)


@pytest.mark.parametrize("file", [DEAD_FILE, "segments/segment-00000002/index.faiss"])
def test_a_damaged_file_of_the_newest_seal_leads_to_the_generation_before(opened: Written, file: str) -> None:
    """Fault 59: the one before has neither of them."""
    opened.writer.upsert("core", [note(1, "second")])
    opened.writer.seal("core")
    newest = _core(opened).generation.directory
    damaged = newest.parent / file if "/" in file else newest / file
    damaged.write_bytes(b"\xff" + damaged.read_bytes()[1:])
    search = find_newest_generation(newest.parent)
    assert search.found is not None
    assert (search.found.manifest.generation, [one.directory for one in search.skipped]) == (1, [newest])


def test_dead_rows_that_a_fitting_manifest_does_not_count_are_told(opened: Written, tmp_path: Path) -> None:
    """Faults 59-61: files that fit their manifest and contradict it."""
    opened.writer.upsert("core", [note(1, "second")])
    opened.writer.seal("core")
    generation = _core(opened).generation
    write_manifest(generation.directory, msgspec.structs.replace(generation.manifest, dead_rows=2))
    with pytest.raises(Exception, match="no collection with a good generation"):
        open_collections(tmp_path / "data", EMBEDDER)


def _rows(dead: Sequence[DeadRows]) -> list[list[int]]:
    return [rows.numbers() for rows in dead]


def test_a_chunk_that_is_deleted_and_written_again_in_every_segment_is_found_once(opened: Written) -> None:
    """R-E18: the newest row of an id is the only one that may hold."""
    for step in range(4):
        opened.writer.delete("core", ["note-7"])
        opened.writer.seal("core")
        opened.writer.upsert("core", [note(7, f"step {step}")])
        opened.writer.seal("core")
    core = _core(opened)
    assert _rows(core.dead) == [[7], [0], [0], [0], []]
    found = core.chunk("note-7")
    assert found is not None
    assert (found.source, opened.texts("core")["note-7"], core.count) == ("step 3", "step 3", 40)


@contextmanager
def _reader(data: Path, ledger: Ledger) -> Generator[IndexReload]:
    """What an engine that only reads reloads by."""
    with closing(Catalog(open_collections(data, EMBEDDER))) as catalog:
        indexes = ServedIndexes(catalog, ledger, 0, time.monotonic)
        yield IndexReload(data, EMBEDDER, catalog, indexes, lambda _: None)


def _read_bytes(work: Callable[[], object]) -> int:
    """By this thread, from files, as the kernel counts them."""

    def counted() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    before = counted()
    work()
    return counted() - before


def test_a_reader_reads_only_what_is_new_at_a_reload(opened: Written, tmp_path: Path) -> None:
    """R-P09: a segment that both generations name was compared with its manifest already."""
    opened.writer.upsert("core", notes(range(5_000), "many"))
    for number in range(2):
        # The generation of one segment, which has it under another name, goes.
        opened.writer.upsert("core", [note(number, "again")])
        opened.writer.seal("core")
    with _reader(tmp_path / "data", opened.runtime.ledger) as reload:
        opened.writer.upsert("core", [note(1, "new")])
        opened.writer.seal("core")
        manifest = _core(opened).manifest
        segments = [sum(entry.bytes for entry in one.files.values()) for one in manifest.segments]
        result = list[Reloading]()
        read = _read_bytes(lambda: result.append(reload()))
        assert [Reloading(changed=True)] == result
        # Its files once, and once more what is opened of them.
        assert segments[-1] < read < sum(segments[:-1]) / 4


@pytest.mark.parametrize("set_back", [False, True])
def test_a_file_that_was_changed_in_place_since_it_was_compared_is_found_at_a_reload(
    opened: Written, tmp_path: Path, *, set_back: bool
) -> None:
    """Fault 59: also where its size is the same, and its time was set back."""
    opened.writer.upsert("core", [note(1, "second")])
    opened.writer.seal("core")
    with _reader(tmp_path / "data", opened.runtime.ledger) as reload:
        opened.writer.upsert("core", [note(1, "third")])
        opened.writer.seal("core")
        file = segment_directory(tmp_path / "data" / "core", 2) / INDEX_FILE
        before = file.stat()
        with file.open("r+b") as stream:
            stream.seek(-4, os.SEEK_END)
            stream.write(b"hurt")
        if set_back:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        told = reload()
    assert not told.changed
    assert told.problem is not None
    assert "another sha256" in told.problem
