"""Mapped or loaded as the plan says: exact bytes, room first, both directions under queries, and the gauge is true."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from control_socket import ask
from engine.engine_process import EngineProcess, search_body, status_bytes
from membudget_contract import control_api as api
from membudget_contract.policy import Signal
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.faiss_reader import loaded_bytes
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.manifest import INDEX_FILE
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.served_indexes import ServedIndexes
from membudget_runtime.bounds import start_budgets
from membudget_runtime.memory_runtime import MemoryRuntime

EMBEDDER = HashingEmbedder()
MB = 1024 * 1024


def budgets(total: str, *, mapped: bool, signal: Signal = Signal.UNRECLAIMABLE) -> api.Budgets:
    """Of the built-in split over this total."""
    held = start_budgets({"MEMBUDGET_TOTAL": total})
    return msgspec.structs.replace(held, index_mapped=mapped, signal=signal, live=True)


@pytest.mark.parametrize("kind", ["flat", "listed"])
def test_both_forms_give_the_same_answers(
    flat_generation: Generation, listed_generation: Generation, kind: str
) -> None:
    """R-P04: scores and rows, for flat and for listed indexes."""
    generation = flat_generation if kind == "flat" else listed_generation
    queries = EMBEDDER.embed([f"parse the header of an archive {number}" for number in range(20)])
    mapped = MappedIndex.open(generation.directory, generation.manifest)
    loaded = LoadedIndex.open(generation.directory, generation.manifest)
    for one, other in zip(mapped.search(queries, 10), loaded.search(queries, 10), strict=True):
        assert one.tolist() == other.tolist()
    assert (mapped.is_file_backed(), loaded.is_file_backed()) == (True, False)
    assert loaded.owned_bytes == loaded_bytes(generation.manifest)
    with pytest.raises(QueryInvalid):
        loaded.search(queries[:, :3], 10)
    loaded.close()
    with pytest.raises(IndexClosed):
        loaded.search(queries, 10)
    mapped.close()


def test_a_loaded_index_is_checked_as_a_mapped_one(flat_generation: Generation, tmp_path: Path) -> None:
    """R-P04: no file is let at FAISS that is not what its manifest says."""
    content = bytearray((flat_generation.directory / INDEX_FILE).read_bytes())
    content[:4] = b"IxPT"
    (tmp_path / INDEX_FILE).write_bytes(content)
    with pytest.raises(IndexInvalid, match="is no Flat index"):
        LoadedIndex.open(tmp_path, flat_generation.manifest)


@pytest.fixture
def served(small_data: Path, runtime: MemoryRuntime) -> Iterator[tuple[Catalog, ServedIndexes, int]]:
    """The collection `small`, registered, and the bytes it has when it is loaded."""
    catalog = Catalog(open_collections(small_data, EMBEDDER))
    indexes = ServedIndexes(catalog, runtime.ledger, 0, lambda: 0.0)
    assert runtime.register(indexes) is None
    yield catalog, indexes, loaded_bytes(catalog.collections["small"].manifest)
    catalog.close()


def forms(catalog: Catalog) -> Mapping[str, bool]:
    """Whether each collection is loaded."""
    return {name: isinstance(opened.segments[0].index, LoadedIndex) for name, opened in catalog.collections.items()}


def test_the_plan_moves_the_index_in_both_directions(
    served: tuple[Catalog, ServedIndexes, int], runtime: MemoryRuntime
) -> None:
    """R-P04: owned bytes to the byte, and what is left is closed."""
    catalog, indexes, byte_count = served
    freed = runtime.apply(budgets("4Gi", mapped=False))
    assert (freed.problem, forms(catalog), indexes.owned_bytes()) == (None, {"small": True}, byte_count)
    assert (catalog.mapped, runtime.ledger.reserved_bytes(indexes)) == ([], 0)
    assert runtime.apply(budgets("4Gi", mapped=False)).problem is None
    freed = runtime.apply(budgets("4Gi", mapped=True))
    assert (freed.problem, forms(catalog), indexes.owned_bytes()) == (None, {"small": False}, 0)
    assert len(catalog.mapped) == 1


def test_an_index_without_room_stays_mapped_with_a_problem_that_names_the_figure(
    served: tuple[Catalog, ServedIndexes, int], runtime: MemoryRuntime
) -> None:
    """R-P04: reserved first; the ceiling of 30 of 150 parts is smaller than the index."""
    catalog, indexes, byte_count = served
    problem = runtime.apply(budgets("2Mi", mapped=False)).problem
    assert (forms(catalog), indexes.owned_bytes()) == ({"small": False}, 0)
    assert problem is not None
    assert problem.startswith(f"small stays mapped: index: {byte_count} bytes never fit under the ceiling of 419431")
    assert runtime.ledger.reserved_bytes(indexes) == 0


def test_a_ceiling_below_a_loaded_index_maps_it_again(
    served: tuple[Catalog, ServedIndexes, int], runtime: MemoryRuntime
) -> None:
    """R-P04: a bound is a bound; once there is room it is loaded."""
    catalog, _, _ = served
    runtime.apply(budgets("4Gi", mapped=False))
    problem = runtime.apply(budgets("2Mi", mapped=False)).problem
    assert (forms(catalog), "bytes over the ceiling" in (problem or "")) == ({"small": False}, True)
    assert (runtime.apply(budgets("4Gi", mapped=False)).problem, forms(catalog)) == (None, {"small": True})


def test_its_resident_pages_make_room_for_the_loaded_form_where_they_count(
    served: tuple[Catalog, ServedIndexes, int], runtime: MemoryRuntime
) -> None:
    """R-P04: under ResidentSetSize both forms would count against one ceiling."""
    catalog, _, byte_count = served
    catalog.mapped[0].warm()
    held = budgets("4Gi", mapped=False, signal=Signal.RESIDENT_SET_SIZE)
    ceilings = {**held.components, "index": byte_count * 5 // 4}
    assert runtime.apply(msgspec.structs.replace(held, components=ceilings)).problem is None
    assert forms(catalog) == {"small": True}


def test_a_generation_that_was_damaged_since_stays_mapped(
    tmp_path: Path, small_data: Path, runtime: MemoryRuntime
) -> None:
    """R-P04: its files are compared with the manifest again before they are loaded."""
    found = find_newest_generation(small_data / "small").found
    assert found is not None
    folder = tmp_path / "data" / "small" / found.directory.name
    folder.mkdir(parents=True)
    for file in found.directory.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    catalog = Catalog(open_collections(tmp_path / "data", EMBEDDER))
    indexes = ServedIndexes(catalog, runtime.ledger, 0, lambda: 0.0)
    runtime.register(indexes)
    damaged = bytearray((folder / INDEX_FILE).read_bytes())
    damaged[-1] ^= 1
    (folder / INDEX_FILE).unlink()
    (folder / INDEX_FILE).write_bytes(damaged)
    problem = runtime.apply(budgets("4Gi", mapped=False)).problem
    assert (forms(catalog), "another sha256" in (problem or "")) == ({"small": False}, True)
    assert runtime.ledger.reserved_bytes(indexes) == 0
    catalog.close()


def test_the_kept_plan_of_a_former_life_holds_from_the_start(small_data: Path, tmp_path: Path) -> None:
    """R-P04: an engine that was restarted without its sidecar is as it was."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        ask(engine.run / "engine.sock", "PUT", api.BUDGETS_PATH, api.Freed, budgets("150Mi", mapped=False))
        assert _gauge(engine) == 0.0
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        assert (_gauge(engine), engine.search("open a stream reader").status) == (0.0, 200)


