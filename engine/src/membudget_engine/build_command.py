"""Builds collections from source trees and files, one after the other, with progress.

Covers: what `membudget-engine build` does. Does not cover one generation (`index.build`) nor parsing (`ingest`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec

from membudget_contract.policy import CollectionName
from membudget_engine.embedder import BUILD_TOKENS, HashingEmbedder
from membudget_engine.errors import BuildFailed
from membudget_engine.index.build import build_collection
from membudget_engine.index.manifest import Representation
from membudget_engine.index.staged_build import Ingestion, Progress, ingest
from membudget_engine.ingest.document_source import FIELDS, DocumentSource, Keys
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root
from membudget_engine.ingest.record import Source, Step
from membudget_engine.ingest.vector_source import VectorSource
from membudget_engine.settings import processors

PROGRESS_SECONDS = 2.0
MEMORY_BYTES = 512 * 1024 * 1024
"""For building from a file, beside what a bare process takes."""

VECTOR_FILES = (".npy", ".fvecs")
FILES = (".json", ".ndjson", ".jsonl", *VECTOR_FILES)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileSteps:
    """What is done to the documents of files, in this order."""

    keys: Sequence[str] = ()
    """FIELD=KEY: the chunk's field is the document's value under the key."""
    only: Sequence[str] = ()
    """FIELD=PATTERN: chunks whose field does not match, as file names do, are left out."""


def build_sources(
    data_folder: Path,
    sources: Sequence[str],
    representations: Sequence[str] = (),
    *,
    memory_bytes: int = MEMORY_BYTES,
    file_steps: FileSteps | None = None,
) -> None:
    """Build one collection per source: `stdlib`, or `NAME=PATH`; Exact, or as `NAME=REPRESENTATION` says.

    A path is a source tree, or a file: .json, .ndjson, .jsonl, .npy, .fvecs.

    Raises:
        BuildFailed: a source is written wrongly, is neither folder nor file of those, or has the name of another, or a
            representation is unknown or for no source; nothing is built then. Or not enough memory for an index.
    """
    roots = _names_and_roots(sources)
    chosen = _chosen(representations, roots)
    steps = FileSteps() if file_steps is None else file_steps
    keys, filters = _keys(steps.keys), [_filter(text) for text in steps.only]
    for name, root in roots.items():
        started = time.monotonic()
        told = _Progress(name)
        embedder = HashingEmbedder(cached_tokens=BUILD_TOKENS)
        representation = chosen.get(name, "Exact")
        if root.is_dir():
            report = IngestReport()
            generation = build_collection(
                collection=name,
                chunks=python_chunks(root, report),
                embedder=embedder,
                target=data_folder / name,
                threads=processors(),
                progress=told,
                representation=representation,
            )
            read, skipped = f"{report.files} files", f"; {len(report.skipped)} files skipped"
        else:
            source = _file_source(root, keys)
            ingestion = Ingestion(
                collection=name,
                source=source,
                target=data_folder / name,
                embedder=embedder,
                threads=processors(),
                memory_bytes=memory_bytes,
                representation=representation,
                steps=tuple(filters),
                step_names=tuple(steps.only),
            )
            generation = ingest(ingestion, partial(told.of_file, source.extent.end))
            read, skipped = root.name, ""
        manifest = generation.manifest
        log.info(
            "%s: %d chunks of %s, %s, generation %d, %.1f s%s",
            name, manifest.count, read, manifest.index_type, manifest.generation, time.monotonic() - started, skipped,
        )  # fmt: skip


def _file_source(file: Path, keys: Keys) -> Source:
    return VectorSource(file) if file.suffix in VECTOR_FILES else DocumentSource(file, keys)


def _keys(texts: Sequence[str]) -> Keys:
    pairs = [text.partition("=") for text in texts]
    for text, (field, _, key) in zip(texts, pairs, strict=True):
        if field not in FIELDS or not key:
            raise BuildFailed(f"{text!r}: write FIELD=KEY with a field of {', '.join(FIELDS)}")
    return Keys({field: key for field, _, key in pairs})


def _filter(text: str) -> Step:
    field, _, pattern = text.partition("=")
    if field not in FIELDS or field == "vector" or not pattern:
        raise BuildFailed(f"{text!r}: write FIELD=PATTERN with a field of {', '.join(FIELDS[:-1])}")
    return lambda chunk: chunk if fnmatchcase(getattr(chunk, field), pattern) else None


def _names_and_roots(sources: Sequence[str]) -> dict[str, Path]:
    """All sources, checked before the first build: it may take minutes."""
    roots: dict[str, Path] = {}
    for source in sources:
        name, root = _name_and_root(source)
        if name in roots:
            raise BuildFailed(f"{source!r}: two sources for {name!r}, the second would replace the first")
        roots[name] = root
    return roots


def _chosen(representations: Sequence[str], names: Collection[str]) -> dict[str, Representation]:
    """The representation of each collection that one is named for."""
    chosen: dict[str, Representation] = {}
    for text in representations:
        name, _, representation = text.partition("=")
        if name not in names or name in chosen:
            raise BuildFailed(f"{text!r}: write one NAME=REPRESENTATION for a source that is built, not for {name!r}")
        try:
            chosen[name] = msgspec.convert(representation, Representation)
        except msgspec.ValidationError:
            known = ", ".join(get_args(Representation))
            raise BuildFailed(f"{text!r}: {representation!r} is no representation: one of {known}") from None
    return chosen


def _name_and_root(source: str) -> tuple[str, Path]:
    if source == "stdlib":
        return source, standard_library_root()
    name, separator, path = source.partition("=")
    root = Path(path)
    if not separator or not path or not (root.is_dir() or (root.is_file() and root.suffix in FILES)):
        files = ", ".join(FILES)
        raise BuildFailed(f"{source!r} is no source: write stdlib, or NAME=PATH with PATH a folder or a file: {files}")
    try:
        return msgspec.convert(name, CollectionName), root
    except msgspec.ValidationError:
        raise BuildFailed(
            f"{source!r}: {name!r} is no name: up to 63 letters, digits, '.', '_' and '-', a letter or digit first"
        ) from None


class _Progress:
    """A log line every two seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told_at = time.monotonic()

    def __call__(self, chunks: int) -> None:
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            log.info("%s: %d chunks", self._name, chunks)

    def of_file(self, end: int, done: Progress) -> None:
        """Of a file, with the share of it that is read."""
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            share = f", {100 * done.position // end} % of the source" if end else ""
            log.info("%s: %d chunks%s", self._name, done.rows, share)
