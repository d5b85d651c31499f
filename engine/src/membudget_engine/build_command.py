"""Builds collections from source trees, one after the other, with progress.

Covers: what `membudget-engine build` does. Does not cover one generation (`index.build`) nor parsing (`ingest`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from membudget_contract.policy import CollectionName
from membudget_engine.embedder import BUILD_TOKENS, HashingEmbedder
from membudget_engine.errors import BuildFailed
from membudget_engine.index.build import build_collection
from membudget_engine.index.manifest import Representation
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root
from membudget_engine.settings import processors

PROGRESS_SECONDS = 2.0

log = logging.getLogger(__name__)


def build_sources(data_folder: Path, sources: Sequence[str], representations: Sequence[str] = ()) -> None:
    """Build one collection per source: `stdlib`, or `NAME=PATH`; Exact, or as `NAME=REPRESENTATION` says.

    Raises:
        BuildFailed: a source is written wrongly, is no folder, or has the name of another, or a representation is
            unknown or for no source; nothing is built then.
    """
    roots = _names_and_roots(sources)
    chosen = _chosen(representations, roots)
    for name, root in roots.items():
        report = IngestReport()
        started = time.monotonic()
        generation = build_collection(
            collection=name,
            chunks=python_chunks(root, report),
            embedder=HashingEmbedder(cached_tokens=BUILD_TOKENS),
            target=data_folder / name,
            threads=processors(),
            progress=_Progress(name),
            representation=chosen.get(name, "Exact"),
        )
        manifest = generation.manifest
        log.info(
            "%s: %d chunks of %d files, %s, generation %d, %.1f s; %d files skipped",
            name, manifest.count, report.files, manifest.index_type, manifest.generation,
            time.monotonic() - started, len(report.skipped),
        )  # fmt: skip


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
    if not separator or not path or not root.is_dir():
        raise BuildFailed(f"{source!r} is no source: write stdlib, or NAME=PATH with PATH a folder")
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
