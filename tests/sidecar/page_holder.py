"""A program that maps a file and obeys one word a line: `out` pages it out, `in` reads it again; it answers each."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Final

_MADV_PAGEOUT: Final = 21  # <linux/mman.h>


def main(path: Path) -> None:
    """Until the standard input ends."""
    with path.open("r+b") as file:
        pages = mmap.mmap(file.fileno(), 0)
    _read(pages)
    sys.stdout.write("mapped\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if line == "out\n":
            pages.madvise(_MADV_PAGEOUT)
        else:
            _read(pages)
        sys.stdout.write(line)
        sys.stdout.flush()


def _read(pages: mmap.mmap) -> None:
    for offset in range(0, len(pages), mmap.PAGESIZE):
        pages[offset : offset + 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
