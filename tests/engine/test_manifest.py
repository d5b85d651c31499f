"""Manifests that people may find on a volume, and the files beside them."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.errors import FileDamaged, ManifestInvalid
from membudget_engine.index.manifest import (
    CODES_FILE,
    MANIFEST_FILE,
    MOST_SEGMENTS,
    ORDER_FILE,
    REDUCTION_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    FileEntry,
    Manifest,
    Reduced,
    entry_of,
    read_manifest,
    verify,
    write_manifest,
)
from membudget_engine.stores.chunk_store import CHUNKS_FILE
from membudget_engine.stores.chunk_texts import TEXTS_FILE

_CONTENT = b"vectors" * 300_000


def _manifest() -> Manifest:
    return Manifest(
        collection="core-api",
        generation=3,
        count=20_000,
        dimension=384,
        index_type="IVFFlat",
        nlist=141,
        nprobe=10,
        embedder="hashing-384-v1",
        created=datetime(2026, 11, 20, 10, 0, tzinfo=UTC),
        files={"index.faiss": FileEntry(bytes=len(_CONTENT), sha256=sha256(_CONTENT).hexdigest())},
    )


def test_a_written_manifest_is_read_back_equal_with_its_time_in_utc(tmp_path: Path) -> None:
    """R-E01: a manifest with count, dimension, type, created, sha256."""
    file = write_manifest(tmp_path, _manifest())

    assert _manifest() == read_manifest(tmp_path)
    assert '"created": "2026-11-20T10:00:00Z"' in file.read_text()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 3),
        ("count", 0),
        ("dimension", -1),
        ("index_type", "HNSW"),
        ("nprobe", 142),
        ("nprobe", 0),
        ("created", "2026-11-20T10:00:00"),
        ("files", {"../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}),
        ("files", {"index.faiss": {"bytes": 1, "sha256": "none"}}),
        ("comment", "unknown fields are not for guessing"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused_with_its_path(tmp_path: Path, field: str, value: object) -> None:
    """R-E01: what the reader does not understand it does not serve."""
    fields = msgspec.to_builtins(_manifest())
    (tmp_path / MANIFEST_FILE).write_bytes(msgspec.json.encode({**fields, field: value}))

    with pytest.raises(ManifestInvalid, match=MANIFEST_FILE):
        read_manifest(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 60_000, b" " * 140_000])
def test_what_is_no_manifest_is_refused(tmp_path: Path, raw: bytes) -> None:
    """R-E01: also empty, cut, deep and huge ones."""
    (tmp_path / MANIFEST_FILE).write_bytes(raw)

    with pytest.raises(ManifestInvalid, match=MANIFEST_FILE):
        read_manifest(tmp_path)


def _segmented(manifest: Manifest, count: int) -> Manifest:
    """Of so many segments as large as they get: Compact and reduced, every figure at its longest."""
    entry = FileEntry(bytes=2**40, sha256="a" * 64)
    reduced = Reduced(full_dimension=8_192, explained=0.9123456789012345, recall=0.9123456789012345)
    files = (TEXTS_FILE, CHUNKS_FILE, VECTORS_FILE, CODES_FILE, ROWS_FILE, ORDER_FILE, REDUCTION_FILE)
    largest = msgspec.structs.replace(
        manifest, collection="c" * 63, count=2**40, dimension=4_096, index_type="IVFRaBitQ", nlist=1_000, nprobe=1_000,
        probe_margin=0.12345678901234567,
        representation="Compact", code_bits=2, rerank=10**6, recall=0.9123456789012345, sealed=2**50,
        embedder="e" * 200, reduction=reduced, files=dict.fromkeys(files, entry),
    )  # fmt: skip
    segments = tuple(msgspec.structs.replace(largest, generation=2**40 + number) for number in range(count))
    return msgspec.structs.replace(
        largest, generation=2**41, count=count * 2**40, files={}, segments=segments, dead_rows=0
    )


def test_a_manifest_of_as_many_segments_as_there_may_be_is_read_back(tmp_path: Path) -> None:
    """R-E16: however long its names and figures are; one that nobody would read is never written."""
    most = _segmented(_manifest(), MOST_SEGMENTS)
    write_manifest(tmp_path, most)
    assert most == read_manifest(tmp_path)

    (tmp_path / MANIFEST_FILE).unlink()
    with pytest.raises(ManifestInvalid, match="that are read"):
        write_manifest(tmp_path, _segmented(_manifest(), 2 * MOST_SEGMENTS))
    assert [] == [*tmp_path.iterdir()]


def test_a_missing_manifest_is_an_incomplete_generation(tmp_path: Path) -> None:
    """R-E01: the manifest is written last."""
    with pytest.raises(ManifestInvalid, match="incomplete"):
        read_manifest(tmp_path)


@given(st.binary(max_size=2000))
def test_an_entry_has_the_size_and_sha256_of_its_file(content: bytes) -> None:
    """R-E01: streamed reading changes nothing."""
    assert sha256(content).hexdigest() == _entry_of_content(content).sha256
    assert len(content) == _entry_of_content(content).bytes


def _entry_of_content(content: bytes) -> FileEntry:
    file = Path("/dev/shm") / f"membudget-{sha256(content).hexdigest()}"
    file.write_bytes(content)
    try:
        return entry_of(file)
    finally:
        file.unlink()


def test_sound_files_pass_and_longer_than_a_block_too(tmp_path: Path) -> None:
    """R-E01: a file of 2 MB is two blocks and a rest."""
    (tmp_path / "index.faiss").write_bytes(_CONTENT)

    verify(tmp_path, _manifest())


@pytest.mark.parametrize(
    ("content", "reason"), [(_CONTENT[:-1], "bytes"), (b"V" + _CONTENT[1:], "sha256"), (None, "cannot be read")]
)
def test_a_cut_changed_or_missing_file_is_damaged(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """R-E01: FAISS and SQLite never see bytes that the builder did not write."""
    if content is not None:
        (tmp_path / "index.faiss").write_bytes(content)

    with pytest.raises(FileDamaged, match=f"index.faiss.*{reason}"):
        verify(tmp_path, _manifest())
