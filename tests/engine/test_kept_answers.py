"""Answers across a SIGKILL: what was persisted answers again, by words and by meaning, and only for its generation."""

import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from control_socket import ask
from engine.engine_process import EngineProcess, search_body
from engine.written import notes
from membudget_contract import control_api as api
from membudget_contract.policy import Priority
from membudget_engine.build_command import build_sources
from membudget_engine.caches.found_rows import packed_rows
from membudget_engine.caches.kept_answers import FORM, KeptAnswers
from membudget_engine.caches.semantic_cache import SemanticCache, found_in
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.ingest.python_source import standard_library_root
from membudget_engine.reduction.quantization import Int8
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.memory_runtime import MemoryRuntime

QUERIES = ["open a stream reader", "parse a header", "acquire a lock", "decode a document"]


def _answered_by(engine: EngineProcess, query: str) -> str:
    return engine.search(query).json()["answered_by"]


def _persist(engine: EngineProcess) -> api.Persisted:
    return ask(engine.run / "engine.sock", "POST", api.PERSIST_PATH, api.Persisted)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The collection `small`, this test's own."""
    source = tmp_path / "source"
    shutil.copytree(standard_library_root() / "json", source / "json")
    build_sources(tmp_path / "data", [f"small={source}"])
    return tmp_path / "data"


def test_after_sigkill_what_was_persisted_answers_again(data: Path, tmp_path: Path) -> None:
    """R-S05: killed right after the persist; by its words and by its meaning."""
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        bodies = [engine.search(query).json()["hits"] for query in QUERIES]
        persisted = _persist(engine)
        engine.process.kill()
        engine.process.wait()
    assert (persisted.entries, persisted.problem) == (4, None)
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        assert [_answered_by(engine, query) for query in QUERIES] == ["same_words"] * 4
        assert [engine.search(query).json()["hits"] for query in QUERIES] == bodies
        assert _answered_by(engine, "Open the STREAM: Reader!") == "same_meaning"
        assert _answered_by(engine, "something else entirely") == "index"


def test_answers_of_a_generation_that_is_no_longer_served_stay_away(data: Path, tmp_path: Path) -> None:
    """R-S05, R-P09: built anew between two lives, the same question has another answer."""
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        engine.search(QUERIES[0])
        _persist(engine)
    build_sources(data, [f"small={tmp_path / 'source'}"])
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        assert _answered_by(engine, QUERIES[0]) == "index"


@pytest.mark.parametrize("harm", ["torn", "foreign"])
def test_a_damaged_file_is_set_aside_and_the_engine_starts(data: Path, tmp_path: Path, harm: str) -> None:
    """R-S05: with a line that names it."""
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        engine.search(QUERIES[0])
        _persist(engine)
    path = tmp_path / "engine" / "state" / "persisted" / "semanticCache.Medium"
    path.write_bytes(path.read_bytes()[:-9] if harm == "torn" else b"no entries of ours")
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        assert _answered_by(engine, QUERIES[0]) == "index"
        assert f"set aside: {path}" in engine.log
    assert (path.exists(), path.with_name(path.name + ".damaged").exists()) == (False, True)


def test_what_was_written_since_the_seal_is_answered_rightly_in_the_next_life(tmp_path: Path) -> None:
    """R-S05, R-E18: its rows are numbered anew from the log, without those that were replaced; sealed rows are not."""

    def hits(engine: EngineProcess, collection: str) -> tuple[str, list[str]]:
        answer = engine.ask("POST", "/v1/search", search_body("what a note says", collection=collection)).json()
        return answer["answered_by"], [hit["chunk"]["source"] for hit in answer["hits"]]

    def write(engine: EngineProcess, collection: str, numbers: range, text: str) -> None:
        chunks = {"chunks": notes(numbers, f"{text}, a note says")}
        assert engine.ask("POST", f"/v1/chunks/{collection}", msgspec.json.encode(chunks)).status == 200

    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        for collection in ("sealed", "open"):
            write(engine, collection, range(3), "first")
            write(engine, collection, range(2), "second")
        assert engine.ask("POST", "/v1/collections/sealed/seal").json()["sealed"]
        before = {collection: hits(engine, collection)[1] for collection in ("sealed", "open")}
        assert engine.terminate() == 0
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        assert hits(engine, "sealed") == ("same_words", before["sealed"])
        assert hits(engine, "open") == ("index", before["open"])


_BOMB = zlib.compress(bytes(64 << 20), 9)[:0xFFFF]
_INFLATES_TO_64_MB = len(_BOMB).to_bytes(2, "little") + _BOMB


@pytest.fixture
def kept(data: Path, runtime: MemoryRuntime) -> Iterator[tuple[KeptAnswers, SemanticCache, Catalog]]:
    """Over an empty cache."""
    embedder = HashingEmbedder()
    with closing(Catalog(open_collections(data, embedder))) as catalog:
        cache = SemanticCache(runtime, embedder.dimension)
        yield KeptAnswers(cache, catalog), cache, catalog


def test_an_entry_whose_vector_is_not_one_of_this_engine_is_left_out(
    kept: tuple[KeptAnswers, SemanticCache, Catalog],
) -> None:
    """R-S05: another embedder's length, another form, another collection, another key; nothing is half restored."""
    answers, cache, catalog = kept
    vector = HashingEmbedder().embed(QUERIES)[0]
    tag = catalog.collections["small"].tag
    found = packed_rows([(0.5, 3)])
    cache.keep("small", tag, 5, QUERIES[0], vector, found)
    (entry,) = answers.saved(Priority.MEDIUM)
    assert entry.attachment == FORM
    cache.answers.clear()
    shorter = Int8().encoded(vector)[:-4]
    wrong: list[KeptEntry] = [
        entry._replace(attachment=b""),
        entry._replace(attachment=vector.tobytes()),
        entry._replace(stored=entry.stored[:40]),
        entry._replace(stored=len(shorter).to_bytes(2, "little") + shorter + found),
        entry._replace(stored=entry.stored + b"half a row"),
        entry._replace(stored=entry.stored + packed_rows([(0.5, -5)])),
        entry._replace(stored=entry.stored + packed_rows([(0.5, 1 << 40)])),
        entry._replace(stored=_INFLATES_TO_64_MB),
        entry._replace(stored=zlib.compress(bytes(64 << 20)), packed=True),
        entry._replace(collection="gone"),
        entry._replace(key=entry.key[:-1]),
        entry._replace(key=b"another." + entry.key[8:]),
        entry._replace(seconds_left=0.0),
    ]
    assert ([answers.restore(one) for one in wrong], len(cache.answers)) == ([False] * 13, 0)
    assert (answers.restore(entry), cache.same_words("small", tag, 5, QUERIES[0])) == (True, found)
    assert cache.same_meaning("small", tag, 5, vector) == found


def test_an_answer_with_a_row_of_the_write_log_is_not_persisted(
    kept: tuple[KeptAnswers, SemanticCache, Catalog],
) -> None:
    """R-S05: one of the last sealed row is."""
    answers, cache, catalog = kept
    opened = catalog.collections["small"]
    last, written = (packed_rows([(0.5, row)]) for row in (opened.manifest.count - 1, opened.manifest.count))
    for query, found in zip(QUERIES, (last, written), strict=False):
        cache.keep("small", opened.tag, 5, query, HashingEmbedder().embed([query])[0], found)

    assert [found_in(entry.stored) for entry in answers.saved(Priority.MEDIUM)] == [last]
