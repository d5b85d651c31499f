"""A collection whose vectors have fewer places: built, searched, written to, sealed, compacted, reloaded."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.engine_process import EngineProcess, wait_until
from engine.shown import shown_chunks
from engine.written import EMBEDDER, Written, note, renamed, written
from membudget_engine.build_command import build_sources
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import BuildFailed
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.manifest import REDUCTION_FILE, VECTORS_FILE, Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root

QUERIES = ("decode a json document", "open a stream reader", "parse a header", "run an event loop", "send a cookie")
CHUNK: dict[str, object] = {
    "id": "one", "path": "one.py", "name": "count_marmots", "kind": "function", "signature": "def count_marmots()",
    "docstring": "", "dependencies": [], "source": "def count_marmots(): return 1", "start_line": 1, "end_line": 1,
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The json, asyncio and http packages: some hundred chunks."""
    for package in ("json", "asyncio", "http"):
        shutil.copytree(standard_library_root() / package, tmp_path / "source" / package)
    return tmp_path / "source"


def newest(folder: Path) -> Generation:
    """A good one is there."""
    found = find_newest_generation(folder).found
    assert found is not None
    return found


def found_by(engine: EngineProcess, query: str, collection: str) -> list[str]:
    """Ids, best first."""
    return [hit["chunk"]["id"] for hit in engine.search(query, collection=collection, hits=10).json()["hits"]]


def view(engine: EngineProcess) -> dict[str, Any]:
    """Of its only collection."""
    return engine.ask("GET", "/v1/collections").json()[0]


@pytest.mark.parametrize("representation", ["Exact", "Compact"])
def test_a_reduced_collection_finds_what_a_whole_one_finds(tmp_path: Path, source: Path, representation: str) -> None:
    """R-E04: in two thirds of the bytes, in every representation; scores stay inner products."""
    build_sources(
        tmp_path / "data",
        [f"whole={source}", f"small={source}"],
        [f"whole={representation}", f"small={representation}"],
        reductions=["small"],
    )
    whole, small = newest(tmp_path / "data" / "whole"), newest(tmp_path / "data" / "small")
    reduction = small.manifest.reduction
    assert reduction is not None
    assert (256, 384, 384) == (small.manifest.dimension, reduction.full_dimension, small.manifest.full_dimension)
    assert small.manifest.files[VECTORS_FILE].bytes * 3 == whole.manifest.files[VECTORS_FILE].bytes * 2
    assert REDUCTION_FILE in small.manifest.files
    assert 0.8 <= reduction.recall <= 1.0

    with EngineProcess(tmp_path / "data", tmp_path / "engine") as engine:
        engine.wait_until_serving()
        both = [(found_by(engine, query, "whole"), found_by(engine, query, "small")) for query in QUERIES]
        assert sum(len(set(one) & set(other)) for one, other in both) >= 8 * len(QUERIES)
        assert all(one[0] in other[:3] for one, other in both)
        best = [engine.search(QUERIES[0], collection=name, hits=1).json()["hits"][0] for name in ("whole", "small")]
        assert best[0]["score"] == pytest.approx(best[1]["score"], abs=0.1)
        views = {view["name"]: view for view in engine.ask("GET", "/v1/collections").json()}
        assert views["whole"]["reduction"] is None
        assert msgspec.to_builtins(reduction) == views["small"]["reduction"]


