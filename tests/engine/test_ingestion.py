"""Uploads in batches: whatever interrupts them, sent again they end whole, and what was acknowledged was written."""

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.test_vector_source import write_fvecs
from membudget_contract.profiles import WORKING
from membudget_contract.quantities import MIB
from membudget_engine import ingestion
from membudget_engine.embedder import Vectors
from membudget_engine.errors import (
    BodyEnded,
    BodyLate,
    BodyTooLarge,
    SealPending,
    SourceInvalid,
    UploadDiffers,
    WriteInvalid,
)
from membudget_engine.ingest.body_stream import BodyBounds, BodyStream
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.document_source import Keys
from membudget_engine.ingest.record import Record
from membudget_engine.ingest.steps import FileSteps
from membudget_engine.ingest.stream_source import CUT_ANYWHERE, stream_records
from membudget_engine.ingestion import MOST_KEPT, Ingestion, KeptUploads, Taking, Upload
from membudget_runtime.errors import NoRoom
from membudget_runtime.memory_runtime import MemoryRuntime

WIDE = BodyBounds(most_bytes=1 << 30, idle_seconds=30.0, seconds=60.0)


class Remembering:
    """A writer that holds chunks by id; `problems` are raised first, one for each call."""

    def __init__(self, folder: Path, problems: list[Exception] | None = None) -> None:
        (folder / "docs").mkdir(parents=True, exist_ok=True)
        self.held: dict[str, str] = {}
        self.vectors: dict[str, list[float]] = {}
        self.batches: list[int] = []
        self.problems = problems or []

    def upsert(self, _name: str, chunks: list[Chunk], vectors: Vectors | None, _representation: str) -> int:
        """As the writer's."""
        if self.problems:
            raise self.problems.pop(0)
        self.held.update({chunk.id: chunk.source for chunk in chunks})
        if vectors is not None:
            self.vectors.update(zip([chunk.id for chunk in chunks], vectors.tolist(), strict=True))
        self.batches.append(len(chunks))
        return len(self.held)


class Cut(Exception):
    """The connection ended."""


def body(name: str, folder: Path, records: int) -> bytes:
    """So many records in the format that the name says."""
    documents = [{"id": f"d{number}", "source": f"text {number} é" * (number % 7)} for number in range(records)]
    if name.endswith(".json"):
        return json.dumps(documents).encode()
    if name.endswith(".ndjson"):
        return b"\n\n".join(json.dumps(one).encode() for one in documents)
    vectors = np.random.default_rng(1).standard_normal((records, 3), dtype=np.float32)
    if name.endswith(".npy"):
        stream = io.BytesIO()
        np.save(stream, vectors)
        return stream.getvalue()
    write_fvecs(folder / name, vectors)
    return (folder / name).read_bytes()


def take(
    folder: Path,
    writer: Any,
    runtime: MemoryRuntime,
    name: str,
    content: bytes,
    told: Callable[[Upload], None],
    **how: Any,
) -> Upload:
    """One request: all of it, or what it has before it breaks off."""
    kept = KeptUploads(folder / "docs")
    upload = kept.get(name)
    whole = how.setdefault("sent_whole", True)
    records = stream_records(name, Unseekable(content), Keys(), 0 if whole else upload.position)
    worker = Ingestion(writer, runtime.ledger, how.pop("ended", lambda: False), how.pop("patience", 5.0))
    return worker.take(upload, kept, records, Taking(**how), told)


FORMATS = st.sampled_from(["docs.json", "docs.ndjson", "rows.npy", "rows.fvecs"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    FORMATS, st.integers(1, 40), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=4), st.integers(1, 9)
)
def test_interrupted_anywhere_and_sent_again_it_is_as_if_it_had_not_been(
    tmp_path_factory: pytest.TempPathFactory,
    runtime: MemoryRuntime,
    name: str,
    records: int,
    cuts: list[tuple[int, bool]],
    at_once: int,
) -> None:
    """R-E16: sent whole, or from where it stands; nothing twice in what is acknowledged, nothing missing."""
    folder = tmp_path_factory.mktemp("upload")
    content, writer = body(name, folder, records), Remembering(folder)
    whole, cut_at = Remembering(folder / "whole"), list[int]()
    expected = take(folder / "whole", whole, runtime, name, content, lambda _: None)

    def told(upload: Upload) -> None:
        assert upload.records >= max(cut_at, default=0)
        assert upload.records <= len(writer.held)
        cut_at.append(upload.records)
        if cuts and upload.records >= cuts[0][0]:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingestion, "LARGEST_BATCH", at_once * 1_500)
        patch.setattr(ingestion, "LEAST_BATCH", at_once * 1_500)
        while True:
            stands = KeptUploads(folder / "docs").get(name)
            sent_whole = not (stands.records and cuts and cuts[0][1] and name.endswith(CUT_ANYWHERE))
            sent = content if sent_whole else content[stands.bytes :]
            try:
                done = take(folder, writer, runtime, name, sent, told, sent_whole=sent_whole)
                break
            except Cut:
                cuts = cuts[1:]

    assert (expected, True, records) == (done, done.complete, done.records)
    assert (whole.held, whole.vectors) == (writer.held, writer.vectors)


