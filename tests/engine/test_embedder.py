"""The hashing embedder: stable over processes, honest about empty texts, and quick."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.embedder import HashingEmbedder

_TEXTS = ["def parse_json(text): return json.loads(text)", "class HTTPServer", "", "naïve straße 数据"]


def test_the_same_text_gives_the_same_vector_in_another_process() -> None:
    """R-E01: a query is embedded by another process than the index; a salted hash would find nothing."""
    script = (
        "import sys; from membudget_engine.embedder import HashingEmbedder\n"
        "sys.stdout.buffer.write(HashingEmbedder().embed(sys.argv[1:]).tobytes())"
    )

    other = subprocess.run(
        [sys.executable, "-c", script, *_TEXTS], capture_output=True, check=True, env={"PYTHONHASHSEED": "7"}
    )

    assert HashingEmbedder().embed(_TEXTS).tobytes() == other.stdout


@given(st.lists(st.text(max_size=80), max_size=5))
def test_rows_have_length_one_or_zero_and_are_never_nan(texts: list[str]) -> None:
    """R-E01: NaN would be found by no query, and would spoil the centroids."""
    vectors = HashingEmbedder(64).embed(texts)

    assert ((len(texts), 64), np.dtype(np.float32)) == (vectors.shape, vectors.dtype)
    lengths = np.linalg.norm(vectors, axis=1)
    assert all(abs(length - 1.0) < 1e-5 or length == 0.0 for length in lengths)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_a_row_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    """R-E01: batches of the builder and single queries meet in one space."""
    embedder = HashingEmbedder(64)

    alone = np.concatenate([embedder.embed([text]) for text in texts])

    np.testing.assert_array_equal(alone, embedder.embed(texts))


@pytest.mark.parametrize("text", ["", " \n\t", "the of and", "__ () {}"])
def test_a_text_that_says_nothing_gives_zeros(text: str) -> None:
    """R-E01: no direction is better than a wrong one."""
    np.testing.assert_array_equal(np.zeros((1, 384), dtype=np.float32), HashingEmbedder().embed([text]))


def test_camel_case_and_snake_case_are_the_same_words() -> None:
    """R-E01: people ask in words for what code writes together."""
    camel, snake, words = HashingEmbedder().embed(
        ["parseHTTPResponse2", "parse_http_response_2", "parse http response 2"]
    )

    np.testing.assert_array_equal(camel, words)
    np.testing.assert_array_equal(snake, words)


def test_a_related_text_is_nearer_than_an_unrelated_one_even_when_misspelt() -> None:
    """R-E01: trigrams carry what a typing error leaves of a word."""
    query, related, unrelated = HashingEmbedder().embed(
        ["serialise dictionnary", "serialize_dictionary", "walk_directory_tree"]
    )

    assert query @ related > query @ unrelated + 0.1


def test_the_name_tells_dimension_and_version() -> None:
    """R-E01: it is recorded in the manifest."""
    assert (HashingEmbedder(128).name, HashingEmbedder(128).dimension) == ("hashing-128-v1", 128)


def test_a_dimension_below_one_is_refused() -> None:
    """R-E01: the mistake is named where it is made."""
    with pytest.raises(ValueError, match="at least 1"):
        HashingEmbedder(0)


def test_a_short_query_takes_under_a_third_of_a_millisecond() -> None:
    """R-E01: at most 5-10 ms more per query leaves little for embedding; measured 0.02 ms, so a busy machine passes."""
    embedder = HashingEmbedder()
    embedder.embed(["parse a json string"])
    started = time.process_time()

    for _ in range(200):
        embedder.embed(["parse a json string"])

    assert (time.process_time() - started) / 200 < 0.0003