def test_what_is_written_to_it_is_found_before_and_after_a_seal_and_a_restart(tmp_path: Path, source: Path) -> None:
    """R-E04: by text and by vector, each of the full dimension; a segment more has the collection's reduction."""
    data = tmp_path / "data"
    build_sources(data, [f"small={source}"], reductions=["small=256"])
    first = newest(data / "small")
    vector = HashingEmbedder().embed(["count the marmots"])[0].tolist()
    asked = json.dumps({"collection": "small", "vector": vector, "hits": 1}).encode()
    short = json.dumps({"collection": "small", "vector": vector[:256], "hits": 1}).encode()

    def best(engine: EngineProcess) -> list[str]:
        by_vector = engine.ask("POST", "/v1/search", asked).json()["hits"][0]["chunk"]["id"]
        return [found_by(engine, "count the marmots", "small")[0], by_vector]

    with EngineProcess(data, tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        assert best(engine) != ["one", "one"]
        assert engine.ask("POST", "/v1/chunks/small", json.dumps({"chunks": [CHUNK]}).encode()).status == 200
        assert best(engine) == ["one", "one"]
        refused = engine.ask("POST", "/v1/search", short)
        assert (400, "QueryInvalid") == (refused.status, refused.json()["reason"])
        assert engine.ask("POST", "/v1/collections/small/seal").json()["sealed"] is True
        assert best(engine) == ["one", "one"]
        engine.process.terminate()
        assert engine.process.wait(timeout=30) == 0

    sealed = newest(data / "small")
    assert sealed.manifest.reduction == first.manifest.reduction
    files = [(segment.directory / REDUCTION_FILE).read_bytes() for segment in sealed.segments]
    assert {(first.segments[0].directory / REDUCTION_FILE).read_bytes()} == set(files)
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        assert best(engine) == ["one", "one"]


def _answers(opened: Written) -> list[dict[str, float]]:
    """Of each query: ids, best first, and their scores."""
    asked: list[dict[str, float]] = []
    with opened.catalog.use("core") as core:
        for query in (*QUERIES, "count the marmots"):
            found = core.find(EMBEDDER.embed([query]), 10)
            chunks = shown_chunks(core, [row for _, row in found])
            asked.append({chunk.id: score for (score, _), chunk in zip(found, chunks, strict=True)})
    return asked


@pytest.mark.parametrize("representation", ["Exact", "Compact"])
def test_a_compaction_keeps_ids_hits_and_the_reduction_and_drops_dead_rows(
    tmp_path: Path, source: Path, representation: Representation
) -> None:
    """R-E04, R-E01: rows are copied as they were reduced, not reduced again; the segment has the collection's file."""
    chunks = list[Chunk](python_chunks(source, IngestReport()))
    first = build_collection(
        collection="core",
        chunks=chunks,
        embedder=EMBEDDER,
        target=tmp_path / "data" / "core",
        threads=1,
        progress=lambda _: None,
        representation=representation,
        reduce_to=56,
    )
    assert first.manifest.reduction is not None
    fitted = (first.directory / REDUCTION_FILE).read_bytes()
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        opened.writer.upsert("core", [note(1, "count the marmots"), *chunks[:40]])
        opened.writer.delete("core", [chunk.id for chunk in chunks[20:60]])
        opened.writer.seal("core")
        opened.writer.upsert("core", [renamed(chunks[20], "again"), *chunks[:5]])
        opened.writer.seal("core")
        texts, answers = opened.texts("core"), _answers(opened)
        before = newest(tmp_path / "data" / "core").manifest
        assert (len(texts), "again" in texts, chunks[20].id in texts) == (len(chunks) - 38, True, False)
        assert (len(before.segments), before.dead_rows) == (3, 40 + 20 + 5)

        assert opened.writer.compact("core")

        assert texts == opened.texts("core")
        pairs = list(zip(answers, _answers(opened), strict=True))
        # Lists of a larger segment are other lists: which of the farther hits Compact looks at may differ.
        same = sum(len(one.keys() & other.keys()) for one, other in pairs)
        assert same >= (10 if representation == "Exact" else 8) * len(pairs)
        assert [next(iter(one)) for one, _ in pairs] == [next(iter(other)) for _, other in pairs]
        kept = [(one[chunk_id], other[chunk_id]) for one, other in pairs for chunk_id in one.keys() & other.keys()]
        assert [before for before, _ in kept] == pytest.approx([after for _, after in kept], abs=1e-3)
        core = newest(tmp_path / "data" / "core")
        merged, manifest = core.segments[0], core.manifest
        assert (1, len(texts), 0) == (len(core.segments), manifest.count, manifest.dead_rows)
        assert (first.manifest.reduction, 56, 64) == (manifest.reduction, manifest.dimension, manifest.full_dimension)
        assert fitted == (merged.directory / REDUCTION_FILE).read_bytes()
        assert (merged.directory / VECTORS_FILE).stat().st_size == len(texts) * 56 * 4
        added = note(2, "a herd of marmots")
        opened.writer.upsert("core", [added])
        assert opened.best("core", added.searchable_text()) == ["note-2"]
    alone = open_collections(tmp_path / "data", EMBEDDER)["core"]
    assert sorted(texts) == sorted(chunk.id for chunk in alone.chunks.get(range(alone.manifest.count)))
    alone.close()


def test_a_reload_serves_another_reduction(tmp_path: Path, source: Path) -> None:
    """R-E04, R-P09: of another number of places, and none at all."""
    data = tmp_path / "data"
    build_sources(data, [f"small={source}"], reductions=["small"])
    with EngineProcess(data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        expected = found_by(engine, QUERIES[0], "small")
        for reductions, dimension in ((["small=320"], 320), ([], 384)):
            build_sources(data, [f"small={source}"], reductions=reductions)
            engine.process.send_signal(signal.SIGHUP)
            wait_until(lambda wanted=dimension: view(engine)["dimension"] == wanted)
            assert (dimension == 384) is (view(engine)["reduction"] is None)
            assert expected[0] == found_by(engine, QUERIES[0], "small")[0]


def test_vectors_from_a_file_are_reduced_inside_the_same_memory(tmp_path: Path) -> None:
    """R-E04, R-E16: what was staged stays whole until the generation is there."""
    chance = np.random.default_rng(3)
    rows = chance.standard_normal((3000, 40)) @ chance.standard_normal((40, 512))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))

    build_sources(tmp_path / "data", [f"given={tmp_path / 'rows.npy'}"], reductions=["given=64"])

    manifest = newest(tmp_path / "data" / "given").manifest
    assert ("given-512", 64, 512) == (manifest.embedder, manifest.dimension, manifest.full_dimension)
    assert manifest.reduction is not None
    assert manifest.reduction.recall > 0.95


def test_vectors_that_are_short_already_stay_as_they_are(tmp_path: Path, source: Path) -> None:
    """R-E04: only more than 256 dimensions are reduced to 256."""
    build_sources(tmp_path / "data", [f"small={source}"], reductions=["small=384"])

    manifest = newest(tmp_path / "data" / "small").manifest
    assert (384, None) == (manifest.dimension, manifest.reduction)


@pytest.mark.parametrize(
    ("reductions", "why"),
    [
        (["other"], "not for 'other'"),
        (["small", "small=64"], "not for 'small'"),
        (["small=0"], "'0' is no number of places"),
        (["small=many"], "'many' is no number of places"),
        (["small="], "'' is no number of places"),
        (["small=8"], "8 of 384 dimensions find 0"),
    ],
)
def test_a_reduction_that_cannot_be_is_refused(tmp_path: Path, source: Path, reductions: list[str], why: str) -> None:
    """R-E04: nothing is published."""
    with pytest.raises(BuildFailed, match=why):
        build_sources(tmp_path / "data", [f"small={source}"], reductions=reductions)

    published = tmp_path / "data" / "small"
    assert not published.exists() or find_newest_generation(published).found is None
