"""What is released, without the images: chart package, wheels, manifests, checksums; made as `make release` does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = yaml.safe_load((ROOT / "charts" / "membudget" / "Chart.yaml").read_text())["version"]
MEMBERS = ("cli", "contract", "controller", "engine", "runtime", "sidecar")


def run(folder: str, statement: str, *, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """A statement of Python in a folder of scripts."""
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    return subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path; {statement}"],
        cwd=ROOT / folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def made(folder: str, statement: str) -> None:
    """One that must succeed."""
    done = run(folder, statement)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("helm_on_path")
def test_the_chart_package_is_the_chart_and_nothing_that_makes_it(tmp_path: Path) -> None:
    """R-T05: named by its version; templates, files, schema and README, no scripts."""
    made("images", f"import release; release.chart_package(Path({str(tmp_path)!r}))")
    with tarfile.open(tmp_path / f"membudget-{VERSION}.tgz") as package:
        names = set(package.getnames())
    source = ROOT / "charts" / "membudget"
    wanted = {path for path in source.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert {f"membudget/{path.relative_to(source)}" for path in wanted} - names <= {"membudget/.helmignore"}
    assert [] == [name for name in names if name.endswith((".py", ".pyc"))]


def test_every_member_has_a_wheel_that_says_its_version_and_license(tmp_path: Path) -> None:
    """R-T05: built from the checkout, typed, with the entry points of its pyproject."""
    made("images", f"import release; release.wheels(Path({str(tmp_path)!r}) / 'wheels')")
    found = sorted((tmp_path / "wheels").iterdir())
    assert [f"membudget_{member}-{VERSION}-py3-none-any.whl" for member in MEMBERS] == [file.name for file in found]
    for member, file in zip(MEMBERS, found, strict=True):
        with zipfile.ZipFile(file) as wheel:
            metadata = Parser().parsestr(wheel.read(f"membudget_{member}-{VERSION}.dist-info/METADATA").decode())
            names = wheel.namelist()
        assert (f"membudget-{member}", VERSION, "Apache-2.0") == tuple(
            metadata[field] for field in ("Name", "Version", "License-Expression")
        )
        assert f"membudget_{member}/py.typed" in names
        assert [] == [name for name in names if not name.startswith(f"membudget_{member}")]


def test_checksums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    """R-T05: a changed byte is found, and a file that is missing is not left out."""
    (tmp_path / "images").mkdir()
    for name in ("a.tgz", "images/b.tar"):
        (tmp_path / name).write_bytes(name.encode() * 100_000)
    files = f"folder = Path({str(tmp_path)!r}); files = [folder / 'images/b.tar', folder / 'a.tgz']"
    made("images", f"import release; {files}; release.checksums(folder, files)")
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    expected = [f"{hashlib.sha256((tmp_path / n).read_bytes()).hexdigest()}  {n}" for n in ("a.tgz", "images/b.tar")]
    assert expected == lines
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert 0 == subprocess.run(check, cwd=tmp_path, check=False).returncode
    (tmp_path / "a.tgz").write_bytes(b"other")
    assert 1 == subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode
    (tmp_path / "a.tgz").unlink()
    assert "FileNotFoundError" in run("images", f"import release; {files}; release.checksums(folder, files)").stderr


def test_without_images_there_is_no_release(tmp_path: Path) -> None:
    """R-T05: it says which are missing and what makes them."""
    elsewhere = f"import build, release; build.ARCHIVES = Path({str(tmp_path)!r}); release.DIST = build.ARCHIVES"
    done = run("images", f"{elsewhere}; release.REPOSITORY = build.ARCHIVES.parent; raise SystemExit(release.main())")
    assert (1, True) == (done.returncode, "run `make images manifests` first" in done.stderr), done.stderr
    assert f"membudget-engine-{VERSION}.tar" in done.stderr


@pytest.mark.parametrize(
    ("folder", "statement"),
    [("images", "import release; release.chart_package(Path('.'))"), ("deploy", "import manifests; manifests.write()")],
)
def test_without_helm_it_is_said_what_to_do(folder: str, statement: str, tmp_path: Path) -> None:
    """R-T05: not a traceback of a subprocess."""
    assert (
        "helm is missing: install it, or run `make cluster-binaries`"
        in run(folder, statement, path=str(tmp_path)).stderr
    )
