"""Serves one generation after another in which one file was changed, in this process, until it ends or all are done.

Usage: hostile_folder.py DATA NAME COUNT SEED WRITES. DATA has the good collection `core`; files of NAME in its newest
generation are changed one at a time, and every manifest that lists them is made to fit, as an attacker's would. Each
WRITESth collection is also written to and sealed, which reads what queries do not. The last line says how many could
be opened, how many of those told of the change in an answer, and how many could not be opened.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from engine.shown import shown_chunks
from engine.written import EMBEDDER, notes, written
from membudget_engine.collection import Collection, open_collections
from membudget_engine.errors import EngineError
from membudget_runtime.errors import RuntimeMemoryError

MANIFEST = "manifest.json"
IDS = 40
_WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"IxPT", b"IwFl", b"full", b"SQLi", b"NaN,", b"1e99")
_VALUES: tuple[Any, ...] = (2**62, -1, 0, 1, 2**31, None, "x", "../x", [], {}, 1e308, True, "0" * 64, "Compact", "Flat")


def changed(content: bytes, number: int, draw: random.Random) -> bytes:
    """Cut short, a bit turned, a size of 2^62, or a word that means something else; always another content."""
    copy = bytearray(content)
    if number % 4 == 0:
        del copy[draw.randrange(max(1, len(copy))) :]
    else:
        # Half of all changes in the first 300 bytes: types, counts and sizes stand there.
        reach = max(1, len(copy) if draw.random() < 0.5 else min(300, len(copy)))
        for _ in range(draw.choice((1, 1, 4))):
            at = draw.randrange(reach)
            if number % 4 == 1 and copy:
                copy[at] ^= 1 << draw.randrange(8)
            elif number % 4 == 2:
                copy[at : at + 8] = (2**62 + draw.randrange(9)).to_bytes(8, "little")
            else:
                copy[at : at + 4] = draw.choice(_WORDS)
    return bytes(copy) if bytes(copy) != content else content + b"\0"


def changed_manifest(content: bytes, number: int, draw: random.Random) -> bytes:
    """Half of them are JSON still, with another value somewhere."""
    if number % 2:
        return changed(content, number // 2, draw)
    told = msgspec.json.decode(content)
    place = draw.choice(list(_nodes(told)))
    key = draw.choice(list(place))
    if draw.random() < 0.1:
        del place[key]
    else:
        place[key] = draw.choice(_VALUES)
    return msgspec.json.encode(told)


def _nodes(told: object) -> Iterator[dict[str, Any]]:
    """Every object that has something in it, from the outermost on."""
    if isinstance(told, dict) and told:
        node = cast("dict[str, Any]", told)
        yield node
        for value in [*node.values()]:
            yield from _nodes(value)
    elif isinstance(told, list):
        for value in cast("list[object]", told):
            yield from _nodes(value)


def fit(told: Any, name: str, former: str, entry: dict[str, Any]) -> None:
    """Every entry of that name with the former sha256 tells the new one, however deep it stands."""
    for node in _nodes(told):
        if name in node and isinstance(node[name], dict) and node[name].get("sha256") == former:
            node[name] = entry


def change(collection: Path, name: str, number: int, draw: random.Random) -> None:
    """One file of that name in the collection's folder or below."""
    file = draw.choice(sorted(collection.rglob(name)))
    before = file.read_bytes()
    after = (changed_manifest if name == MANIFEST else changed)(before, number, draw)
    _replace(file, after)
    entry = {"bytes": len(after), "sha256": hashlib.sha256(after).hexdigest()}
    for manifest in collection.rglob(MANIFEST) if name != MANIFEST else ():
        told = msgspec.json.decode(manifest.read_bytes())
        fit(told, name, hashlib.sha256(before).hexdigest(), entry)
        _replace(manifest, msgspec.json.encode(told))


def _replace(file: Path, content: bytes) -> None:
    file.unlink()  # the good one has the same file
    file.write_bytes(content)


def asked(collection: Collection) -> bool:
    """Whether every answer was one: rows that are there, chunks by row and by id."""
    try:
        for text in ("note", "first 7"):
            rows = [row for _, row in collection.find(EMBEDDER.embed([text]), 5)]
            assert all(row >= 0 for row in rows), rows
            shown_chunks(collection, rows)
        for number in range(IDS):
            collection.chunk(f"note-{number}")
    except EngineError:
        return False
    except msgspec.DecodeError:
        # Whoever writes texts and their checksums says what is shown: bytes of his, in the rows that are there.
        return False
    finally:
        collection.close()
    return True


def written_to(data: Path, state: Path) -> None:
    """As a writer that goes on with it: two notes, and a seal."""
    try:
        with written(data, state) as opened:
            opened.writer.upsert("core", notes(range(2), "more"))
            opened.writer.seal("core")
    except (EngineError, RuntimeMemoryError, OSError, MemoryError):
        pass


def main(good: Path, name: str, count: int, seed: int, writes: int) -> None:
    """Change, serve, and tell."""
    draw = random.Random(seed)
    opened = told = refused = 0
    for number in range(count):
        with tempfile.TemporaryDirectory(dir=good.parent) as folder:
            data = shutil.copytree(good, Path(folder) / "data", copy_function=os.link)
            for older in sorted((data / "core").glob("generation-*"))[:-1]:
                shutil.rmtree(older)
            change(data / "core", name, number, draw)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            try:
                collections = open_collections(data, EMBEDDER)
            except (EngineError, OSError, MemoryError):
                refused += 1
                continue
            opened += 1
            told += not asked(collections["core"])
            if number % writes == 0:
                written_to(data, Path(folder) / "state")
    sys.stdout.write(f"ended {opened} {told} {refused}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
