"""What the emulated machine is made of: Debian's QEMU, kernel and busybox, unpacked into this project's cache.

Nothing is installed: apt fetches the packages and whatever this system lacks of their libraries, dpkg unpacks them
into a folder, and of the kernel's modules only those stay that find a disk and a folder of the host. Does not start
anything: that is machine.py.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TOOLS = ("apt-get", "apt-cache", "dpkg", "mkfs.ext4")
_PACKAGES = ("qemu-system-x86", "busybox-static")
_KERNEL = "linux-image-amd64"  # an empty package that depends on the current kernel
_MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "crc32c_generic", "ext4")
"""What finds the root folder and the scratch disk; memory control is built into the kernel."""
_STAMP = "complete"
_SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class PartsMissing(Exception):
    """The machine cannot be put together here; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Parts:
    """A folder that holds all of them, unpacked in `root`."""

    folder: Path

    @property
    def root(self) -> Path:
        """What the packages put into `/` when they are installed."""
        return self.folder / "root"

    @property
    def qemu(self) -> Path:
        """The emulator; its libraries are `libraries`."""
        return self.root / "usr/bin/qemu-system-x86_64"

    @property
    def libraries(self) -> str:
        """For LD_LIBRARY_PATH."""
        return f"{self.root}/usr/lib/x86_64-linux-gnu:{self.root}/lib/x86_64-linux-gnu"

    @property
    def kernel(self) -> Path:
        """The one kernel that was unpacked."""
        return next((self.root / "boot").glob("vmlinuz-*"))

    @property
    def busybox(self) -> Path:
        """Every program that the machine needs before it has the host's."""
        return self.root / "bin/busybox"

    @property
    def modules(self) -> Path:
        """Those it loads, and a file `order` with their names."""
        return self.folder / "modules"

    def complete(self) -> bool:
        """True when all is there that this checkout asks for."""
        stamp = self.folder / _STAMP
        return stamp.exists() and stamp.read_text() == _asked()


def cached_parts() -> Parts:
    """Outside the repository, shared by all checkouts of this user; perhaps not there yet."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Parts(Path(caches) / "membudget" / "emulated-machine")


def fetch(parts: Parts, search_path: str = _SEARCH_PATH) -> None:
    """Fills the folder, half a minute with a near mirror; nothing to do when it is complete.

    Raises:
        PartsMissing: not Debian on x86-64, or apt cannot fetch.
    """
    if parts.complete():
        return
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=search_path) is None]
    if missing or platform.machine() != "x86_64":
        lacks = f" that lacks {', '.join(missing)}" if missing else ""
        need = f"Debian 12 or later on x86-64 with {', '.join(_TOOLS)}"
        raise PartsMissing(f"the emulated machine needs {need}; this is {platform.machine()}{lacks}")
    fresh = Parts(parts.folder.with_name(f"{parts.folder.name}.{os.getpid()}"))
    try:
        _unpack(fresh)
        _keep_modules(fresh)
        (fresh.folder / _STAMP).write_text(_asked())
        shutil.rmtree(parts.folder, ignore_errors=True)
        fresh.folder.rename(parts.folder)
    finally:
        shutil.rmtree(fresh.folder, ignore_errors=True)


def load_order(wanted: Sequence[str], needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The wanted modules and all they need, each after those it needs; paths as in modules.dep."""
    paths = {Path(path).stem.replace("-", "_"): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in needs[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        add(paths[name])
    return order


def _unpack(parts: Parts) -> None:
    archives = parts.folder / "packages"
    (archives / "partial").mkdir(parents=True)
    # --reinstall: also those that this system has; their libraries then are its own.
    options = ["--download-only", "--reinstall", "--no-install-recommends", "--yes", "--quiet=2"]
    here = ["--option", f"Dir::Cache::Archives={archives}", "--option", "Debug::NoLocking=true"]
    _run(["apt-get", "install", *options, *here, *_PACKAGES], archives)
    depends = _run(["apt-cache", "depends", _KERNEL], archives)
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)
    if kernel is None:
        raise PartsMissing(f"{_KERNEL} depends on no kernel; run `apt-get update` first")
    _run(["apt-get", "download", "--quiet=2", kernel[1]], archives)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg", "--extract", str(package), str(parts.root)], archives)
    shutil.rmtree(archives)


def _keep_modules(parts: Parts) -> None:
    release = parts.kernel.name.removeprefix("vmlinuz-")
    _run([str(parts.busybox), "depmod", "-b", str(parts.root), release], parts.folder)
    unpacked = parts.root / "lib/modules" / release
    lines = (line.partition(":") for line in (unpacked / "modules.dep").read_text().splitlines())
    order = load_order(_MODULES, {path: needs.split() for path, _, needs in lines})
    parts.modules.mkdir()
    for path in order:
        shutil.copy(unpacked / path, parts.modules)
    (parts.modules / "order").write_text("".join(f"{Path(path).name}\n" for path in order))
    shutil.rmtree(unpacked)


def _asked() -> str:
    return " ".join((*_PACKAGES, _KERNEL, *_MODULES))


def _run(argv: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": _SEARCH_PATH, "LC_ALL": "C"}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[:400]
        raise PartsMissing(f"`{' '.join(argv)}` failed: {reason}; perhaps `apt-get update` helps")
    return done.stdout
