"""Covers the manifest of a generation: what it holds, reading and writing it, and checking the files it lists.

It does not cover which generation is the newest (generations) nor opening one (mapped). It is written last, so a
folder that has a manifest is complete; and it is checked before any other file is parsed, so that FAISS and SQLite
never see bytes that the builder did not write.

A generation has one segment, which lies in its own folder, or several, each in a folder of its own below and with a
manifest of its own inside the generation's (`generations.segment_folders`).
"""

import hashlib
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from membudget_contract.decoding import decode_json
from membudget_engine.errors import FileDamaged, ManifestInvalid

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.f32"
CODES_FILE = "codes.faiss"
ROWS_FILE = "rows.f16"
ORDER_FILE = "order.i32"
DEAD_FILE = "dead.bits"
REDUCTION_FILE = "reduction.pca"

MOST_SEGMENTS = 48
"""In one generation: their manifests take up to 1.8 kB each of the 128 that are read at most."""

IndexType = Literal["Flat", "IVFFlat", "Scalar", "IVFScalar", "IVFRaBitQ"]

Representation = Literal["Exact", "Float16", "Int8", "Compact"]
"""Exact: float32 vectors, mapped. Float16, Int8: half and a quarter of their bytes, mapped, Int8 with a range for each
dimension. Compact: codes in memory and mapped float16 rows (docs/decisions/0013)."""

_SEARCHED_FILES = (INDEX_FILE, CODES_FILE, ROWS_FILE, ORDER_FILE)
_BLOCK_BYTES = 1024 * 1024
_MAX_MANIFEST_BYTES = 128 * 1024

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_FileName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,99}\Z")]
"""A plain name: a path would let a manifest reach out of its folder."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and content of one file."""

    bytes: _Count
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class ComparedFile(NamedTuple):
    """A file whose content was found to be that of its entry, as it was just before: it need not be read again.

    Whoever changes it in place changes a time of it, the second one also where the first is set back.
    """

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int
    sha256: str


class Reduced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That vectors have fewer places than the embedder gave them, as `reduction.pca` has it, and what it cost."""

    full_dimension: _Positive
    """Of the embedder's vectors, and of those that queries and writes bring."""
    explained: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Of the variance of those it was fitted on."""
    recall: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Of the true ten neighbours among whole vectors, found among reduced ones, when it was fitted."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a generation holds, or one segment of it. Two manifests are equal when their generations are.

    Of several segments, `count` is the sum, `recall` the least, and what is said of the index is that of the largest.
    """

    version: Literal[1, 2] = 2
    """1 has one segment: what was written before there were several is read as it is."""
    collection: str
    generation: _Positive
    """Of a segment: the one that was published with it first, which names its folder."""
    count: _Positive
    """Vectors, and chunks: row n of the store belongs to vector n. Dead ones too."""
    dimension: _Positive
    index_type: IndexType
    nlist: _Count
    """Inverted lists; 0 for Flat and Scalar."""
    nprobe: _Count
    """Lists that a query looks into; 0 for Flat and Scalar. At most, where there is a margin."""
    probe_margin: float | None = None
    """How much less alike than the nearest ones a list that a query looks into may be (compact_scan); None where it
    looks into as many as it may, and but for Compact."""
    representation: Representation = "Exact"
    code_bits: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    """Of each place of a vector in memory; 0 but for Compact."""
    rerank: _Count = 0
    """Rows compared for ten hits; 0 but for Compact."""
    recall: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Of the true ten neighbours at these figures, in a sample of the collection's own rows; None when not measured."""
    sealed: _Count = 0
    """Writes of the collection's log up to this number are in it; 0 for a generation that no writer sealed."""
    embedder: str
    """Name of the embedder; a query must be embedded by the same."""
    reduction: Reduced | None = None
    """None where vectors are as the embedder gave them."""
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    """UTC."""
    files: dict[_FileName, FileEntry]
    """In this folder itself."""
    dead_rows: _Count = 0
    """Rows that were replaced or deleted since their segment was written, as `dead.bits` has them."""
    segments: Annotated[tuple["Manifest", ...], msgspec.Meta(max_length=MOST_SEGMENTS)] = ()
    """Oldest first, their rows numbered through; none where the folder itself is the only one."""

    @property
    def full_dimension(self) -> int:
        """Of the vectors that queries and writes bring."""
        return self.dimension if self.reduction is None else self.reduction.full_dimension

    @property
    def index_bytes(self) -> int:
        """Of the files that a search reads."""
        own = sum(self.files[name].bytes for name in _SEARCHED_FILES if name in self.files)
        return own + sum(segment.index_bytes for segment in self.segments)


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Writes the manifest and gives its path; syncing is the builder's.

    Raises ManifestInvalid for one that nobody would read, OSError.
    """
    file = directory / MANIFEST_FILE
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    if len(content) > _MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{file} would have {len(content)} bytes, of {_MAX_MANIFEST_BYTES} that are read")
    file.write_bytes(content)
    return file


def read_manifest(directory: Path) -> Manifest:
    """Raises ManifestInvalid when it is missing, larger than 128 kB, no manifest, or of another version."""
    file = directory / MANIFEST_FILE
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            # Opening a pipe would wait for somebody who writes.
            raise ManifestInvalid(f"{file} is no plain file: remove it")
        with file.open("rb") as stream:
            raw = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(f"{file} cannot be read ({error.strerror}): the generation is incomplete") from error
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{file} is larger than {_MAX_MANIFEST_BYTES} bytes: it is no manifest; rebuild")
    try:
        manifest = decode_json(raw, Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"{file}: {error}; rebuild, or use the membudget version that wrote it") from error
    _check_segments(file, manifest)
    for segment in manifest.segments or (manifest,):
        _check_lists(file, segment)
    return manifest


def entry_of(file: Path) -> FileEntry:
    """Size and sha256 of a file, read in blocks of 1 MB. Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileEntry(bytes=size, sha256=digest.hexdigest())


