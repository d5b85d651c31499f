"""What a Python service embeds to have its memory managed.

Covers: a ledger of every byte that is held on purpose, byte-bounded caches that evict and spill by priority,
and the control socket over which a sidecar moves budgets. Its bounds hold with no sidecar at all. Knows nothing
of vectors and brings no framework and no numpy along. Does not decide when to act: that is the sidecar's ladder.
"""
