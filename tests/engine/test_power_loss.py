"""Power that fails: the image of a file system, copied while an engine writes to it, has every acknowledged write.

The data folder is an ext4 on a loop device. A copy of the image behind it is what a disk would show after a power cut:
what was written and never synced lies in the page cache above the device, and is not in the copy. The engine is
held up for a moment before each sync, rename and unlink, so that copies fall between them. Before half of the copies
a file of somebody else on the same volume is synced: that brings the journal to the disk with every rename and unlink
so far, and no data that still waits, which is the order that hurts whoever renames before he syncs. A copy in whose
time the device was written to is none, and is taken again. `MEMBUDGET_POWER_CUTS` says how many copies;
`make torture` asks for hundreds. What a disk does that breaks its word about a flush is not shown here.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import subprocess
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.traced_engine import Forks, Promised, TracedEngine, held_by_strace
from loop_volume import mounted, require_loop_devices

CUTS = int(os.environ.get("MEMBUDGET_POWER_CUTS", "12"))
CUTS_OF_A_VOLUME = 12
IMAGE_BYTES = 48 * 1024 * 1024
NUMBERS = range(60)
HELD_UP = "inject=fsync,fdatasync,rename,unlink,unlinkat:delay_enter=15000"
"""Microseconds: about as long as a copy takes."""
OPTIONS = "noauto_da_alloc,commit=300"
"""No help from the file system: nothing is synced because it is renamed over another, nor because time has passed."""


@dataclass(frozen=True)
class Cut:
    """One copy, and between which moments of the history it was taken: after the first, before the second."""

    image: Path
    acknowledged: int
    begun: int


@dataclass
class History:
    """What the collection held after each write: all up to `acknowledged` are, the last one may be under way."""

    states: list[dict[str, str]] = field(default_factory=lambda: [{}])
    acknowledged: int = 0


@pytest.fixture
def image(tmp_path: Path) -> Generator[Path]:
    """A file for a file system and room for its copies, in memory: the machine's own disk has no part in this."""
    require_loop_devices()
    folder = tmp_path / "images"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True)
    with (folder / "image").open("wb") as file:
        file.truncate(IMAGE_BYTES)
    yield folder / "image"
    subprocess.run(["umount", str(folder)], check=True)


class Cutter(threading.Thread):
    """Copies the image as often as asked, at moments of its own."""

    def __init__(self, image: Path, device: str, elsewhere: Path, history: History, seed: int, wanted: int) -> None:
        super().__init__(name="cutter")
        self.cuts: list[Cut] = []
        self.ended = threading.Event()
        self._image, self._elsewhere, self._history = image, elsewhere, history
        self._writes = Path("/sys/block") / device / "stat"
        self._draw = random.Random(seed)
        self._wanted = wanted

    def run(self) -> None:
        """Until there are enough, or the work has ended."""
        while len(self.cuts) < self._wanted and not self.ended.wait(self._draw.uniform(0, 0.08)):
            if self._draw.random() < 0.5:
                with self._elsewhere.open("ab") as file:
                    file.write(b"x")
                    os.fsync(file.fileno())
            self._cut()

    def _cut(self) -> None:
        copy = self._image.with_name(f"cut-{len(self.cuts)}")
        acknowledged, written = self._history.acknowledged, self._written()
        subprocess.run(["cp", "--sparse=always", str(self._image), str(copy)], check=True)
        begun = len(self._history.states) - 1
        if written == self._written():
            self.cuts.append(Cut(copy, acknowledged, begun))

    def _written(self) -> tuple[int, int]:
        """Writes that the device has ended, and requests under way."""
        fields = self._writes.read_text().split()
        return int(fields[4]), int(fields[8])


def _work(engine: TracedEngine, history: History, cutter: Cutter, seed: int) -> None:
    """Upserts, deletes, a seal after every third, until there are enough copies."""
    draw, promised = random.Random(seed), Promised()
    for step in itertools.count():
        first = draw.randrange(40)
        numbers, gone = range(first, first + draw.randrange(1, 20)), draw.choice(NUMBERS)
        text = f"{seed} {step}"
        history.states.append({**promised.acknowledged, **{f"note-{number}": f"{text} {number}" for number in numbers}})
        assert promised.upsert(engine, "core", numbers, text).status == http.client.OK
        history.acknowledged += 1
        without = {chunk: source for chunk, source in promised.acknowledged.items() if chunk != f"note-{gone}"}
        history.states.append(without)
        assert promised.delete(engine, "core", gone).status == http.client.OK
        history.acknowledged += 1
        assert promised.acknowledged == without
        if step % 3 == 2:
            assert engine.ask("POST", "/v1/collections/core/seal").status == http.client.OK
        if not cutter.is_alive():
            return


def _cut_volume(forks: Forks, image: Path, folder: Path, seed: int, wanted: int) -> tuple[History, list[Cut]]:
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    history = History()
    with mounted(image, folder / "volume", OPTIONS) as device:
        cutter = Cutter(image, device, folder / "volume" / "elsewhere", history, seed, wanted)
        engine = forks.engine(folder / "volume" / "data", folder / "engine")
        with held_by_strace(engine.pid, ["-o", os.devnull, "-e", HELD_UP]):
            assert engine.go(), engine.told()
            cutter.start()
            try:
                _work(engine, history, cutter, seed)
            finally:
                cutter.ended.set()
                cutter.join()
                engine.kill()
    return history, cutter.cuts


def _held_after(forks: Forks, cut: Cut, folder: Path) -> dict[str, str]:
    """What an engine finds on the copy, and that it takes writes there."""
    with mounted(cut.image, folder / "volume", OPTIONS):
        engine = forks.engine(folder / "volume" / "data", folder / "engine")
        assert engine.go(), engine.told()
        found = engine.holds("core", NUMBERS)
        assert Promised(found).upsert(engine, "core", range(3), "after").status == http.client.OK
        engine.kill()
    return found


def test_every_copy_of_the_disk_holds_what_was_acknowledged_before_it(
    image: Path, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 70, bug 14: the write under way is there whole or not at all."""
    checked = between = 0
    with Forks() as forks:
        for seed in itertools.count():
            wanted = min(CUTS_OF_A_VOLUME, CUTS - checked)
            history, cuts = _cut_volume(forks, image, tmp_path, seed, wanted)
            for cut in cuts:
                allowed = history.states[cut.acknowledged : cut.begun + 1]
                found = _held_after(forks, cut, tmp_path)
                assert found in allowed, f"{cut}: {found} is none of {allowed}"
                between += len(allowed) > 1
                cut.image.unlink()
            checked += len(cuts)
            if checked >= CUTS:
                break
    publish(f"{checked} power cuts, {between} of them in the middle of a write: every acknowledged write is there")
