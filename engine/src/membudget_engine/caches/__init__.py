"""Caches of the engine, on the runtime's byte-bounded cache: answers to queries, found again by meaning."""