def verify(
    directory: Path, manifest: Manifest, compared: frozenset[ComparedFile] = frozenset()
) -> frozenset[ComparedFile]:
    """Compares every listed file with its entry, but those that were; gives all of them. Raises FileDamaged."""
    return frozenset(verify_file(directory, manifest, name, compared) for name in manifest.files)


def verify_file(
    directory: Path, manifest: Manifest, name: str, compared: frozenset[ComparedFile] = frozenset()
) -> ComparedFile:
    """Compares one listed file with its entry, unless it was. Raises FileDamaged."""
    file, expected = directory / name, manifest.files[name]
    try:
        now = _as_it_is(file, expected.sha256)
        sized = now.bytes == expected.bytes
        found = entry_of(file) if sized and now not in compared else None
    except OSError as error:
        raise FileDamaged(f"{file} cannot be read ({error.strerror}): rebuild the generation") from error
    if not sized:
        raise FileDamaged(f"{file} has {now.bytes} bytes, its manifest says {expected.bytes}: rebuild the generation")
    if found not in {None, expected}:
        raise FileDamaged(f"{file} has another sha256 than its manifest says: rebuild the generation")
    return now


def _as_it_is(file: Path, sha256: str) -> ComparedFile:
    told = file.stat()
    return ComparedFile(told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns, sha256)


def _check_segments(file: Path, manifest: Manifest) -> None:
    """Every row is in one segment, and all of them are of one kind."""
    segments = manifest.segments
    if not segments:
        if manifest.dead_rows or DEAD_FILE in manifest.files:
            raise ManifestInvalid(f"{file} has dead rows and no segment that they are in; rebuild")
        return
    numbers = {segment.generation for segment in segments}
    kinds = {
        (one.collection, one.dimension, one.representation, one.embedder, one.reduction)
        for one in (manifest, *segments)
    }
    sums = sum(segment.count for segment in segments) == manifest.count > manifest.dead_rows
    nested = any(segment.segments or segment.dead_rows for segment in segments)
    dead = manifest.files.get(DEAD_FILE, FileEntry(bytes=0, sha256="0" * 64)).bytes
    wanted = sum(-(-segment.count // 8) for segment in segments) if manifest.dead_rows else 0
    whole = len(numbers) == len(segments) and max(numbers) <= manifest.generation and manifest.version > 1
    if len(kinds) > 1 or not sums or nested or dead != wanted or not whole:
        raise ManifestInvalid(
            f"{file}: its {len(segments)} segments do not make up the generation it speaks of; rebuild"
        )


def _check_lists(file: Path, manifest: Manifest) -> None:
    """What the field types cannot say: lists, probes and codes fit the type of the index and its representation."""
    if manifest.index_type in {"Flat", "Scalar"}:
        fits = (manifest.nlist, manifest.nprobe) == (0, 0)
    else:
        fits = 1 <= manifest.nprobe <= manifest.nlist <= manifest.count
    if not fits:
        raise ManifestInvalid(
            f"{file}: nlist {manifest.nlist} and nprobe {manifest.nprobe} do not fit a {manifest.index_type} index of "
            f"{manifest.count} vectors; rebuild"
        )
    compact = manifest.representation == "Compact"
    kinds = manifest.index_type == "IVFRaBitQ", manifest.code_bits > 0, manifest.rerank > 0
    scalar = manifest.index_type in {"Scalar", "IVFScalar"}
    missing = {CODES_FILE, ROWS_FILE, ORDER_FILE} - manifest.files.keys()
    whole = all(kind is compact for kind in kinds) and (compact or manifest.probe_margin is None)
    if not whole or scalar != (manifest.representation in {"Float16", "Int8"}):
        raise ManifestInvalid(
            f"{file}: index {manifest.index_type}, {manifest.code_bits} bits and a rerank of {manifest.rerank} do not "
            f"fit the representation {manifest.representation}; rebuild"
        )
    if compact and missing:
        raise ManifestInvalid(f"{file} lists no {', '.join(sorted(missing))}: the generation is incomplete; rebuild")
