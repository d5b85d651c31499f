"""One version everywhere: workspace, members, chart, changelog, and the images that chart and compose file ask for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
WORKSPACE = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
MEMBERS = tuple(WORKSPACE["tool"]["uv"]["workspace"]["members"])


def _version(folder: Path) -> str:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]


def test_workspace_members_and_chart_have_one_version() -> None:
    """R-T05: chart, appVersion and every distribution are released together."""
    chart = yaml.safe_load((REPOSITORY / "charts" / "membudget" / "Chart.yaml").read_text())
    expected = _version(REPOSITORY)
    found = {member: _version(REPOSITORY / member) for member in MEMBERS}
    found |= {"chart": chart["version"], "appVersion": chart["appVersion"]}
    assert dict.fromkeys(found, expected) == found
    (newest, *_) = re.findall(r"^## (\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert expected == newest


def test_the_chart_asks_for_the_images_that_are_built() -> None:
    """R-T06: repository and default tag in the values are what images/build.py writes."""
    listing = "import build; print(*(build.tag(member) for member in build.IMAGES))"
    images = REPOSITORY / "images"
    built = subprocess.run([sys.executable, "-c", listing], cwd=images, capture_output=True, text=True, check=True)
    values = yaml.safe_load((REPOSITORY / "charts" / "membudget" / "values.yaml").read_text())
    example = values["example"]
    assert ("", "") == (values["controller"]["tag"], example["tag"])  # empty is the chart's appVersion
    asked = (values["controller"]["repository"], example["sidecarRepository"], example["repository"])
    assert built.stdout.split() == [f"{repository}:{_version(REPOSITORY)}" for repository in asked]


def test_the_compose_file_asks_for_the_images_that_are_built() -> None:
    """R-T05: by tag; a release that forgot it would start the last one."""
    services = yaml.safe_load((REPOSITORY / "deploy" / "compose" / "compose.yaml").read_text())["services"]
    asked = {service["image"] for service in services.values()}
    assert {f"membudget-{member}:{_version(REPOSITORY)}" for member in ("engine", "sidecar")} == asked


def test_a_release_has_every_member() -> None:
    """R-T05: a wheel for each member of the workspace."""
    images = REPOSITORY / "images"
    listing = "import release; print(*sorted(release.MEMBERS))"
    listed = subprocess.run([sys.executable, "-c", listing], cwd=images, capture_output=True, text=True, check=True)
    assert sorted(MEMBERS) == listed.stdout.split()


def test_each_image_starts_its_own_member() -> None:
    """R-T06: a Dockerfile for each member that runs in a cluster, with that member's lock beside them."""
    for member in ("controller", "sidecar", "engine"):
        recipe = (REPOSITORY / "images" / member / "Dockerfile").read_text()
        assert [f"membudget_{member}"] == re.findall(r'^ENTRYPOINT \["python3", "-m", "(\w+)"\]$', recipe, re.MULTILINE)
        assert (REPOSITORY / "images" / "requirements" / f"{member}.txt").exists()
