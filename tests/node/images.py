"""The three images as archives, built by images/build.py when they are older than what they are made of."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MEMBERS = ("controller", "sidecar", "engine")
_INPUTS = (
    "images",
    *(f"{member}/{part}" for member in (*MEMBERS, "contract", "runtime") for part in ("src", "pyproject.toml")),
)


@functools.cache
def build() -> int:
    """Builds them where needed, with progress on stderr; the exit code."""
    archives = list(archives_now())
    if len(archives) == len(MEMBERS) and min(a.stat().st_mtime for a in archives) > _newest_input():
        return 0
    for script in ("wheelhouse.py", "build.py"):
        code = subprocess.run(
            [sys.executable, REPOSITORY / "images" / script], stdout=sys.stderr, check=False
        ).returncode
        if code:
            return code
    return 0


def archives_now() -> list[Path]:
    """Those that are there, of any version."""
    return sorted((REPOSITORY / "dist" / "images").glob("membudget-*.tar"))


def _newest_input() -> float:
    tops = [REPOSITORY / name for name in _INPUTS]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return max(file.stat().st_mtime for file in files if "__pycache__" not in file.parts)
