"""Cached answers across a restart: with their vectors, and only for the generation they were found in.

Covers: what a persist writes of the semantic cache, and taking it back. Does not cover the file
(`membudget_runtime.entry_file`) nor when (`membudget_runtime.persistence`).
"""

from __future__ import annotations

from collections.abc import Iterator

from membudget_contract.policy import Priority
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_runtime.entry_file import KeptEntry


class KeptAnswers:
    """The `Persistent` of a semantic cache. The attachment of an entry is its query's vector."""

    def __init__(self, cache: SemanticCache, catalog: Catalog) -> None:
        self._cache = cache
        self._catalog = catalog

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """The answers of one class, the last to go first."""
        for entry in self._cache.answers.saved(priority):
            vector = self._cache.vector(entry.collection, entry.key)
            if vector is not None:
                yield entry._replace(attachment=vector.tobytes())

    def restore(self, kept: KeptEntry) -> bool:
        """Take an answer back when the generation it was found in is served."""
        opened = self._catalog.collections.get(kept.collection)
        if opened is None or not self._cache.is_of(kept.key, opened.tag):
            return False
        return self._cache.restore(kept)
