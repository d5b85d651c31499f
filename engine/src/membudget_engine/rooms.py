"""All rooms of an engine that hold what can be had again, or what somebody said: one place where they are made.

Covers: creating them, what a new generation drops, the list for metrics and reports. Does not cover what each holds:
see its module in `caches`. How the three caches of answers divide their work: docs/caches.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from membudget_engine.caches.cached_embedder import CachedEmbedder
from membudget_engine.caches.counted_cache import CountingCache
from membudget_engine.caches.embedding_cache import EMBEDDING_CACHE, EmbeddingCache
from membudget_engine.caches.file_cache import FileCache
from membudget_engine.caches.history_cache import HistoryCache
from membudget_engine.caches.query_cache import QueryCache
from membudget_engine.caches.response_cache import ResponseCache
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.caches.session_pool import SESSIONS, SessionPool
from membudget_engine.embedder import QueryEmbedder
from membudget_engine.errors import CollectionMissing
from membudget_engine.stores.commit_log import CommitLog
from membudget_engine.stores.source_tree import SourceTree
from membudget_runtime.memory_runtime import MemoryRuntime


class Rooms:
    """The rooms of one engine, all in the ledger."""

    def __init__(self, runtime: MemoryRuntime, embedder: QueryEmbedder, trees: Mapping[str, SourceTree]) -> None:
        """`trees` by collection."""
        self.embeddings = EmbeddingCache(runtime, embedder.name, embedder.dimension)
        self.embedder = CachedEmbedder(embedder, self.embeddings) if embedder.worth_keeping else embedder
        """For whoever embeds while the engine serves."""
        self.semantic = SemanticCache(runtime, embedder.dimension)
        self.queries = QueryCache(runtime)
        self.responses = ResponseCache(runtime)
        self.files = FileCache(runtime, trees)
        self.histories = HistoryCache(runtime, trees, CommitLog())
        self.sessions = SessionPool(runtime)
        runtime.on_persist(SESSIONS, self.sessions)
        runtime.on_persist(EMBEDDING_CACHE, self.embeddings)

    @property
    def caches(self) -> Sequence[CountingCache]:
        """Every cache, by its name the component it counts as."""
        return (
            self.semantic.answers,
            self.queries.kept,
            self.responses.kept,
            self.files.kept,
            self.histories.kept,
            self.sessions.kept,
            self.embeddings,
        )

    def forget(self, collection: str) -> None:
        """The collection's generation changed: what was found in the old one answers nobody any more.

        Vectors of texts were not found in it: they stay.
        """
        for cache in (self.semantic.answers, self.queries.kept, self.responses.kept, self.histories.kept):
            cache.drop(collection)

    def close(self) -> None:
        """End what runs by itself; what is held stays, to be persisted."""
        self.sessions.close()


def source_trees(sources: Sequence[tuple[str, Path]], collections: Collection[str]) -> dict[str, SourceTree]:
    """The trees by collection.

    Raises:
        CollectionMissing: one is named for a collection that is not served, or two for one.
        NotADirectoryError: a path is no folder.
    """
    trees: dict[str, SourceTree] = {}
    for name, root in sources:
        if name not in collections or name in trees:
            raise CollectionMissing(f"--source {name}={root}: name one tree, for a collection that is served")
        trees[name] = SourceTree(root)
    return trees
