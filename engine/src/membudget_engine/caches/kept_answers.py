"""Cached answers across a restart: only for the generation they were found in.

What was found is rows (`found_rows`). Those of a generation mean the same in the next life; those written since it was
sealed are numbered anew from the write log, so that answers with such end with the life that found them.

Covers: what a persist writes of the semantic cache, and taking it back. Does not cover the file
(`membudget_runtime.entry_file`) nor when (`membudget_runtime.persistence`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from membudget_contract.policy import Priority
from membudget_engine.caches.found_rows import unpacked_rows
from membudget_engine.caches.semantic_cache import SemanticCache, found_in, kept_value
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import SpillDamaged

FORM: Final = b"rows, int8"
"""The attachment of every entry: an engine that kept answers otherwise had another, or none."""


class KeptAnswers:
    """The `Persistent` of a semantic cache."""

    def __init__(self, cache: SemanticCache, catalog: Catalog) -> None:
        self._cache = cache
        self._catalog = catalog

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """The answers of one class, the last to go first."""
        for entry in self._cache.answers.saved(priority):
            if self._outlives(entry):
                yield entry._replace(attachment=FORM)

    def restore(self, kept: KeptEntry) -> bool:
        """Take an answer back when the generation it was found in is served."""
        opened = self._catalog.collections.get(kept.collection)
        if kept.attachment != FORM or opened is None or not self._cache.is_of(kept.key, opened.tag):
            return False
        try:
            sealed = _is_sealed(opened, kept)
        except (SpillDamaged, struct.error):
            return False
        return sealed and self._cache.restore(kept)

    def _outlives(self, entry: KeptEntry) -> bool:
        opened = self._catalog.collections.get(entry.collection)
        return opened is not None and _is_sealed(opened, entry)


def _is_sealed(opened: Collection, entry: KeptEntry) -> bool:
    """Whether every row that was found is the generation's. Raises SpillDamaged, struct.error: it holds no rows."""
    return all(opened.is_sealed(row) for _, row in unpacked_rows(found_in(kept_value(entry))))
