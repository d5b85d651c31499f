"""Types that travel are worked out by one thread at a time: msgspec ends the process where two do so at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = sorted(Path(__file__).parents[2].glob("*/src/*/**/*.py"))
THREADS = """
import sys, threading
import msgspec
from membudget_contract.decoding import decode_json

sys.setswitchinterval(1e-6)
decode = {"alone": lambda content, kind: msgspec.json.decode(content, type=kind), "here": decode_json}[sys.argv[1]]
for turn in range(300):
    part = msgspec.defstruct(f"Part{turn}", [(f"part{n}", int | None, None) for n in range(40)])
    whole = msgspec.defstruct(f"Whole{turn}", [(f"whole{n}", part | None, None) for n in range(40)])
    ready, read = threading.Barrier(16), []

    def decode_at_once():
        ready.wait()
        read.append(decode(b'{"whole0":{"part1":7}}', whole))

    threads = [threading.Thread(target=decode_at_once) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [7] * 16 == [one.whole0.part1 for one in read]
"""


def decoding_threads(how: str) -> int:
    """The exit code of a process whose threads meet 300 types at once."""
    return subprocess.run([sys.executable, "-c", THREADS, how], check=False, capture_output=True).returncode


def calls(code: ast.AST) -> Iterator[tuple[str, str]]:
    """Called name and last argument, as they are written."""
    for node in ast.walk(code):
        if isinstance(node, ast.Call) and node.args:
            yield ast.unparse(node.func), ast.unparse(node.args[-1])


def test_threads_that_meet_types_for_the_first_time_all_read_them() -> None:
    """R-P08: a fan-out to 64 pods begins with 64 answers at once."""
    assert decoding_threads("here") == 0


@pytest.mark.parametrize("module", MODULES, ids=lambda module: f"{module.parent.name}/{module.stem}")
def test_nothing_else_works_a_type_out(module: Path) -> None:
    """R-P08: every member reads its messages in several threads."""
    banned = {
        f"msgspec.{kind}.{name}" for kind in ("json", "msgpack", "yaml", "toml") for name in ("decode", "Decoder")
    }
    found = {name for name, _ in calls(ast.parse(module.read_text()))} & banned
    assert (set[str]() if module.stem != "decoding" else {"msgspec.json.Decoder", "msgspec.msgpack.Decoder"}) == found


def test_whatever_object_is_converted_has_a_decoder() -> None:
    """R-P08: kopf's thread converts events while the loop decodes lists."""
    trees = [ast.parse(module.read_text()) for module in MODULES]
    converted = {last for tree in trees for name, last in calls(tree) if name == "msgspec.convert"}
    statements = [one for tree in trees for one in tree.body if isinstance(one, ast.Expr | ast.AnnAssign)]
    ready = {last for one in statements for name, last in calls(one) if name == "json_decoder"}
    plain = {"CollectionName", "Representation", "_KEYED[path]"}  # a string, an enumeration, parts of a `_Document`
    assert {"PodObject", "PolicyObject", "PolicyStatus", "_Document"} == converted - plain
    assert converted - plain <= ready
