"""The bytes that a delta says it owns, against what the kernel charges a fresh process for it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from membudget_engine.index.delta import Delta


@pytest.mark.parametrize(("rows", "dimension"), [(4_096, 384), (20_000, 64), (32_768, 64), (60_000, 16)])
def test_what_a_delta_says_it_owns_is_what_the_kernel_charges(
    rows: int, dimension: int, publish: Callable[[str], None]
) -> None:
    """R-E10, R-E16: within a tenth, whatever share of the dict's slots is filled."""
    ran = subprocess.run(
        [sys.executable, __file__, str(rows), str(dimension)], capture_output=True, text=True, check=True
    )
    owned, charged = map(int, ran.stdout.split())
    publish(f"delta of {rows} x {dimension}: {owned} bytes told, {owned / charged:.3f} of what is charged")
    assert abs(owned - charged) <= 0.1 * charged


def main(rows: int, dimension: int) -> None:
    """Fill one, and print what it says and what the kernel says."""
    vector = np.ones(dimension, dtype=np.float32)
    _filled(10, vector)
    before = _anonymous_bytes()
    delta = _filled(rows, vector)
    sys.stdout.write(f"{delta.owned_bytes} {_anonymous_bytes() - before}\n")


def _filled(rows: int, vector: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Delta:
    delta = Delta(len(vector))
    for row in range(rows):
        delta.put(f"{random.getrandbits(64):016x}", vector, 1000 + row, 500_000 + row)
    return delta


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) * 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
