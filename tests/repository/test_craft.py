"""The bar that no linter holds: sizes, opening docstrings, one version, nothing of the machine it was made on."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = ("contract", "controller", "sidecar", "runtime", "engine", "cli")
MODULES = sorted(path for member in MEMBERS for path in (ROOT / member / "src").rglob("*.py"))
MOST_MODULE_LINES = 500
MOST_FUNCTION_LINES = 80


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_small_and_opens_with_what_it_covers(module: Path) -> None:
    """A docstring first, at most 500 lines, no function over 80."""
    text = module.read_text()
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= MOST_FUNCTION_LINES]
    assert (bool(ast.get_docstring(tree)), len(text.splitlines()) <= MOST_MODULE_LINES, long) == (True, True, [])


def test_most_modules_and_functions_are_smaller_than_that() -> None:
    """The measured bar: nine of ten modules under 350 lines, nine of ten functions under 30."""
    modules = sorted(len(path.read_text().splitlines()) for path in MODULES)
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert (modules[len(modules) // 2] <= 150, modules[len(modules) * 9 // 10] <= 350) == (True, True)
    assert lengths[len(lengths) * 9 // 10] <= 30


def test_all_members_have_one_version() -> None:
    """Versions agree, and the changelog has a section for it."""
    projects = [tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"] for member in MEMBERS]
    versions = {project["version"] for project in projects}
    assert len(versions) == 1
    assert f"## {versions.pop()}" in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    """The lock holds hashes, not addresses; nothing points outside the repository."""
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org", "registry.npmjs" + ".org"]
    # A folder `root` or `work` at the top of the file system; `/proc/<pid>/root/` is the kernel's.
    own_paths = r"(?<![\w>}*])/(?:root|work)/"
    pattern = re.compile("|".join([*map(re.escape, hosts), own_paths]))
    texts = [path for path in _tracked() if path.suffix not in {".png", ".faiss"}]
    named = [str(path.relative_to(ROOT)) for path in texts if pattern.search(path.read_text(errors="replace"))]
    assert named == []
