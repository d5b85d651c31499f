"""Puts what is released into dist: chart package, wheels, manifests, image archives, and the checksums of all.

Covers: packing the chart (by the helm on the PATH), the wheels of the six members, and SHA256SUMS, which `sha256sum
--check` reads. The archives come from `build.py`, the manifests from `deploy/manifests.py`; what is missing of them is
an error, not left out. `make release` runs everything in order.
"""  # noqa: INP001

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from build import file as archive
from wheelhouse import IMAGES, REPOSITORY, build_wheel, project

DIST: Final = REPOSITORY / "dist"
MEMBERS: Final = ("contract", "runtime", "sidecar", "engine", "controller", "cli")
CHECKSUMS: Final = "SHA256SUMS"
_MANIFESTS: Final = ("membudget", "example")
_BLOCK: Final = 1 << 20


def chart_package(folder: Path) -> Path:
    """The chart as one file, of the version in its Chart.yaml.

    Raises:
        FileNotFoundError: there is no helm.
        subprocess.CalledProcessError: helm refused the chart and has said why.
    """
    helm = shutil.which("helm")
    if helm is None:
        raise FileNotFoundError("helm is missing: install it, or run `make cluster-binaries`, which builds one")
    command = [helm, "package", REPOSITORY / "charts" / "membudget", f"--destination={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / f"membudget-{project('contract')['version']}.tgz"


def wheels(folder: Path) -> list[Path]:
    """One for each member, in a folder made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return [build_wheel(member, folder) for member in MEMBERS]


def checksums(folder: Path, files: list[Path]) -> Path:
    """Of these files, by their paths in the folder.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    lines = [f"{_digest(file)}  {file.relative_to(folder)}\n" for file in sorted(files)]
    (folder / CHECKSUMS).write_text("".join(lines))
    return folder / CHECKSUMS


def main() -> int:
    """Everything; the exit code."""
    made = [*(archive(member) for member in IMAGES), *(DIST / "manifests" / f"{name}.yaml" for name in _MANIFESTS)]
    missing = [str(file.relative_to(REPOSITORY)) for file in made if not file.exists()]
    if missing:
        sys.stderr.write(f"release: run `make images manifests` first; missing: {', '.join(missing)}\n")
        return 1
    try:
        written = checksums(DIST, [chart_package(DIST), *wheels(DIST / "wheels"), *made])
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    sys.stdout.write(written.read_text())
    return 0


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
