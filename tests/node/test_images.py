"""What is in the three images, read from the archives that were built from the Dockerfiles."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.quantities import MIB
from node.images import REPOSITORY

pytestmark = pytest.mark.node

OWN = {
    "controller": {"membudget-contract", "membudget-controller"},
    "sidecar": {"membudget-contract", "membudget-sidecar"},
    "engine": {"membudget-contract", "membudget-runtime", "membudget-engine"},
}
INSTALLED = "opt/membudget/"


@dataclass(frozen=True)
class Image:
    """One archive: its configuration, and the names and sizes of its files by layer."""

    member: str
    config: dict[str, Any]
    layers: list[dict[str, int]]

    @property
    def installed(self) -> dict[str, int]:
        """What the build put on the base."""
        return {name: size for layer in self.layers for name, size in layer.items() if name.startswith(INSTALLED)}


@pytest.fixture(scope="module", params=sorted(OWN))
def image(image_archives: list[Path], request: pytest.FixtureRequest) -> Image:
    """Each of the three."""
    (archive,) = [path for path in image_archives if path.name.startswith(f"membudget-{request.param}-")]
    with tarfile.open(archive) as tar:
        (manifest,) = json.loads(_read(tar, "manifest.json"))
        layers: list[dict[str, int]] = []
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                layers.append({entry.name.removeprefix("./"): entry.size for entry in layer if entry.isfile()})
        return Image(request.param, json.loads(_read(tar, manifest["Config"]))["config"], layers)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def test_an_image_starts_its_member_as_nobody_in_particular(image: Image) -> None:
    """R-T06: uid 65532, no shell around the program."""
    assert "65532:65532" == image.config["User"]
    assert ["python3", "-m", f"membudget_{image.member}"] == image.config["Entrypoint"]


def test_an_image_has_only_its_own_dependencies(image: Image, publish: Callable[[str], None]) -> None:
    """R-T06: what is installed is what the member's lock names for this platform, and nothing more; no installer."""
    found = {
        match[1].replace("_", "-").lower()
        for name in image.installed
        if (match := re.match(rf"{INSTALLED}([^/]+)-[^-/]+\.dist-info/METADATA$", name))
    }
    lock = (REPOSITORY / "images" / "requirements" / f"{image.member}.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert locked | OWN[image.member] == found
    ours = sum(image.installed.values())
    whole = sum(size for layer in image.layers for size in layer.values())
    publish(f"image {image.member}: {ours / MIB:.1f} MiB on a base of {(whole - ours) / MIB:.1f} MiB")


def test_every_module_in_an_image_is_compiled(image: Image) -> None:
    """R-T06: a read-only root keeps no bytecode, so what is missing here is compiled again at each start."""
    names = set(image.installed)
    sources = [name for name in names if name.endswith(".py") and "/tests/" not in name]
    compiled = {re.sub(r"__pycache__/([^/]+)\.cpython-3\d+\.pyc$", r"\1.py", name) for name in names}
    assert [] == [name for name in sources if name not in compiled]
    assert len(sources) > 50
