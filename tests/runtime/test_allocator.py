"""Whichever C allocator a process was started with: its free pages go back to the kernel when asked."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from membudget_runtime.own_memory import Allocator
from runtime.fakes import MB

PROCESS = Path(__file__).with_name("allocator_process.py")
LIBRARIES = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu"


class Symbols:
    """What a process has loaded, by name; notes what is called."""

    def __init__(self, **results: int | None) -> None:
        self.called: list[tuple[str, tuple[object, ...]]] = []
        for name, result in results.items():
            setattr(self, name, self._noting(name, result))

    def _noting(self, name: str, result: int | None) -> Callable[..., int | None]:
        def call(*arguments: object) -> int | None:
            self.called.append((name, arguments))
            return result

        return call


def allocator_of(symbols: Symbols) -> Allocator:
    """As if the process had these."""
    return Allocator(cast("ctypes.CDLL", symbols))


@pytest.mark.parametrize(
    ("results", "name", "gave", "called"),
    [
        ({"malloc_trim": 1, "mallopt": 1}, "glibc", True, "malloc_trim"),
        ({"malloc_trim": 0, "mallopt": 1}, "glibc", False, "malloc_trim"),
        ({"malloc_trim": 1, "mallopt": 1, "mallctl": 0}, "jemalloc", True, "mallctl"),
        ({"malloc_trim": 1, "mallopt": 1, "mallctl": 14}, "jemalloc", False, "mallctl"),
        ({"malloc_trim": 1, "mallopt": 1, "MallocExtension_ReleaseFreeMemory": None}, "tcmalloc", True, "MallocExt"),
        ({"malloc_trim": 1, "mallopt": 1, "mi_malloc": 1}, "unknown", False, None),
        ({}, "unknown", False, None),
    ],
)
def test_each_allocator_is_asked_by_its_own_call(
    results: dict[str, int | None], name: str, gave: bool, called: str | None
) -> None:
    """R-E20: malloc_trim never under another allocator than glibc, nor glibc's switch of arenas."""
    symbols = Symbols(**results)
    allocator = allocator_of(symbols)
    assert (allocator.name, allocator.trim()) == (name, gave)
    assert [one.startswith(called or "-") for one, _ in symbols.called] == ([True] if called else [])
    assert allocator.use_one_arena() is (name == "glibc")


@pytest.mark.parametrize(
    ("name", "library", "least"),
    [("glibc", None, 0.95), ("jemalloc", "libjemalloc.so.2", 0.95), ("tcmalloc", "libtcmalloc_minimal.so.4", 0.8)],
)
def test_a_heap_of_40_mb_is_back_when_asked(
    name: str, library: str | None, least: float, publish: Callable[[str], None]
) -> None:
    """R-E20: in a real process with a real allocator; tcmalloc's threads keep some, whoever asks."""
    if library and not (LIBRARIES / library).exists():
        pytest.skip(f"{library} is not installed: apt-get install libjemalloc2 libtcmalloc-minimal4")
    environment = {**os.environ, **({"LD_PRELOAD": str(LIBRARIES / library)} if library else {})}
    done = subprocess.run(
        [sys.executable, str(PROCESS)], env=environment, check=True, stdout=subprocess.PIPE, timeout=60
    )
    said, before, full, after, gave, _ = msgspec.json.decode(done.stdout, type=tuple[str, int, int, int, bool, int])
    share = (full - after) / (full - before)
    publish(f"{name}: {100 * share:.0f} % of {(full - before) / MB:.0f} MiB back with the kernel when asked")
    assert (said, gave, share >= least) == (name, True, True)
