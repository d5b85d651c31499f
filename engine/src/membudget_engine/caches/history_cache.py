"""The commit history of source files, asked of git when somebody wants it, bounded by bytes.

Covers: which files have one (those that the served generation indexed), keeping it for ten minutes, dropping it with
the generation. Does not cover git (`stores.commit_log`). The bytes are the component `historyCache`, a fifth of the
built-in budget; entries are compressed, spilled and evicted as those of every byte-bounded cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from membudget_contract.profiles import HISTORY_CACHE
from membudget_engine.collection import Collection
from membudget_engine.errors import FileMissing
from membudget_engine.stores.commit_log import Commit, CommitLog
from membudget_engine.stores.source_tree import SourceTree
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

TTL_SECONDS: Final = 600.0
"""A commit made meanwhile is seen after that at the latest."""

_DIGEST_BYTES: Final = 16


class FileHistory(msgspec.Struct, frozen=True):
    """Newest first."""

    collection: str
    path: str
    commits: tuple[Commit, ...]


class HistoryCache:
    """Encoded histories by collection, generation and path. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime, trees: Mapping[str, SourceTree], log: CommitLog) -> None:
        """`trees` by collection."""
        self._trees = trees
        self._log = log
        self.kept: BoundedCache[bytes] = runtime.cache(HISTORY_CACHE, ttl_seconds=TTL_SECONDS)

    def history(self, opened: Collection, path: str) -> bytes:
        """The encoded `FileHistory`.

        Raises:
            FileMissing: no tree is served for the collection, or the path is of no indexed file.
            HistoryUnavailable: git could not tell.
        """
        tree = self._trees.get(opened.name)
        if tree is None:
            raise FileMissing(f"no source tree is served for {opened.name!r}: name it with --source")
        digest = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES)
        key = opened.tag + digest.digest()
        known = self.kept.get(opened.name, key)
        if known is not None:
            return known
        file = tree.file(path)
        if not opened.chunks.has_path(path):
            raise FileMissing(f"{path!r} was not indexed: no chunk of {opened.name!r} is of it")
        history = FileHistory(opened.name, path, tuple(self._log.commits(tree.root, file)))
        encoded = msgspec.json.encode(history)
        self.kept.put(key, encoded, opened.name)
        return encoded
