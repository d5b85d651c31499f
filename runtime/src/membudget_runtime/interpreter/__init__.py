"""What Python itself holds and does in this process: garbage collection, objects, where they were allocated.

Covers: `gc_tuner` and `gc_pauses` (when it collects, and for how long), `leak_detector` with `object_counts`,
`allocation_sites` and `reference_cycles` (what grows, and who holds it). Does not cover bytes that the runtime manages
(`ledger`, `cache`) nor the kernel's figures (`own_memory`).
"""
