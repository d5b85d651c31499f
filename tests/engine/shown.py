"""Chunks as answers show them, decoded."""

from collections.abc import Sequence

from membudget_contract.decoding import decode_json
from membudget_engine.collection import Collection
from membudget_engine.ingest.chunk import Chunk


def shown_chunks(collection: Collection, rows: Sequence[int]) -> list[Chunk]:
    """Of rows that were found; without those deleted meanwhile."""
    return [decode_json(bytes(text), Chunk) for text in collection.texts_at(rows) if text is not None]
