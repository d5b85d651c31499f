"""Covers the embedder that needs no model: signed feature hashing of a text's words and their trigrams.

It does not cover servers of learned embeddings. What an embedder must offer is the Embedder protocol; the name of the
one that built a generation stands in its manifest, because vectors of two embedders cannot be compared.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""Shape (rows, dimension), C order."""

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+")
"""Splits parseHTTPResponse_v2 into parse, HTTP, Response, v, 2; other alphabets come in runs."""

_STOP_WORDS = frozenset(
    (
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "class",
        "def",
        "else",
        "except",
        "false",
        "for",
        "from",
        "if",
        "import",
        "in",
        "is",
        "it",
        "none",
        "not",
        "of",
        "on",
        "or",
        "pass",
        "py",
        "raise",
        "return",
        "self",
        "str",
        "that",
        "the",
        "this",
        "to",
        "true",
        "try",
        "with",
    )
)
"""Of English, of Python, and of its file names."""

_TRIGRAM_SHARE = 0.5
"""Weight of all trigrams of a token together, against 1 for the token: misspelt words still find, exact ones win."""

_LONGEST_TOKEN = 64
"""Characters: longer runs are encoded data, whose trigrams would drown the words around them."""

QUERY_TOKENS = 1024
"""0.7 MB when full: queries are short, and 0.03 ms for an unknown word is little beside a search."""

BUILD_TOKENS = 8192
"""5.3 MB when full. The standard library has 15,000 tokens; its commonest 8,192 are 98 % of its text."""


GIVEN = "given-"
"""How the name of the embedder begins where vectors come with what they stand for; their dimension follows."""


class Embedder(Protocol):
    """Turns texts into vectors that are compared by inner product."""

    @property
    def name(self) -> str:
        """Tells it from every embedder whose vectors differ, with version."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def worth_keeping(self) -> bool:
        """Whether a vector takes longer to make than to find among kept ones."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of length 1, or 0 for a text that says nothing. Shape (len(texts), dimension).

        Raises EmbedderUnavailable, EmbeddingInvalid where the embedder is a server.
        """
        ...


class QueryEmbedder(Embedder, Protocol):
    """One that is told of whom a text is asked: what is kept of it counts as that collection's."""

    def embed_query(self, text: str, collection: str) -> Vectors:
        """Shape (1, dimension). Raises as `embed`."""
        ...


class HashingEmbedder:
    """The built-in embedder: equal texts give equal vectors in every process and on every machine."""

    def __init__(self, dimension: int = 384, *, cached_tokens: int = QUERY_TOKENS) -> None:
        """`cached_tokens` are kept ready; more only make building quicker."""
        if dimension < 1:
            raise ValueError(f"dimension is {dimension}; it must be at least 1")
        self._dimension = dimension
        self._features = lru_cache(maxsize=cached_tokens)(_features)

    @property
    def name(self) -> str:
        """For instance `hashing-384-v1`; the version rises with every change of tokens, weights or hashing."""
        return f"hashing-{self._dimension}-v1"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    @property
    def worth_keeping(self) -> bool:
        """No: a question takes 50 us to embed, 60 to find in the embedding cache, and 120 when it is kept there."""
        return False

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimension), float32, each row of length 1; a text without words gives a row of zeros.

        Holds about 20 kB for each text while it works: give it some hundred at a time.
        """
        places: list[npt.NDArray[np.int64]] = []
        weights: list[npt.NDArray[np.float64]] = []
        for row, text in enumerate(texts):
            offset = row * self._dimension
            for token, count in _token_counts(text).items():
                token_places, token_weights = self._features(token, self._dimension)
                places.append(token_places + offset)
                weights.append(token_weights * _TERM_WEIGHTS[min(count, len(_TERM_WEIGHTS) - 1)])
        shape = (len(texts), self._dimension)
        if not places:
            return np.zeros(shape, dtype=np.float32)
        sums = np.zeros(shape[0] * shape[1])
        np.add.at(sums, np.concatenate(places), np.concatenate(weights))
        return normalised(sums.reshape(shape))

    def embed_query(self, text: str, collection: str) -> Vectors:
        """As any text."""
        del collection
        return self.embed([text])


_TERM_WEIGHTS = [0.0, *(1.0 + math.log(count) for count in range(1, 1024))]
"""Sublinear: the tenth `index` in a function says less than the first."""


def _token_counts(text: str) -> Counter[str]:
    found: list[str] = _TOKEN.findall(text)
    tokens = Counter("\n".join(found).lower().split("\n"))
    for stop_word in _STOP_WORDS & tokens.keys():
        del tokens[stop_word]
    # An empty text splits into one empty token.
    del tokens[""]
    return tokens


def _features(token: str, dimension: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Places within a row, and the signed weight of each, for one occurrence of a token."""
    bounded = f"<{token[:_LONGEST_TOKEN]}>"
    trigrams = [bounded[start : start + 3] for start in range(len(bounded) - 2)]
    trigram_weight = _TRIGRAM_SHARE / math.sqrt(len(trigrams))
    hashed = [_place_and_sign(f"word:{token}", dimension)]
    hashed.extend(_place_and_sign(f"trigram:{trigram}", dimension) for trigram in trigrams)
    signs = np.array([sign for _, sign in hashed])
    weights = np.array([1.0] + [trigram_weight] * len(trigrams))
    return np.array([place for place, _ in hashed], dtype=np.int64), signs * weights


def _place_and_sign(feature: str, dimension: int) -> tuple[int, float]:
    # Not hash(): it is salted anew in every process. Not crc32: its bits are linear, place and sign would correlate.
    digest = int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return (digest >> 1) % dimension, 1.0 if digest & 1 else -1.0


def normalised(rows: npt.NDArray[np.float64]) -> Vectors:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0.0] = 1.0
    return np.ascontiguousarray(rows / lengths, dtype=np.float32)
