"""Answers across a SIGKILL: what was persisted answers again, by words and by meaning, and only for its generation."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from control_socket import ask
from engine.engine_process import EngineProcess
from membudget_contract import control_api as api
from membudget_contract.policy import Priority
from membudget_engine.build_command import build_sources
from membudget_engine.caches.kept_answers import KeptAnswers
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.ingest.python_source import standard_library_root
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
    assert (persisted.entries, persisted.problem) == (8, None)  # each query's answer and its vector
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
    """R-S05: another embedder's length, another collection, another key; nothing is half restored."""
    answers, cache, catalog = kept
    vector = HashingEmbedder().embed(QUERIES)[0]
    tag = catalog.collections["small"].tag
    cache.keep("small", tag, 5, QUERIES[0], vector, b"answer")
    (entry,) = answers.saved(Priority.MEDIUM)
    assert np.array_equal(np.frombuffer(entry.attachment, dtype=np.float32), vector)
    cache.answers.clear()
    wrong: list[KeptEntry] = [
        entry._replace(attachment=entry.attachment[:-4]),
        entry._replace(attachment=entry.attachment[:-3]),
        entry._replace(collection="gone"),
        entry._replace(key=entry.key[:-1]),
        entry._replace(key=b"another." + entry.key[8:]),
        entry._replace(seconds_left=0.0),
    ]
    assert ([answers.restore(one) for one in wrong], len(cache.answers)) == ([False] * 6, 0)
    assert (answers.restore(entry), cache.same_words("small", tag, 5, QUERIES[0])) == (True, b"answer")
    assert cache.same_meaning("small", tag, 5, vector) == b"answer"