def test_another_beginning_or_a_shorter_one_is_refused_before_anything_is_written(
    tmp_path: Path, runtime: MemoryRuntime
) -> None:
    """R-E16: a name is one source; a longer one goes on, as a log that grew."""
    content, writer = body("docs.ndjson", tmp_path, 10), Remembering(tmp_path)
    take(tmp_path, writer, runtime, "docs.ndjson", content, lambda _: None)
    batches = list(writer.batches)

    for other in (content.replace(b"text 3 ", b"other 3 ", 1), body("docs.ndjson", tmp_path, 9)):
        with pytest.raises(UploadDiffers):
            take(tmp_path, writer, runtime, "docs.ndjson", other, lambda _: None)
    assert batches == writer.batches

    grown = take(tmp_path, writer, runtime, "docs.ndjson", body("docs.ndjson", tmp_path, 12), lambda _: None)
    assert (12, [10, 2]) == (grown.records, writer.batches)


def test_a_record_that_is_none_is_told_and_all_before_it_hold(tmp_path: Path, runtime: MemoryRuntime) -> None:
    """R-E16: mended, the same upload goes on there."""
    writer, broken = Remembering(tmp_path), body("docs.ndjson", tmp_path, 5) + b'\n{"id": '
    with pytest.raises(SourceInvalid, match=r"docs\.ndjson: before "):
        take(tmp_path, writer, runtime, "docs.ndjson", broken, lambda _: None)
    kept = KeptUploads(tmp_path / "docs").get("docs.ndjson")
    assert (5, False, 5) == (kept.records, kept.complete, len(writer.held))

    mended = take(tmp_path, writer, runtime, "docs.ndjson", broken + b'"d5"}', lambda _: None)
    assert (6, True) == (mended.records, mended.complete)


def test_steps_map_and_filter_and_what_is_left_out_is_counted(tmp_path: Path, runtime: MemoryRuntime) -> None:
    """R-E16: as in `membudget-engine build`."""
    steps = FileSteps(["id=n", "source=body"], ["id=1*"])
    lines = b"\n".join(b'{"n": %d, "body": "text"}' % number for number in range(20))
    records = stream_records("docs.ndjson", io.BytesIO(lines), steps.document_keys())
    writer, kept = Remembering(tmp_path), KeptUploads(tmp_path / "docs")

    done = Ingestion(writer, runtime.ledger, lambda: False).take(  # pyright: ignore[reportArgumentType]  a fake
        kept.get("docs.ndjson"), kept, records, Taking(steps.filters()), lambda _: None
    )

    assert ({"1", *(str(number) for number in range(10, 20))}, 20, 9) == (set(writer.held), done.records, done.filtered)


def test_a_full_delta_is_waited_for_and_nothing_is_read_meanwhile(tmp_path: Path, runtime: MemoryRuntime) -> None:
    """R-E21: the peer is held back; a refusal that is no matter of room ends it at once."""
    content = body("docs.ndjson", tmp_path, 50)
    writer = Remembering(tmp_path, [SealPending("full"), NoRoom("index", 1, "full"), SealPending("full")])
    assert take(tmp_path, writer, runtime, "docs.ndjson", content, lambda _: None).complete
    assert ([50], 50) == (writer.batches, len(writer.held))

    for problems, error in (([SealPending("full")] * 100, SealPending), ([WriteInvalid("no")], WriteInvalid)):
        refusing = Remembering(tmp_path / error.__name__, list(problems))
        with pytest.raises(error):
            take(tmp_path / error.__name__, refusing, runtime, "docs.ndjson", content, lambda _: None, patience=0.2)
        assert 0 == KeptUploads(tmp_path / error.__name__ / "docs").get("docs.ndjson").records

    stopping = Remembering(tmp_path / "stop", [SealPending("full")])
    with pytest.raises(BodyEnded):
        take(tmp_path / "stop", stopping, runtime, "docs.ndjson", content, lambda _: None, ended=lambda: True)


def test_less_room_makes_smaller_batches_and_none_refuses(tmp_path: Path) -> None:
    """R-E16, R-E21: by what the ledger grants; what was set aside is given back."""
    content = body("docs.ndjson", tmp_path, 3_000)
    sizes = dict[int, int]()
    for megabytes in (64, 6):
        folder = tmp_path / str(megabytes)
        runtime = MemoryRuntime(folder / "state", {"MEMBUDGET_TOTAL": "16Gi", "MEMBUDGET_BASE_LIMIT": "16Gi"})
        ceiling = runtime.ledger.ceiling(WORKING)
        assert ceiling is not None
        runtime.ledger.set_aside(WORKING, ceiling - megabytes * MIB)
        writer = Remembering(folder)
        take(folder, writer, runtime, "docs.ndjson", content, lambda _: None)
        sizes[megabytes] = max(writer.batches)
        # Given back, every byte: what was there fits again, and nothing besides.
        runtime.ledger.set_aside(WORKING, megabytes * MIB)
        with pytest.raises(NoRoom):
            take(folder, Remembering(folder), runtime, "more.ndjson", content, lambda _: None, patience=0.1)
        runtime.close()
    assert sizes[6] <= sizes[64] / 2


