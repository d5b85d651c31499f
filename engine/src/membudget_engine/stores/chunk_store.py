"""Covers the chunks of a sealed generation in one SQLite file: written once by the builder, then only read.

It does not cover publishing, syncing the folder (index/build) or checking the file's sha256 (index/manifest).
The row number of a chunk is the position of its vector in the index. Sources are compressed where that pays; a
compressed one is a BLOB, a plain one TEXT, so the column's type tells them apart.
"""

import sqlite3
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import msgspec

from membudget_contract.decoding import decode_json
from membudget_engine.errors import ChunkMissing, ChunkStoreInvalid
from membudget_engine.ingest.chunk import Chunk, ChunkKind
from membudget_engine.stores.connection_pool import ReadOnlyPool

CHUNKS_FILE = "chunks.sqlite"
SCHEMA_VERSION = 1
PAGE_BYTES = 16384
"""The standard library takes 7 % less room than in SQLite's usual pages of 4 kB."""

_APPLICATION_ID: Final = 0x6D656D62  # "memb", so that `file` and the reader tell it from other SQLite files
_ROWS_PER_TRANSACTION = 4000
_WORTHWHILE_SHARE = 0.8
"""Compressed only when less than this share is left: decompressing 2 kB costs 8 us at each read."""

_COLUMNS = "id, path, name, kind, signature, docstring, dependencies, source, start_line, end_line"
_SCHEMA = """CREATE TABLE chunks (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    signature TEXT NOT NULL, docstring TEXT NOT NULL, dependencies TEXT NOT NULL, source ANY NOT NULL,
    start_line INTEGER NOT NULL, end_line INTEGER NOT NULL) STRICT"""
_INSERT = f"INSERT INTO chunks (row, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_BY_ROWS = f"SELECT {_COLUMNS}, row FROM chunks WHERE row IN "  # noqa: S608 - constants
_ROWS_PER_STATEMENT = 100
"""Ten rows take two thirds of the time of ten statements; so many are within every build of SQLite's bound."""
_ROW_OF = "SELECT row FROM chunks WHERE id = ?"
_COPY = f"""INSERT INTO chunks (row, {_COLUMNS}) SELECT row_number() OVER (ORDER BY row) - 1 + ?, {_COLUMNS}
    FROM former.chunks WHERE row NOT IN (SELECT row FROM temp.dropped) ORDER BY row"""  # noqa: S608 - constants
_OTHER_ROWS = "SELECT min(row) <> 0 OR max(row) <> count(*) - 1 FROM chunks"
_HAS_PATH = "SELECT 1 FROM chunks WHERE path = ? LIMIT 1"
_IN_ORDER = f"SELECT {_COLUMNS} FROM chunks ORDER BY row"  # noqa: S608 - constants

_DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
)
"""What SQLite says of a file that is not as it was written; the third of a torn schema. All else is the volume's."""
_WRITE_VERSION_AT: Final = 18
_HIGHEST_WRITE_VERSION: Final = 2
"""In a header: SQLite refuses to write to a file of a higher one, in the words it has for a read-only volume."""
_UNREADABLE: Final = (sqlite3.Error, zlib.error, msgspec.DecodeError, UnicodeDecodeError)
"""What a damaged file ends in; the last as Python decodes what SQLite says, which quotes damaged names as they are."""
_PRIMARY: Final = 0xFF
"""Of an extended result code."""
_ADVICE_TO_READER: Final = "take another generation or rebuild"
_ADVICE_TO_BUILDER: Final = "its folder is damaged: remove that, and build again"

_Stored = tuple[str, str, str, ChunkKind, str, str, str, str | bytes, int, int]
_STORED: Final = (str, str, str, str, str, str, str, (str, bytes), int, int)
"""Of each column: a damaged record may hold any, whatever the schema says."""


