"""Covers the manifest of a generation: what it holds, reading and writing it, and checking the files it lists.

It does not cover which generation is the newest (generations) nor opening one (mapped). It is written last, so a
folder that has a manifest is complete; and it is checked before any other file is parsed, so that FAISS and SQLite
never see bytes that the builder did not write.
"""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from membudget_engine.errors import FileDamaged, ManifestInvalid

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.f32"
CODES_FILE = "codes.faiss"
ROWS_FILE = "rows.f16"
ORDER_FILE = "order.i32"

IndexType = Literal["Flat", "IVFFlat", "Scalar", "IVFScalar", "IVFRaBitQ"]

Representation = Literal["Exact", "Float16", "Int8", "Compact"]
"""Exact: float32 vectors, mapped. Float16, Int8: half and a quarter of their bytes, mapped, Int8 with a range for each
dimension. Compact: codes in memory and mapped float16 rows (docs/decisions/0013)."""

_SEARCHED_FILES = (INDEX_FILE, CODES_FILE, ROWS_FILE, ORDER_FILE)
_BLOCK_BYTES = 1024 * 1024
_MAX_MANIFEST_BYTES = 64 * 1024

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_FileName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,99}\Z")]
"""A plain name: a path would let a manifest reach out of its folder."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and content of one file."""

    bytes: _Count
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a generation holds. Two manifests are equal when their generations are."""

    version: Literal[1] = 1
    collection: str
    generation: _Positive
    count: _Positive
    """Vectors, and chunks: row n of the store belongs to vector n."""
    dimension: _Positive
    index_type: IndexType
    nlist: _Count
    """Inverted lists; 0 for Flat and Scalar."""
    nprobe: _Count
    """Lists that a query looks into; 0 for Flat and Scalar."""
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
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    """UTC."""
    files: dict[_FileName, FileEntry]

    @property
    def index_bytes(self) -> int:
        """Of the files that a search reads."""
        return sum(self.files[name].bytes for name in _SEARCHED_FILES if name in self.files)


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Writes the manifest and gives its path; syncing is the builder's. Raises OSError."""
    file = directory / MANIFEST_FILE
    file.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return file


def read_manifest(directory: Path) -> Manifest:
    """Raises ManifestInvalid when it is missing, larger than 64 kB, no manifest, or of another version."""
    file = directory / MANIFEST_FILE
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(f"{file} cannot be read ({error.strerror}): the generation is incomplete") from error
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{file} is larger than {_MAX_MANIFEST_BYTES} bytes: it is no manifest; rebuild")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"{file}: {error}; rebuild, or use the membudget version that wrote it") from error
    _check_lists(file, manifest)
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


def verify(directory: Path, manifest: Manifest) -> None:
    """Compares every listed file with its entry; the size first, for it costs nothing. Raises FileDamaged."""
    for name, expected in manifest.files.items():
        file = directory / name
        try:
            size = file.stat().st_size
            found = entry_of(file) if size == expected.bytes else None
        except OSError as error:
            raise FileDamaged(f"{file} cannot be read ({error.strerror}): rebuild the generation") from error
        if found is None:
            raise FileDamaged(f"{file} has {size} bytes, its manifest says {expected.bytes}: rebuild the generation")
        if found != expected:
            raise FileDamaged(f"{file} has another sha256 than its manifest says: rebuild the generation")


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
    if any(kind is not compact for kind in kinds) or scalar != (manifest.representation in {"Float16", "Int8"}):
        raise ManifestInvalid(
            f"{file}: index {manifest.index_type}, {manifest.code_bits} bits and a rerank of {manifest.rerank} do not "
            f"fit the representation {manifest.representation}; rebuild"
        )
    if compact and missing:
        raise ManifestInvalid(f"{file} lists no {', '.join(sorted(missing))}: the generation is incomplete; rebuild")
