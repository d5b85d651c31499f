"""What SQLite holds counts in the ledger, keeps to its ceiling and is given back."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import EngineProcess
from membudget_contract.policy import Priority
from membudget_engine.stores.code_chunk import CodeChunk
from membudget_engine.stores.connection_pool import ReadOnlyPool
from membudget_engine.stores.database_chunks import DatabaseChunkStore
from membudget_engine.stores.sqlite_memory import SQLITE, SqliteMemory, sqlite_bytes
from membudget_runtime.bounds import start_budgets
from membudget_runtime.component import Ranking
from membudget_runtime.memory_runtime import MemoryRuntime

MB = 1024 * 1024
ROWS = 4_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 MB of rows."""
    made = tmp_path_factory.mktemp("sqlite") / "rows.sqlite"
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, value TEXT)")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", ((number, "v" * 2000) for number in range(ROWS)))
        connection.commit()
    return made


@pytest.fixture
def pool(file: Path) -> Iterator[ReadOnlyPool]:
    """With room for 6 MB of pages."""
    with closing(ReadOnlyPool(file, cache_kib=6 * 1024)) as opened:
        yield opened


@pytest.fixture
def memory(runtime: MemoryRuntime, pool: ReadOnlyPool) -> Iterator[SqliteMemory]:
    """Registered."""
    with closing(SqliteMemory(lambda: [pool])) as component:
        runtime.register(component)
        yield component


def read(pool: ReadOnlyPool) -> None:
    """Every page."""
    with pool.connection() as connection:
        assert (ROWS * 2000,) == connection.execute("SELECT sum(length(value)) FROM rows").fetchone()


def test_what_connections_cache_is_counted_and_given_back(memory: SqliteMemory, pool: ReadOnlyPool) -> None:
    """R-E15, R-E10: by a cleanup, and nothing that was read before is lost."""
    before = memory.owned_bytes()
    read(pool)
    full = memory.owned_bytes()
    assert full - before > 4 * MB

    removed = memory.expire()

    assert removed.freed_bytes == full - memory.owned_bytes() > 4 * MB
    assert removed.entries == 0
    read(pool)


def test_an_eviction_takes_it_as_what_belongs_to_no_collection(memory: SqliteMemory, pool: ReadOnlyPool) -> None:
    """R-E14: Medium, as everything that no policy names."""
    read(pool)

    assert memory.evict(MB, Priority.LOW, Ranking()).freed_bytes == 0
    assert memory.evict(0, Priority.MEDIUM, Ranking()).freed_bytes == 0
    assert memory.evict(MB, Priority.MEDIUM, Ranking()).freed_bytes > 4 * MB


def test_a_ceiling_is_sqlites_soft_heap_limit(runtime: MemoryRuntime, memory: SqliteMemory, pool: ReadOnlyPool) -> None:
    """R-E10: lower while it runs, and away with the component."""
    start = start_budgets({"MEMBUDGET_TOTAL": "4Gi"})
    ceiling = memory.owned_bytes() + 2 * MB
    runtime.apply(msgspec.structs.replace(start, components={**start.components, SQLITE: ceiling}))

    read(pool)

    assert memory.owned_bytes() <= ceiling + MB // 2
    memory.expire()
    runtime.apply(start)
    read(pool)
    assert memory.owned_bytes() > ceiling + 2 * MB


def test_a_store_of_code_chunks_is_in_the_count(memory: SqliteMemory, tmp_path: Path) -> None:
    """R-E15: without an entry of its own, and gone with it."""
    before = memory.owned_bytes()
    store = DatabaseChunkStore(tmp_path / "chunks.sqlite")
    store.save(CodeChunk(str(n), "a.py", f"f{n}", "def f()", "what it does", ("len",)) for n in range(500))
    held = memory.owned_bytes()
    assert held > before

    store.shrink()
    assert memory.owned_bytes() < held
    assert store.get("7") is not None

    store.close()
    store.shrink()
    assert memory.owned_bytes() <= before + 4096


def test_an_engine_reports_it(engine: EngineProcess) -> None:
    """R-E10, R-E15: its chunk stores are in its ledger."""
    assert engine.search("open a stream reader").status == 200

    metrics = engine.ask("GET", "/metrics").body.decode()

    held = [line for line in metrics.splitlines() if 'component_owned_bytes{component="sqlite"}' in line]
    assert float(held[0].split()[1]) > 50_000
    assert sqlite_bytes() >= 0