class ChunkStoreWriter:
    """Writes a new store. Leaving the with block without seal() leaves a file that no reader accepts."""

    def __init__(self, file: Path, rows: int | None = None) -> None:
        """With `rows`, the store keeps what was committed across a crash; so many rows of it are gone on from.

        Raises ChunkStoreInvalid when the file is there and must not be, or is damaged.
        """
        if rows is None and file.exists():
            raise ChunkStoreInvalid(f"{file} exists: a chunk store is written once, into a new folder")
        self._file = file
        self._rows = rows or 0
        self._connection = sqlite3.connect(file, isolation_level=None, uri=True)
        with ExitStack() as on_failure, _damage_told(file, _ADVICE_TO_BUILDER):
            on_failure.callback(self._connection.close)
            self._execute(f"PRAGMA page_size = {PAGE_BYTES}")
            # No journal, no syncs: a half-written store is thrown away with its folder, seal() syncs the whole file.
            self._execute("PRAGMA journal_mode = OFF" if rows is None else "PRAGMA journal_mode = TRUNCATE")
            self._execute("PRAGMA synchronous = OFF" if rows is None else "PRAGMA synchronous = FULL")
            self._execute("BEGIN")
            self._execute(_SCHEMA if rows is None else _SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS", 1))
            self._execute("DELETE FROM chunks WHERE row >= ?", (self._rows,))
            on_failure.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Appends chunks under the next row numbers, from 0. Raises ChunkStoreInvalid for an id that came before."""
        for chunk in chunks:
            try:
                self._execute(_INSERT, (self._rows, *_stored(chunk)))
            except sqlite3.IntegrityError as error:
                raise ChunkStoreInvalid(
                    f"{self._file}: chunk id {chunk.id} of {chunk.path} came twice; give every chunk an id of its own"
                ) from error
            self._rows += 1
            if self._rows % _ROWS_PER_TRANSACTION == 0:
                self._execute("COMMIT")
                self._execute("BEGIN")

    def copy(self, former: Path, dropped: Iterable[int]) -> int:
        """Appends the rows of a sealed store but these, in their order, and gives how many.

        Raises ChunkStoreInvalid when the former store cannot be read, or has an id that came before.
        """
        with _damage_told(former, _ADVICE_TO_READER):
            self._execute("COMMIT")
            self._execute("ATTACH ? AS former", (f"{former.absolute().as_uri()}?mode=ro&immutable=1",))
            self._execute("CREATE TEMP TABLE dropped (row INTEGER PRIMARY KEY)")
            self._execute("BEGIN")
            for row in dropped:
                self._execute("INSERT INTO temp.dropped VALUES (?)", (row,))
            with closing(self._connection.execute(_COPY, (self._rows,))) as copied:
                rows = copied.rowcount
            self._rows += rows
            self._execute("DROP TABLE temp.dropped")
            self._execute("COMMIT")
            self._execute("DETACH former")
            self._execute("BEGIN")
        return rows

    def chunks(self) -> Iterator[Chunk]:
        """Those that it goes on from, in their order, after a look at the whole file.

        Raises ChunkStoreInvalid where that finds damage; a text that is another one than was written, it cannot find.
        """
        with _damage_told(self._file, _ADVICE_TO_BUILDER):
            told = self._first("PRAGMA integrity_check(1)")
            if told != "ok" or self._first("SELECT count(*) FROM chunks") != self._rows or self._first(_OTHER_ROWS):
                what = f"not the rows 0 to {self._rows - 1}" if told == "ok" else str(told).splitlines()[-1]
                raise ChunkStoreInvalid(f"{self._file}: {what}; {_ADVICE_TO_BUILDER}")
            with closing(self._connection.execute(_IN_ORDER)) as cursor:
                for stored in cast("Iterator[_Stored]", cursor):
                    yield _chunk(stored)

    def commit(self) -> None:
        """What was added holds from now on, where the store keeps it."""
        self._execute("COMMIT")
        self._execute("BEGIN")

    def seal(self) -> None:
        """Ends writing: everything is on the disk, and the version that readers ask for is written last."""
        self._execute("COMMIT")
        self._execute("PRAGMA synchronous = FULL")
        self._execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.close()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> None:
        with closing(self._connection.execute(statement, values)):
            pass

    def _first(self, statement: str) -> object:
        with closing(self._connection.execute(statement)) as cursor:
            return cast("tuple[object]", cursor.fetchone())[0]


class ChunkStore:
    """Reads a sealed store, from any number of threads, with at most four connections and 2 MB of page cache."""

    def __init__(self, file: Path) -> None:
        """Raises ChunkStoreInvalid when the file is no sealed chunk store of this version."""
        self._file = file
        self._pool = ReadOnlyPool(file)
        try:
            self._check_version()
            self._count = self._number("SELECT count(*) FROM chunks")
            self._check_rows()
        except BaseException:
            self._pool.close()
            raise

    def get(self, rows: Sequence[int]) -> list[Chunk]:
        """The chunks of these rows in the order asked. Raises ChunkMissing for a row that is not there."""
        found: dict[int, Chunk] = {}
        with self._reading() as connection:
            for first in range(0, len(rows), _ROWS_PER_STATEMENT):
                asked = rows[first : first + _ROWS_PER_STATEMENT]
                found.update(_chunks_at(connection, asked))
        for row in rows:
            if row not in found:
                raise ChunkMissing(
                    f"{self._file} has no row {row}, of {self._count} rows: index and store differ in generation"
                )
        return [found[row] for row in rows]

    def in_order(self) -> Iterator[Chunk]:
        """Every chunk, from row 0 on; one connection is taken as long as it lasts. Raises ChunkStoreInvalid."""
        with self._reading() as connection, closing(connection.execute(_IN_ORDER)) as cursor:
            for stored in cast("Iterator[_Stored]", cursor):
                yield _chunk(stored)

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The row of each of these ids; those that are not there are left out."""
        rows: dict[str, int] = {}
        with self._reading() as connection:
            for chunk_id in ids:
                with closing(connection.execute(_ROW_OF, (chunk_id,))) as cursor:
                    found = cast("tuple[int] | None", cursor.fetchone())
                if found is not None:
                    rows[chunk_id] = found[0]
        return rows

    def has_path(self, path: str) -> bool:
        """Whether some chunk is of this file. Looks at every chunk: some milliseconds for 20,000."""
        try:
            path.encode()
        except UnicodeEncodeError:
            return False
        with self._reading() as connection, closing(connection.execute(_HAS_PATH, (path,))) as cursor:
            return cursor.fetchone() is not None

    def count(self) -> int:
        """How many chunks there are."""
        return self._count

    def shrink(self) -> None:
        """Idle connections give their page caches back."""
        self._pool.shrink()

    def close(self) -> None:
        """Closes every connection; those in use as soon as their read ends. Later reads raise ChunkStoreClosed."""
        self._pool.close()

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        try:
            with self._pool.connection() as connection:
                yield connection
        except _UNREADABLE as error:
            raise ChunkStoreInvalid(f"{self._file}: {error}; {_ADVICE_TO_READER}") from error

    def _check_version(self) -> None:
        found = (self._number("PRAGMA application_id"), self._number("PRAGMA user_version"))
        if found != (_APPLICATION_ID, SCHEMA_VERSION):
            raise ChunkStoreInvalid(
                f"{self._file} is no sealed chunk store of version {SCHEMA_VERSION} (found {found}); rebuild it"
            )

    def _check_rows(self) -> None:
        if self._number(_OTHER_ROWS):
            raise ChunkStoreInvalid(f"{self._file} has other rows than 0 to {self._count - 1}: rebuild it")

    def _number(self, statement: str) -> int:
        with self._reading() as connection, closing(connection.execute(statement)) as cursor:
            return cast("tuple[int]", cursor.fetchone())[0]


@contextmanager
def _damage_told(file: Path, advice: str) -> Generator[None]:
    """Raises ChunkStoreInvalid for what a damaged file says; what the volume does passes as sqlite3.Error."""
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, sqlite3.Error) and not _is_damage(error.sqlite_errorcode & _PRIMARY, file):
            raise
        raise ChunkStoreInvalid(f"{file}: {error}; {advice}") from error