def test_the_oldest_of_too_many_uploads_is_forgotten(tmp_path: Path) -> None:
    """R-E16: names are the caller's, files are bounded; one that is damaged begins anew."""
    (tmp_path / "docs").mkdir()
    kept = KeptUploads(tmp_path / "docs")
    for number in range(MOST_KEPT + 5):
        kept.put(Upload(collection="docs", name=f"u{number}.json", records=number + 1))
    assert (0, 6) == (kept.get("u0.json").records, kept.get("u5.json").records)
    assert MOST_KEPT == len(list((tmp_path / "docs" / ".uploads").iterdir()))
    file = tmp_path / "docs" / ".uploads" / "u50.json"
    file.write_bytes(file.read_bytes()[:-1])
    assert 0 == kept.get("u50.json").records


@contextmanager
def streamed(
    pieces: Callable[[], AsyncIterator[bytes]], bounds: BodyBounds = WIDE, ended: Callable[[], bool] = lambda: False
) -> Generator[io.BufferedReader]:
    """A body that a loop in another thread feeds."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield io.BufferedReader(BodyStream(pieces(), loop, bounds, ended), 4096)
    finally:
        asyncio.run_coroutine_threadsafe(_cancelled(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancelled() -> None:
    own = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not own]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@given(st.lists(st.binary(max_size=50), max_size=20))
@settings(max_examples=30, deadline=None)
def test_a_body_is_what_its_pieces_are(pieces: list[bytes]) -> None:
    """R-E16: however they are cut, empty ones too."""

    async def given_pieces() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    with streamed(given_pieces) as body_stream:
        assert b"".join(pieces) == body_stream.read()


def test_nothing_is_read_ahead_of_whoever_reads() -> None:
    """R-E16: backpressure; a body of any length is never held whole."""
    asked = list[int]()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            asked.append(1)
            yield b"x" * 4096

    with streamed(endless) as body_stream:
        assert 10_000 == len(body_stream.read(10_000))
        assert len(asked) <= 4


async def _silent() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.sleep(3600)


async def _trickling() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("pieces", "bounds", "ends", "error"),
    [
        (_silent, BodyBounds(100, 0.2, 60.0), False, BodyLate),
        (_trickling, BodyBounds(1 << 20, 5.0, 0.3), False, BodyLate),
        (_trickling, BodyBounds(5, 5.0, 60.0), False, BodyTooLarge),
        (_silent, WIDE, True, BodyEnded),
    ],
)
def test_a_body_has_bounds_of_size_and_time(
    pieces: Callable[[], AsyncIterator[bytes]], bounds: BodyBounds, ends: bool, error: type[Exception]
) -> None:
    """R-E16: whoever stands still, trickles or sends without end is refused, and who stops waits for nobody."""
    with streamed(pieces, bounds, lambda: ends) as body_stream, pytest.raises(error):
        body_stream.read()


class Unseekable(io.BytesIO):
    """As a connection is."""

    def tell(self) -> int:
        """Nobody knows."""
        raise io.UnsupportedOperation


def records_of(name: str, content: bytes) -> Iterator[Record]:
    """Of a stream."""
    return stream_records(name, Unseekable(content), Keys())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b"\x93NUMPY"),
        ("a.fvecs", b"\x04\0\0\0" + b"\0" * 15),
        ("a.fvecs", b""),
        ("a.json", b'[{"id": 1}, 2]'),
        ("a.json", b'[{"id": "' + b"x" * 2_000_000),
        ("a.ndjson", b'{"id": "' + b"x" * 2_000_000),
        ("a.ndjson", b'{"vector": [' + b"1," * 70_000 + b"1]}"),
        ("a.ndjson", b'{"id": ' + b"[" * 100_000),
        ("a.ndjson", b'{"id": "\\ud800"}'),
    ],
)
def test_a_stream_that_is_not_what_its_name_says_is_refused(name: str, content: bytes) -> None:
    """Fault 109, 116: before it fills memory."""
    with pytest.raises(SourceInvalid):
        list(records_of(name, content))


def test_rows_behind_the_last_one_of_a_header_are_refused(tmp_path: Path) -> None:
    """Fault 116: a stream has no size that could be compared first."""
    with pytest.raises(SourceInvalid):
        list(records_of("rows.npy", body("rows.npy", tmp_path, 3) + b"\0"))
    with pytest.raises(SourceInvalid):
        list(records_of("rows.npy", body("rows.npy", tmp_path, 3)[:-12]))
