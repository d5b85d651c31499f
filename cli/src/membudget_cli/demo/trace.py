"""Queries as agents ask them: made from the corpus, skewed, the same in every run.

Covers: texts from names and docstrings of real code, drawn by a Zipf law. Does not cover asking (`agents`).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from membudget_engine.ingest.python_source import IngestReport, python_chunks

SEED: Final = 20261120
SKEW: Final = 0.8
"""Exponent of the Zipf law: the most asked query is asked often, but most of the queries are asked too."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question to one collection."""

    collection: str
    text: str


def distinct_queries(collection: str, root: Path, count: int) -> list[Query]:
    """The first `count` distinct questions that the corpus suggests, in an order that does not follow its files."""
    texts = {_question(chunk.name, chunk.docstring) for chunk in python_chunks(root, IngestReport())}
    ordered = sorted(text for text in texts if text)
    random.Random(SEED).shuffle(ordered)  # noqa: S311  a trace, not a secret
    return [Query(collection, text) for text in ordered[:count]]


def skewed(queries: list[Query], seed: int) -> Iterator[Query]:
    """Queries without end, the first ones most often."""
    weights = list(itertools.accumulate(1 / rank**SKEW for rank in range(1, len(queries) + 1)))
    generator = random.Random(seed)  # noqa: S311  a trace, not a secret
    while True:
        yield generator.choices(queries, cum_weights=weights)[0]


def _question(name: str, docstring: str) -> str:
    """`Pool.connection` and its first sentence become `pool connection: hold a connection`."""
    words = " ".join(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)).lower()
    sentence = docstring.strip().split("\n", 1)[0].strip()
    return f"{words}: {sentence}"[:200] if sentence else words
