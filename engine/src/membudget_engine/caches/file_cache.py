"""Texts of source files, kept by number and bytes: at most so many of the engine, and of one collection.

Covers: the text of a file from memory as long as the file is the same, else from its tree. Does not cover which files
there are (`stores.source_tree`). The numbers are a policy's: `maxLoadedFiles`. Texts are kept as they are: to inflate
one takes longer than to read its file from the page cache, and to compress it ten times as long.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Final

from membudget_contract.control_api import Budgets
from membudget_contract.plan import LOADED_FILES, LOADED_FILES_EACH
from membudget_contract.quantities import MIB
from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_engine.caches.packed_together import Packs
from membudget_engine.errors import FileMissing
from membudget_engine.stores.source_tree import SourceTree
from membudget_runtime.memory_runtime import MemoryRuntime

FILE_CACHE: Final = "fileCache"
TTL_SECONDS: Final = 3600.0
MAX_BYTES: Final = MIB
"""Where no plan names a ceiling: 50 files of 20 kB. A file that is not kept is read from the page cache in 80 us."""

_DIGEST_BYTES: Final = 16
_STAMP: Final = struct.Struct("<QQq")


class FileCache:
    """Texts by collection and path. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime, trees: Mapping[str, SourceTree]) -> None:
        """`trees` by collection."""
        self._trees = trees
        self.kept = CountedCache(
            FILE_CACHE,
            runtime,
            counts=Counts(LOADED_FILES, LOADED_FILES_EACH),
            max_bytes=MAX_BYTES,
            ttl_seconds=TTL_SECONDS,
            packs=Packs.NEVER,
            counts_of=_counts,
        )

    def text(self, collection: str, path: str) -> bytes:
        """The file's text, UTF-8, as it is on disk now.

        Raises:
            FileMissing: no tree is served for the collection, or it has no such file.
        """
        tree = self._trees.get(collection)
        if tree is None:
            raise FileMissing(f"no source tree is served for {collection!r}: name it with --source")
        key = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        stamp = _STAMP.pack(*tree.stamp(path))
        stored = self.kept.get(collection, key)
        if stored is not None and stored.startswith(stamp):
            return stored[_STAMP.size :]
        read, text = tree.read(path)
        self.kept.put(collection, key, _STAMP.pack(*read) + text)
        return text


def _counts(budgets: Budgets) -> Counts:
    named = {plan.name: plan.max_loaded_files for plan in budgets.collections}
    return Counts(budgets.max_loaded_files, LOADED_FILES_EACH, named)
