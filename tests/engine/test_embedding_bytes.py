"""What a vector in the embedding cache costs, as the kernel charges it, against what is reported and promised."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.engine_process import status_bytes
from membudget_engine.caches.vector_level import BESIDE_BYTES
from membudget_engine.reduction.quantization import Float16, Int8

FILL = Path(__file__).with_name("fill_embeddings.py")
PLAIN = 2048
MB = 1024 * 1024


class Filled(NamedTuple):
    """Of a fresh process: what the cache says, what RssAnon grew by, vectors in each level."""

    reported: int
    grown: int
    hot: int
    cold: int


def filled(folder: Path, form: str, max_bytes: int, vectors: int) -> Filled:
    """Read from outside."""
    argv = [sys.executable, str(FILL), str(folder), form, str(max_bytes), str(vectors)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "empty 0 0 0\n"
        before = status_bytes(process.pid, "RssAnon")
        process.stdin.write("\n")
        process.stdin.flush()
        _, reported, hot, cold = process.stdout.readline().split()
        grown = status_bytes(process.pid, "RssAnon") - before
        process.stdin.write("\n")
    return Filled(int(reported), grown, int(hot), int(cold))


def test_a_hot_vector_costs_at_most_75_bytes_beside_it(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E03: 2,048 bytes of a 512-dimensional vector, everything hot."""
    found = filled(tmp_path, "float16", 256 * MB, 6_000)

    beside = found.grown / found.hot - PLAIN
    assert (6_000, 0) == (found.hot, found.cold)
    assert beside <= 75
    assert found.reported == pytest.approx(found.grown, rel=0.05)
    publish(f"embedding cache: {beside:.0f} bytes beside a hot vector of {PLAIN}")


@pytest.mark.parametrize(("form", "share"), [("float16", 0.54), ("int8", 0.29)])
def test_a_compressed_vector_costs_its_share(
    tmp_path: Path, publish: Callable[[str], None], form: str, share: float
) -> None:
    """R-E03: 0.54 of the plain vector as float16, 0.29 as int8, with everything beside it; a quarter stays hot."""
    found = filled(tmp_path, form, 32 * MB, 24_000)

    cold_bytes = found.grown - found.hot * (PLAIN + BESIDE_BYTES)
    each = cold_bytes / found.cold
    slot = (Float16() if form == "float16" else Int8()).row_bytes(512)
    assert found.hot * PLAIN < 0.26 * 32 * MB
    assert each <= share * PLAIN
    assert found.reported == pytest.approx(found.grown, rel=0.05)
    assert found.reported <= 32 * MB
    publish(
        f"embedding cache: {each:.0f} bytes ({each / PLAIN:.3f}) of a vector as {form}, {each - slot:.0f} beside it"
    )
