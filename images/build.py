"""Builds the three images with buildah, without a container engine running, and writes them as archives.

Covers: which base is taken, the builds from dist/wheelhouse (`make wheelhouse`), one archive each in dist/images, to be
loaded by `docker load`, `podman load` or `ctr images import`. Everything buildah stores while it works is in a
temporary folder. Not covered: what is in an image (the Dockerfiles), what is installed (`wheelhouse.py`).
"""  # noqa: INP001

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from debian_base import RELEASE, archive
from wheelhouse import IMAGES, REPOSITORY, WHEELHOUSE, project

ARCHIVES: Final = REPOSITORY / "dist" / "images"
DEFAULT_BASE: Final = "python:3.11-slim-bookworm"
LOCAL_BASE: Final = f"localhost/membudget-base:{RELEASE}"
PULL_SECONDS: Final = 300
PROGRAMS: Final = {"buildah": "buildah", "debootstrap": "debootstrap"}


def tag(member: str) -> str:
    """The image's name and tag, as the chart names it without a registry."""
    return f"membudget-{member}:{project(member)['version']}"


def file(member: str) -> Path:
    """Where its archive is."""
    return ARCHIVES / f"{tag(member).replace(':', '-')}.tar"


def missing_programs() -> list[str]:
    """What to say for each program that is not there."""
    return [
        f"{program} is missing. On Debian: apt-get install {package}"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]


class Buildah:
    """buildah with a storage of its own; `vfs` and `chroot` need neither overlay mounts nor namespaces."""

    def __init__(self, folder: Path) -> None:
        self._storage = [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs"]

    def run(self, *arguments: str | Path, check: bool = True, timeout: float | None = None) -> str | None:
        """What it wrote to stdout; None when it failed and `check` is not set."""
        command = ["buildah", *self._storage, *map(str, arguments)]
        quiet = None if check else subprocess.DEVNULL
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=quiet, text=True, check=check, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            if check:
                raise
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def base(self, wanted: str | None) -> str:
        """The wanted base, or the default one, or where that cannot be pulled one made here."""
        if wanted is not None:
            return wanted
        if self.run("pull", "--quiet", DEFAULT_BASE, check=False, timeout=PULL_SECONDS) is not None:
            return DEFAULT_BASE
        _say(f"{DEFAULT_BASE} cannot be pulled here: the base is made from Debian {RELEASE} by debootstrap")
        container = self.run("from", "scratch")
        assert container is not None
        self.run("add", "--quiet", container, archive(), "/")
        self.run("config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.run("commit", "--quiet", "--rm", container, LOCAL_BASE)
        return LOCAL_BASE

    def build(self, member: str, base: str) -> Path:
        """The archive of one image."""
        recipe = REPOSITORY / "images" / member / "Dockerfile"
        options = ["--isolation=chroot", "--format=docker", f"--build-arg=BASE={base}", "--pull=false", "--quiet"]
        self.run("build", *options, f"--file={recipe}", f"--tag={tag(member)}", WHEELHOUSE / member)
        ARCHIVES.mkdir(parents=True, exist_ok=True)
        file(member).unlink(missing_ok=True)  # buildah adds to an archive that is there
        self.run("push", "--quiet", tag(member), f"docker-archive:{file(member)}:{tag(member)}")
        return file(member)


def main(arguments: list[str] | None = None) -> int:
    """Build all three; the exit code."""
    parser = argparse.ArgumentParser(description="Builds the images from dist/wheelhouse into dist/images.")
    parser.add_argument("--base", help=f"base image (default: {DEFAULT_BASE}, else one made here)")
    parsed = parser.parse_args(arguments)
    problems = missing_programs()
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        buildah = Buildah(Path(folder))
        base = buildah.base(parsed.base)
        for member in IMAGES:
            built = buildah.build(member, base)
            _say(f"{built.relative_to(REPOSITORY)}: {built.stat().st_size >> 20} MiB, on {base}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
