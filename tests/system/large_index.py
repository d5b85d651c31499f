"""A collection whose index is far larger than the engine's anonymous memory, and the questions that read parts of it.

Covers: building it once by the engine's own builder, which questions look into which pages of the file, and whether
those are in memory, asked of the kernel from outside the engine. Vectors are made, not embedded from text, so that a
test knows what is hot: each topic is the real embedding of two words and its chunks lie around it; topics of one family
share a word, so a question looks into the lists of its family first.
"""

from __future__ import annotations

import os
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import faiss
import numpy as np

from membudget_cli.demo.trace import Query
from membudget_engine.embedder import HashingEmbedder, Vectors
from membudget_engine.index.build import build_collection
from membudget_engine.index.faiss_reader import part_addresses, read_mapped
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE
from membudget_engine.index.page_advice import PAGE_BYTES, file_mapping_at
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.settings import processors
from page_cache import Pages

COLLECTION: Final = "large"
CHUNKS: Final = 210_000
"""Of 384 float32 and an id each: an index of 309 MiB in 458 lists."""
FAMILIES: Final = 46
TOPICS_PER_FAMILY: Final = 10
_NOISE: Final = 0.4
"""Length of what tells a chunk from its topic, a unit vector."""


def _words(seed: int, count: int) -> list[str]:
    letters = random.Random(seed)
    return ["".join(letters.choices(string.ascii_lowercase, k=8)) for _ in range(count)]


_FAMILY_WORDS: Final = _words(1, FAMILIES)
_TOPIC_WORDS: Final = _words(2, FAMILIES * TOPICS_PER_FAMILY)
TOPICS: Final = [f"{_FAMILY_WORDS[number % FAMILIES]} {word}" for number, word in enumerate(_TOPIC_WORDS)]


class TopicEmbedder:
    """Speaks for the built-in embedder, whose name and dimension it has: a chunk's vector lies around its topic's."""

    def __init__(self) -> None:
        built_in = HashingEmbedder()
        self.name = built_in.name
        self.dimension = built_in.dimension
        self.worth_keeping = built_in.worth_keeping
        self._topics = dict(zip(TOPICS, built_in.embed(TOPICS), strict=True))
        self._noise = np.random.default_rng(3)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The first line of a text is its topic."""
        rows = np.stack([self._topics[text.split("\n", 1)[0]] for text in texts])
        noise = self._noise.standard_normal(rows.shape, dtype=np.float32) * (_NOISE / self.dimension**0.5)
        return rows + noise


def build_large_index(data: Path) -> Generation:
    """The only collection of a data folder."""
    return build_collection(
        collection=COLLECTION,
        chunks=_chunks(),
        embedder=TopicEmbedder(),
        target=data / COLLECTION,
        threads=processors(),
        progress=lambda _count: None,
    )


def _chunks() -> Iterator[Chunk]:
    for number in range(CHUNKS):
        yield Chunk(f"{number:016x}", TOPICS[number % len(TOPICS)], "chunk", "function", "", "", (), "pass", 1, 1)


def questions(families: Sequence[int], count: int, seed: int) -> list[Query]:
    """Distinct questions to all topics of these families in turn; no two mean the same to the semantic cache."""
    topics = [topic for number, topic in enumerate(TOPICS) if number % FAMILIES in families]
    # The topic four times over, so that the new word leaves a question in its topic: 0.92 alike, the cache wants 0.97.
    return [
        Query(COLLECTION, f"{' '.join([topics[n % len(topics)]] * 4)} {word}")
        for n, word in enumerate(_words(seed, count))
    ]


@dataclass(frozen=True)
class IndexFile:
    """The file as its readers on the same machine see it."""

    generation: Generation

    @property
    def path(self) -> Path:
        """Of the FAISS index."""
        return self.generation.directory / INDEX_FILE

    def leave_page_cache(self) -> None:
        """Drop every file of the generation, so that its pages are charged to whoever reads it next."""
        for file in self.generation.directory.iterdir():
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def pages_read_by(self, asked: Sequence[Query]) -> Pages:
        """Whole pages of the lists that these questions look into, as FAISS itself says."""
        index = read_mapped(self.path, self.generation.manifest)
        assert isinstance(index, faiss.IndexIVFFlat)
        starts, ends = part_addresses(index)
        mapping = file_mapping_at(int(starts.max()))
        assert mapping is not None
        vectors = HashingEmbedder().embed([query.text for query in asked])
        probed = np.unique(index.quantizer.search(vectors, index.nprobe)[1])
        pages = np.zeros(-(-self.path.stat().st_size // PAGE_BYTES), dtype=np.bool_)
        first = -(-(starts - mapping.range.start + mapping.offset) // PAGE_BYTES)
        end = (ends - mapping.range.start + mapping.offset) // PAGE_BYTES
        for number in probed.tolist():
            pages[first[number] : end[number]] = True
        return pages
