"""What a policy says of caches: how values are held, and how many files and queries.

Covers: `spec.caches`, and the two numbers that a collection may have of its own (R-E22). Does not cover bytes: those
are ceilings of components in `spec.budget`.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from membudget_contract.policy_part import PolicyPart

MOST_LOADED_FILES: Final = 1000
MOST_CACHED_QUERIES: Final = 500
"""Of one engine, whatever a policy asks for."""

LoadedFiles = Annotated[int, Meta(ge=1, le=MOST_LOADED_FILES)]
CachedQueries = Annotated[int, Meta(ge=1, le=MOST_CACHED_QUERIES)]


class CachesPolicy(PolicyPart, frozen=True, kw_only=True):
    """How caches hold their values, and how many."""

    compression: Annotated[
        bool | None,
        Meta(
            description="Whether caches compress a value where that saves more than 20 % of it: less memory, "
            "more CPU time.",
            examples=[False],
        ),
    ] = None
    max_loaded_files: Annotated[
        LoadedFiles | None,
        Meta(description="How many source files the engine keeps in memory, over all collections.", examples=[500]),
    ] = None
    max_cached_queries: Annotated[
        CachedQueries | None,
        Meta(
            description="How many queries the engine's query cache keeps, over all collections. The semantic cache "
            "is bounded by bytes alone.",
            examples=[250],
        ),
    ] = None
