"""Builds collections from source trees and files, one after the other, with progress.

Covers: what `membudget-engine build` does. Does not cover one generation (`index.build`) nor parsing (`ingest`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec

from membudget_contract.policy import CollectionName
from membudget_engine.embedder import BUILD_TOKENS
from membudget_engine.errors import BuildFailed
from membudget_engine.http_embedder import chosen_embedder
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import generation_directories
from membudget_engine.index.manifest import Representation
from membudget_engine.index.staged_build import Ingestion, Progress, ingest
from membudget_engine.ingest.document_source import DocumentSource, Keys
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root
from membudget_engine.ingest.record import Source
from membudget_engine.ingest.steps import FileSteps
from membudget_engine.ingest.stream_source import FILES, VECTOR_FILES
from membudget_engine.ingest.vector_source import VectorSource
from membudget_engine.reduction.reducing import DEFAULT_DIMENSION
from membudget_engine.settings import EmbeddingServer, processors

PROGRESS_SECONDS = 2.0
MEMORY_BYTES = 512 * 1024 * 1024
"""For building from a file, beside what a bare process takes."""

log = logging.getLogger(__name__)


def build_sources(  # noqa: PLR0913  each is an argument of the command
    data_folder: Path,
    sources: Sequence[str],
    representations: Sequence[str] = (),
    *,
    reductions: Sequence[str] = (),
    memory_bytes: int = MEMORY_BYTES,
    file_steps: FileSteps | None = None,
    embedding_server: EmbeddingServer | None = None,
    keep: bool = False,
) -> None:
    """Build one collection per source: `stdlib`, or `NAME=PATH`; Exact, or as `NAME=REPRESENTATION` says.

    Vectors have the places that they come with, or as many as `NAME=PLACES` says, or 256 for `NAME` alone, if they come
    with more.
    A path is a source tree, or a file: .json, .ndjson, .jsonl, .npy, .fvecs. With `keep` a collection that is there
    stays as it is: what is built before an engine starts must not replace what a writer took since.

    Raises:
        BuildFailed: a source is written wrongly, is neither folder nor file of those, or has the name of another, or a
            representation or a reduction is unknown or for no source; nothing is built then. Or not enough memory for
            an index, or a reduction that would lose too much.
    """
    roots = _names_and_roots(sources)
    chosen = _chosen(representations, roots)
    reduced = _reduced(reductions, roots)
    steps = FileSteps() if file_steps is None else file_steps
    keys, steps_of_files = steps.document_keys(), steps.filters()
    for name, root in roots.items():
        if keep and _is_there(data_folder / name):
            log.info("%s: is there and stays as it is", name)
            continue
        started = time.monotonic()
        told = _Progress(name)
        embedder = chosen_embedder(embedding_server, cached_tokens=BUILD_TOKENS)
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
                reduce_to=reduced.get(name),
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
                reduce_to=reduced.get(name),
                steps=steps_of_files,
                step_names=tuple(steps.only),
            )
            generation = ingest(ingestion, partial(told.of_file, source.extent.end))
            read, skipped = root.name, ""
        manifest = generation.manifest
        log.info(
            "%s: %d chunks of %s, %s, generation %d, %.1f s%s",
            name, manifest.count, read, manifest.index_type, manifest.generation, time.monotonic() - started, skipped,
        )  # fmt: skip
        if manifest.reduction is not None:
            log.info(
                "%s: vectors have %d places for %d, %.0f %% of the bytes; %.3f of the true neighbours are found",
                name, manifest.dimension, manifest.full_dimension,
                100 * manifest.dimension / manifest.full_dimension, manifest.reduction.recall,
            )  # fmt: skip


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and bool(generation_directories(folder))


def _file_source(file: Path, keys: Keys) -> Source:
    return VectorSource(file) if file.suffix in VECTOR_FILES else DocumentSource(file, keys)


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


def _reduced(reductions: Sequence[str], names: Collection[str]) -> dict[str, int]:
    """How many places the vectors of each collection are to have at most that this is said of."""
    reduced: dict[str, int] = {}
    for text in reductions:
        name, separator, places = text.partition("=")
        if name not in names or name in reduced:
            raise BuildFailed(f"{text!r}: write one NAME or NAME=PLACES for a source that is built, not for {name!r}")
        try:
            reduced[name] = int(places) if separator else DEFAULT_DIMENSION
        except ValueError:
            reduced[name] = 0
        if reduced[name] < 1:
            raise BuildFailed(f"{text!r}: {places!r} is no number of places")
    return reduced


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
