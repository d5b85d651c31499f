"""Files that somebody damaged, in large numbers: `make torture` sets how many, the usual run takes a few hundred.

Each is a good file with one to eight of its bytes overwritten, dropped, doubled or moved, or made of parts of two good
ones. Nothing of it may be given as data, and nothing but the typed error may come.
"""

from __future__ import annotations

import os
import random
import tempfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from membudget_runtime.entry_file import KeptEntry, read_entries, write_entries
from membudget_runtime.errors import EntriesDamaged, SpillDamaged
from membudget_runtime.spill import MAGIC, SpillStore
from runtime.fakes import MB

FILES = int(os.environ.get("MEMBUDGET_MUTATED_FILES", "600"))
"""Of each kind."""
SEED = 20_261_121


@pytest.fixture
def folder() -> Generator[Path]:
    """In memory where there is such a folder: a million files on a disk would be about the disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as made:
        yield Path(made)


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Another file than either."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        at, length = chance.randrange(len(changed) + 1), chance.choice([0, 1, 1, 4, 8, 64, 700])
        match chance.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[at : at + length] = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length)])
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                del changed[at:]
            case _:
                changed[at:] = other[chance.randrange(len(other)) :]
        if not changed:
            break
    return bytes(changed)


def entry_files(folder: Path) -> tuple[Path, list[bytes], list[list[KeptEntry]]]:
    """Two good files under one name: one of a cache of texts, packed and not, one of vectors with attachments."""
    path = folder / "entries"
    texts = [
        KeptEntry("core", b"key %d" % n, zlib.compress(bytes(3000)) if n % 2 else b"text %d" % n, packed=bool(n % 2),
                  seconds_left=60.0 + n, uses=n) for n in range(6)
    ]  # fmt: skip
    vectors = [
        KeptEntry("archive", bytes([n]) * 16, bytes([n]) * 256, packed=False, seconds_left=9.0, attachment=b"\1" * n)
        for n in range(4)
    ]
    contents: list[bytes] = []
    for entries in (texts, vectors):
        write_entries(path, entries, now=100.0)
        contents.append(path.read_bytes())
    return path, contents, [texts, vectors]


def test_no_mutated_snapshot_is_taken_for_a_good_one(folder: Path, publish: Callable[[str], None]) -> None:
    """R-E17, R-R02: refused whole and by its type, whatever was done to it; a file that came out unchanged is read."""
    chance = random.Random(SEED)
    path, contents, good = entry_files(folder)
    refused = unchanged = 0
    for _ in range(FILES):
        number = chance.randrange(2)
        content = mutated(contents[number], contents[1 - number], chance)
        path.write_bytes(content)
        if content in contents:
            unchanged += 1
            assert list(read_entries(path, now=100.0)) == good[contents.index(content)][::-1]
            continue
        with pytest.raises(EntriesDamaged):
            list(read_entries(path, now=100.0))
        refused += 1
    publish(f"mutated snapshots: {refused} refused, {unchanged} came out unchanged and were read")
    assert refused + unchanged == FILES


def test_no_mutated_batch_of_spilled_values_gives_other_bytes(folder: Path, publish: Callable[[str], None]) -> None:
    """R-E13, R-R02: each record is what was written, or damaged and said so; its neighbours come back."""
    chance = random.Random(SEED)
    records = [chance.randbytes(length) for length in (1, 40, 700, 5000)]
    store = SpillStore(folder, MB)
    places = store.write(records)
    path = places[0].batch.path
    content, other = path.read_bytes(), MAGIC + chance.randbytes(4000)
    damaged = whole = 0
    for _ in range(FILES):
        path.write_bytes(mutated(content, other, chance))
        for place, record in zip(places, records, strict=True):
            try:
                assert store.read(place) == record
                whole += 1
            except SpillDamaged:
                damaged += 1
    publish(f"records of mutated batches: {damaged} damaged, {whole} as they were written")
    assert (damaged + whole, min(damaged, whole) > FILES // 10) == (FILES * len(records), True)
