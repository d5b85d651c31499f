"""A file system of a test's own: an ext4 in a file, on a loop device. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from memory_cgroup import require

LARGE_READ_AHEAD = 8 * 1024 * 1024
METADATA_BYTES = 256 * 1024
"""At most, of a file system that was just mounted."""


def require_loop_devices() -> None:
    """Skips the test with the reason where there can be none; fails it under REQUIRE_CGROUP=1."""
    able = os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None
    require(able, "a file system of one's own needs root, loop devices and mkfs.ext4")


def make_image(image: Path, size_bytes: int) -> None:
    """An empty file system in a file that takes room as it fills."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)


@contextlib.contextmanager
def mounted(image: Path, folder: Path, options: str, *, past_the_page_cache: bool = False) -> Generator[str]:
    """The image as a file system on a loop device, whose name is given; mounting replays its journal."""
    folder.mkdir(exist_ok=True)
    argv = ["losetup", "--find", "--show", f"--direct-io={'on' if past_the_page_cache else 'off'}", str(image)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run(["mount", "-t", "ext4", "-o", options, device, str(folder)], check=True)
        try:
            yield device.removeprefix("/dev/")
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def mounted_to_read_far_ahead(image: Path, folder: Path) -> Generator[Callable[[], int]]:
    """The image on a disk that reads 8 MB ahead, none of it in the page cache; gives the bytes read of it so far."""
    with mounted(image, folder, "noatime", past_the_page_cache=True) as device:
        subprocess.run(["blockdev", "--setra", str(LARGE_READ_AHEAD // 512), f"/dev/{device}"], check=True)
        yield partial(_sector_bytes, device, 2)


def bytes_written(device: str) -> int:
    """To this disk so far."""
    return _sector_bytes(device, 6)


def _sector_bytes(device: str, field: int) -> int:
    """By the kernel; a sector is 512 bytes there, whatever the disk's."""
    return 512 * int(Path(f"/sys/block/{device}/stat").read_text().split()[field])
