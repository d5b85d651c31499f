"""The package as a library: what it exports, what it brings along, and docs/runtime.md, which runs."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import membudget_runtime

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "runtime.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NOT_BROUGHT_ALONG = {
    "numpy",
    "faiss",
    "starlette",
    "uvicorn",
    "psutil",
    "yaml",
    "kopf",
    "kubernetes",
    "membudget_engine",
}


def test_every_name_is_there_and_says_what_it_is() -> None:
    """R-E23: sorted, none twice, each class with a docstring of its own."""
    names = membudget_runtime.__all__
    things = {name: getattr(membudget_runtime, name) for name in names}
    assert names == sorted(set(names))
    assert [name for name, thing in things.items() if isinstance(thing, type) and not thing.__doc__] == []
    assert [name for name, thing in things.items() if not isinstance(thing, type)] == ["Observer"]


def test_every_public_method_of_the_runtime_is_typed_and_documented() -> None:
    """R-E23: nothing without a return type, nothing without a sentence."""
    methods = {
        name: method
        for name, method in inspect.getmembers(membudget_runtime.MemoryRuntime, inspect.isfunction)
        if not name.startswith("_")
    }
    promised = {"snapshot", "status", "breakdown", "limits", "enforce", "adopt", "spilled_values", "track"}
    assert promised | {"release_tracked"} <= methods.keys()
    assert [name for name, method in methods.items() if "return" not in method.__annotations__] == []
    assert [name for name, method in methods.items() if not method.__doc__] == []


def test_it_brings_no_framework_and_no_numpy_along(tmp_path: Path) -> None:
    """R-E23: a process that has started a runtime, with a cache and a control socket, has none of them loaded."""
    program = (
        "import sys, pathlib; from membudget_runtime import MemoryRuntime; folder = pathlib.Path(sys.argv[1]);"
        "runtime = MemoryRuntime(folder, {}); runtime.cache('a', ttl_seconds=1.0).put(b'a', b'a');"
        "runtime.serve(folder / 'engine.sock'); runtime.close(); print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert ("membudget_runtime" in loaded, loaded & NOT_BROUGHT_ALONG) == (True, set())


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """R-E23: each snippet, in one process, in folders of the test."""
    program = "\n".join(SNIPPETS)
    for folder, place in {"/var/lib/service": "state", "/run/membudget": "run"}.items():
        assert folder in program
        (tmp_path / place).mkdir()
        program = program.replace(folder, str(tmp_path / place))
    file = tmp_path / "page.py"
    file.write_text(program + "\nruntime.close()\n")
    run = subprocess.run([sys.executable, "-W", "error", file], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_takes_only_exported_names(snippet: str) -> None:
    """R-E23: what the page shows is what the package promises."""
    imports = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.ImportFrom)]
    taken = {name.name for node in imports if node.module == "membudget_runtime" for name in node.names}
    deep = [node.module for node in imports if (node.module or "").startswith("membudget_runtime.")]
    assert (taken - set(membudget_runtime.__all__), deep) == (set(), [])
