"""Torn and hostile index files: refused before FAISS reads them, or by its reading, and the process goes on.

Files that differ from their manifest never reach FAISS; those here have a manifest that fits them, as an attacker's
would. So do chunk store, vectors, dead rows and the manifest itself (`hostile_folder`), and a generation that a writer
goes on with. `MEMBUDGET_HOSTILE_FILES` says how many of each kind; `make torture` asks for 20,000.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from msgspec.structs import replace

from engine.written import notes, written
from membudget_engine.collection import open_generation
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import INDEX_FILE, Representation, entry_of, read_manifest
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.write_log import LOG_FILE

FILES = int(os.environ.get("MEMBUDGET_HOSTILE_FILES", "100"))
DIMENSION = 16
WRITES = 10
"""Each so many-th changed generation is written to and sealed as well."""
WRITTEN_FILES = ["chunks.sqlite", "chunks.texts", "dead.bits", "index.faiss", "manifest.json", "vectors.f32"]

_FUZZING = """
import random, shutil, sys, tempfile
from pathlib import Path
import msgspec
import numpy as np
from membudget_engine.collection import open_generation
from membudget_engine.errors import EngineError
from membudget_engine.index.generations import Generation
from membudget_engine.index.manifest import entry_of, read_manifest, verify

good, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
manifest = read_manifest(good)
names = [name for name in manifest.files if name.split(".")[0] in ("index", "codes", "rows", "order")]
draw = random.Random(seed)
opened = refused = unverified = 0
for number in range(count):
    with tempfile.TemporaryDirectory() as folder:
        bad = Path(folder)
        for file in good.iterdir():
            (bad / file.name).symlink_to(file)
        name = draw.choice(names)
        content = bytearray((good / name).read_bytes())
        kind = number % 4
        if kind == 0:
            del content[draw.randrange(len(content)) :]
        else:
            # Half of all changes in the first 300 bytes: types, counts and sizes stand there.
            reach = len(content) if draw.random() < 0.5 else min(300, len(content))
            for _ in range(draw.choice((1, 1, 4))):
                at = draw.randrange(reach)
                if kind == 1:
                    content[at] ^= 1 << draw.randrange(8)
                elif kind == 2:
                    content[at : at + 8] = (2**62 + draw.randrange(9)).to_bytes(8, "little")
                else:
                    words = (b"\\xff\\xff\\xff\\xff", b"\\0\\0\\0\\0", b"IxPT", b"IwFl", b"full")
                    content[at : at + 4] = draw.choice(words)
        if content == (good / name).read_bytes():
            content[0] ^= 1
        (bad / name).unlink()
        (bad / name).write_bytes(bytes(content))
        try:
            verify(bad, manifest)
        except EngineError:
            unverified += 1
        believed = msgspec.structs.replace(manifest, files={**manifest.files, name: entry_of(bad / name)})
        print(number, name, kind, flush=True)
        try:
            collection = open_generation("core", Generation(bad, believed))
        except (EngineError, OSError, MemoryError):
            refused += 1
            continue
        opened += 1
        vector = np.ones((1, manifest.dimension), dtype=np.float32)
        try:
            rows = [row for _, row in collection.find(vector, 5)]
            assert all(0 <= row < manifest.count for row in rows), rows
            collection.texts_at(rows)
        except EngineError:
            refused += 1
        collection.close()
print("ended", opened, refused, unverified)
"""


def _good(target: Path, representation: Representation, count: int) -> Path:
    chunks = [Chunk(str(n), "", f"name {n}", "text", "", "", (), f"text {n}", 0, 0) for n in range(count)]
    return build_collection(
        collection="core", chunks=chunks, embedder=HashingEmbedder(DIMENSION), target=target, threads=1,
        progress=lambda _: None, representation=representation,
    ).directory  # fmt: skip


@pytest.mark.parametrize(
    ("representation", "count"),
    [("Exact", 50), ("Exact", 10_000), ("Float16", 50), ("Int8", 10_000), ("Compact", 700)],
)
def test_no_changed_index_file_ends_the_process_or_leads_outside_its_rows(
    tmp_path: Path, representation: Representation, count: int, publish: Callable[[str], None]
) -> None:
    """Faults 59-61: truncated, bits flipped, sizes of 2^62, other types; with a manifest that fits."""
    good = _good(tmp_path / "core", representation, count)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", _FUZZING, str(good), str(FILES), "7"]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    last = ended.stdout.splitlines()[-1:]
    assert ended.returncode == 0, f"{last} {ended.stderr[-2000:]}"
    word, opened, refused, unverified = last[0].split()
    assert (word, int(unverified)) == ("ended", FILES)
    publish(
        f"{representation} of {count}: {FILES} changed index files are told by their manifest; with one that fits "
        f"{opened} open, {refused} are refused, none ends the process"
    )


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("shift", [10_000, 1 << 46, -1 << 62, -10_001])
def test_rows_that_are_not_there_are_damage_when_a_query_meets_them(
    tmp_path: Path, shift: int, *, deleted: bool
) -> None:
    """Fault 60: whatever a list in the mapped file names, no row outside the collection is given out or looked for."""
    generation = _good(tmp_path / "core", "Int8", 10_000)
    index = faiss.read_index(str(generation / INDEX_FILE))
    assert isinstance(index, faiss.IndexIVFScalarQuantizer)
    lists = index.invlists
    for number in range(index.nlist):
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))[:] += shift
    (generation / INDEX_FILE).unlink()
    faiss.write_index(index, str(generation / INDEX_FILE))
    manifest = read_manifest(generation)
    believed = replace(manifest, files={**manifest.files, INDEX_FILE: entry_of(generation / INDEX_FILE)})
    with closing(open_generation("core", Generation(generation, believed))) as collection:
        if deleted:
            collection.dead[0].add(7)
        with pytest.raises(IndexInvalid, match="rebuild"):
            collection.find(np.ones((1, DIMENSION), dtype=np.float32), 5)


@pytest.fixture(scope="module")
def written_generation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose newest generation a writer has sealed, with chunks that were replaced and deleted."""
    folder = tmp_path_factory.mktemp("written")
    with written(folder / "data", folder / "state") as opened:
        for first in (0, 20, 30):
            opened.writer.upsert("core", notes(range(first, first + 25), f"from {first}"))
            opened.writer.delete("core", [f"note-{first + 3}"])
            opened.writer.seal("core")
    (folder / "data" / "core" / LOG_FILE).unlink()
    return folder / "data"


def _names(data: Path) -> set[str]:
    return {file.name for file in (data / "core").rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", WRITTEN_FILES)
def test_no_changed_file_of_a_written_generation_ends_the_process(
    written_generation: Path, name: str, publish: Callable[[str], None]
) -> None:
    """Faults 59-61, bug 17: opened, searched, read by id, written to, sealed; served or refused with a typed error."""
    assert WRITTEN_FILES == sorted(_names(written_generation)), "every file has its test"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    script = Path(__file__).with_name("hostile_folder.py")
    argv = [sys.executable, str(script), str(written_generation), name, str(FILES), "9", str(WRITES)]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    last = ended.stdout.splitlines()[-1:]
    assert ended.returncode == 0, f"{last} {ended.stderr[-2000:]}"
    word, opened, told, refused = last[0].split()
    assert (word, int(opened) + int(refused)) == ("ended", FILES)
    publish(
        f"{name}: {FILES} changed files with manifests that fit: {refused} are refused, {opened} open, of which {told} "
        "are told when they are read; none ends the process"
    )