def _is_damage(code: int, file: Path) -> bool:
    if code != sqlite3.SQLITE_READONLY:
        return code in _DAMAGE
    with file.open("rb") as stream:
        header = stream.read(_WRITE_VERSION_AT + 1)
    return len(header) > _WRITE_VERSION_AT and header[_WRITE_VERSION_AT] > _HIGHEST_WRITE_VERSION


def _stored(chunk: Chunk) -> _Stored:
    plain = chunk.source.encode()
    compressed = zlib.compress(plain)
    source = compressed if len(compressed) < _WORTHWHILE_SHARE * len(plain) else chunk.source
    dependencies = msgspec.json.encode(chunk.dependencies).decode()
    return (
        chunk.id,
        chunk.path,
        chunk.name,
        chunk.kind,
        chunk.signature,
        chunk.docstring,
        dependencies,
        source,
        chunk.start_line,
        chunk.end_line,
    )


def _chunks_at(connection: sqlite3.Connection, rows: Sequence[int]) -> Iterable[tuple[int, Chunk]]:
    with closing(connection.execute(f"{_BY_ROWS}({','.join('?' * len(rows))})", rows)) as cursor:
        stored = cast("list[tuple[*_Stored, int]]", cursor.fetchall())
    return [(columns[-1], _chunk(columns[:-1])) for columns in stored]


def _chunk(stored: _Stored) -> Chunk:
    if not all(map(isinstance, stored, _STORED)):
        raise msgspec.ValidationError("a chunk has a value of another type than was written")
    identifier, path, name, kind, signature, docstring, dependencies, source, start_line, end_line = stored
    return Chunk(
        id=identifier,
        path=path,
        name=name,
        kind=kind,
        signature=signature,
        docstring=docstring,
        dependencies=decode_json(dependencies, tuple[str, ...]),
        source=source if isinstance(source, str) else zlib.decompress(source).decode(),
        start_line=start_line,
        end_line=end_line,
    )
