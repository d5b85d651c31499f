"""A base image made here, for machines that can pull none: Debian's smallest system with its Python.

Covers: the root folder, made once by debootstrap and kept as an archive in the user's cache. What is built on it is
`build.py`'s. It differs from the default base in Debian's own Python, of the same minor version.
"""  # noqa: INP001

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

RELEASE: Final = "bookworm"
PACKAGES: Final = ("python3", "ca-certificates")
LEFT_OUT: Final = (
    "./dev/*",
    "./usr/share/doc/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
)
"""What no process of ours reads."""


def archive() -> Path:
    """The root folder as a tar file; 2 minutes at the first call, which downloads about 60 MB of packages.

    Raises:
        subprocess.CalledProcessError: debootstrap failed and has said why; it needs root and a Debian mirror.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "membudget" / f"image-base-{RELEASE}" / "root.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        _make(kept)
    return kept


def _make(kept: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        choice = ["--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, root]
        subprocess.run(["debootstrap", *choice], check=True, stdout=subprocess.DEVNULL)
        aside = kept.with_suffix(".aside")
        excluded = [f"--exclude={pattern}" for pattern in LEFT_OUT]
        subprocess.run(["tar", "--create", f"--file={aside}", f"--directory={root}", *excluded, "."], check=True)
        aside.replace(kept)
