"""Fills dist/wheelhouse: for each image a folder with all that its build installs, so that a build fetches nothing.

Covers: wheels of the locked dependencies for this machine's Python and platform, by hash; wheels of membudget's own
members; pip itself, which installs them inside; and `requirements.txt`, which pins all of it by hash. The locks are
images/requirements (`make lock`); the images are built by `build.py` or by hand from the Dockerfiles.
"""  # noqa: INP001

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[1]
LOCKS: Final = Path(__file__).parent / "requirements"
WHEELHOUSE: Final = REPOSITORY / "dist" / "wheelhouse"
IMAGES: Final = ("controller", "sidecar", "engine")


def project(member: str) -> dict[str, Any]:
    """The `[project]` table of a member: name, version, dependencies."""
    return tomllib.loads((REPOSITORY / member / "pyproject.toml").read_text())["project"]


def own_members(member: str) -> list[str]:
    """The member and those of this repository that it needs, however far down."""
    found: list[str] = []
    waiting = [member]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.append(current)
            waiting += [
                dependency.removeprefix("membudget-")
                for dependency in project(current)["dependencies"]
                if dependency.startswith("membudget-")
            ]
    return sorted(found)


def fill(member: str) -> Path:
    """The member's folder, made anew.

    Raises:
        subprocess.CalledProcessError: a wheel cannot be had or does not have its hash; pip has said why.
    """
    folder = WHEELHOUSE / member
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    locks = (LOCKS / f"{member}.txt", LOCKS / "installer.txt")
    _download(locks, folder)
    own = [_pinned(name, build_wheel(name, folder)) for name in own_members(member)]
    (folder / "requirements.txt").write_text(locks[0].read_text() + "".join(own))
    return folder


def _download(locks: tuple[Path, ...], folder: Path) -> None:
    chosen = [f"--requirement={lock}" for lock in locks]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", *chosen], check=True)


def build_wheel(member: str, folder: Path) -> Path:
    """Of one of our own members.

    Raises:
        subprocess.CalledProcessError: the member cannot be built.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={folder}"]
    subprocess.run(command, cwd=REPOSITORY / member, check=True, capture_output=True)
    return folder / f"membudget_{member}-{project(member)['version']}-py3-none-any.whl"


def _pinned(member: str, wheel: Path) -> str:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"membudget-{member}=={project(member)['version']} \\\n    --hash=sha256:{digest}\n"


if __name__ == "__main__":
    for image in IMAGES:
        sys.stdout.write(f"{fill(image)}\n")