def _gauge(engine: EngineProcess, collection: str = "small") -> float:
    lines = engine.ask("GET", "/metrics").body.decode().splitlines()
    name = f'membudget_engine_index_mapped{{collection="{collection}"}} '
    return float(next(line.removeprefix(name) for line in lines if line.startswith(name)))


def _owned_index(engine: EngineProcess) -> int:
    report = ask(engine.run / "engine.sock", "GET", api.REPORT_PATH, api.Report)
    return next(part.owned_bytes for part in report.components if part.name == "index")


def test_switched_under_queries_the_bytes_are_those_the_kernel_sees(
    stdlib_data: Path, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-P04: read from outside; 0 failed queries in either direction; the gauge tells the truth."""
    failed: list[int] = []
    asked: list[int] = []
    ended = threading.Event()
    with EngineProcess(stdlib_data, tmp_path) as engine:
        engine.wait_until_serving()
        socket = engine.run / "engine.sock"

        def query(seed: int) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                body = search_body(f"open file {seed} {number}", collection="stdlib")
                status = engine.ask("POST", "/v1/search", body).status
                asked.append(status)
                if status != 200:
                    failed.append(status)

        for number in range(200):
            engine.ask("POST", "/v1/search", search_body(f"warm {number}", collection="stdlib"))
        ask(socket, "PUT", api.BUDGETS_PATH, api.Freed, budgets("400Mi", mapped=True))
        figures: list[tuple[int, int, float]] = []
        for mapped in (True, False, True):
            threads = [threading.Thread(target=query, args=(seed,)) for seed in range(2)]
            for thread in threads:
                thread.start()
            freed = ask(socket, "PUT", api.BUDGETS_PATH, api.Freed, budgets("400Mi", mapped=mapped))
            assert freed.problem is None
            ended.set()
            for thread in threads:
                thread.join()
            ended.clear()
            # Nothing else that was kept meanwhile belongs to the index.
            evicted = api.FreeRequest(means=api.Means.EVICT, target_bytes=1 << 40)
            ask(socket, "POST", api.FREE_PATH, api.Freed, evicted)
            figures.append(
                (status_bytes(engine.process.pid, "RssAnon"), _owned_index(engine), _gauge(engine, "stdlib"))
            )
        assert "Traceback" not in engine.log

    (anon, owned, _), (anon_loaded, owned_loaded, _), (anon_again, owned_again, _) = figures
    found = find_newest_generation(stdlib_data / "stdlib").found
    assert found is not None
    byte_count = loaded_bytes(found.manifest)
    publish(
        f"index of {byte_count / MB:.1f} MiB loaded: owned +{(owned_loaded - owned) / MB:.1f} MiB, RssAnon "
        f"+{(anon_loaded - anon) / MB:.1f} MiB, mapped again {(anon_again - anon) / MB:+.1f} MiB; {len(asked)} queries"
    )
    assert (failed, owned_loaded - owned, owned_again) == ([], byte_count, owned)
    assert [mapped for _, _, mapped in figures] == [1.0, 0.0, 1.0]
    assert anon_loaded - anon == pytest.approx(byte_count, rel=0.1)
    assert anon_again - anon < byte_count / 10
