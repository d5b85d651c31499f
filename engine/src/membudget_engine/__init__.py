"""The retrieval engine: finds code chunks by meaning, inside bounds that hold with no sidecar at all.

Folders by what holds bytes: `index` (mapped FAISS), `stores` (SQLite), `caches`; `ingest` reads source trees.
Above them `search`, `search_api`, `lifecycle`. Does not decide when to give bytes back: the runtime's bounds and
the sidecar's ladder do.
"""
