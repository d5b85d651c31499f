"""A policy file is read strictly, and every change of it is noticed (R-S12)."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy import MemoryPolicy, Mode
from membudget_sidecar.plans.policy_file import MAX_BYTES, PolicyFile
from sidecar.fake_engine import eventually

YAML = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {name: retrieval}
spec:
  mode: Observe
  budget: {total: 100Mi}
"""


def load(folder: Path, content: str | bytes) -> MemoryPolicy:
    """The policy of a file with that content."""
    path = folder / "policy.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return PolicyFile(path).load()


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    """R-S12: JSON is YAML; both give the same policy."""
    spec = {"mode": "Observe", "budget": {"total": "100Mi"}}
    document = {
        "apiVersion": "membudget.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": "retrieval"},
        "spec": spec,
    }
    policy = load(tmp_path, YAML)
    assert Mode.OBSERVE == policy.spec.mode
    assert policy == load(tmp_path, json.dumps(document))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (YAML.replace("mode: Observe", "mode: Observe\n  mode: Enforce"), "mode: stands twice, again in line 6"),
        (YAML.replace("100Mi}", "&total 100Mi}\n  # *total"), None),
        (YAML.replace("total: 100Mi}", "total: &a 100Mi, signal: *a}"), "the file: holds a YAML alias"),
        (YAML.replace("100Mi", "!!str 100Mi"), "the file: holds a YAML tag"),
        (YAML.replace("100Mi", "!!timestamp 100Mi"), "the file: holds a YAML tag"),
        (YAML + "---\n" + YAML, "the file: is no single YAML document: expected a single document"),
        ("", "the file: does not hold one MemoryPolicy"),
        ("- a list", "the file: does not hold one MemoryPolicy"),
        ("? [a, list]\n: as a key", "the file: is no single YAML document: unhashable"),
        ("a: 2001-99-99", "the file: is no single YAML document: month must be in 1..12"),
        ("a: 1" + ":1" * 200 + ".0", "the file: is no single YAML document: int too large"),
        ("[" * 100_000, "the file: is no single YAML document: maximum recursion"),
        (b"\xff\xfe\x00\xd8", "the file: is no single YAML document"),
        (YAML.replace("total", "totel"), "spec.budget.totel: is an unknown field"),
        (YAML + "#" * MAX_BYTES, f"has more than {MAX_BYTES} bytes"),
    ],
)
def test_what_nobody_means_is_refused_with_the_reason(tmp_path: Path, content: str | bytes, says: str | None) -> None:
    """R-S12, fault 97: in one line, and naming the place."""
    if says is None:
        assert "retrieval" == load(tmp_path, content).name
        return
    with pytest.raises(PolicyInvalid) as refusal:
        load(tmp_path, content)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    """R-S12: the reason says which file and why."""
    path = tmp_path / "gone.yaml"
    with pytest.raises(PolicyInvalid, match=r"gone\.yaml cannot be read: No such file or directory"):
        PolicyFile(path).load()


def touched_at(path: Path) -> int:
    """The time a change made now gets."""
    path.touch()
    return path.stat().st_ctime_ns


def test_a_change_is_noticed_however_the_file_is_replaced(tmp_path: Path) -> None:
    """R-S12: written over, written over or renamed over with its old time and size, removed; each once."""
    path = tmp_path / "policy.yaml"
    path.write_text(YAML)
    file = PolicyFile(path)
    seen = [file.changed()]
    file.load()
    seen.append(file.changed())
    path.write_text(YAML.replace("100Mi", "200Mi") + "\n")
    seen.append(file.changed())
    file.load()
    aside = tmp_path / "policy.new"
    eventually(lambda: touched_at(aside) > path.stat().st_ctime_ns, "the file system's clock moves")
    before = path.stat()
    path.write_text(path.read_text().replace("200Mi", "400Mi"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen.append(file.changed())
    file.load()
    aside.write_text(path.read_text().replace("400Mi", "300Mi"))
    os.utime(aside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    aside.replace(path)
    seen.append(file.changed())
    file.load()
    path.unlink()
    seen.append(file.changed())
    with contextlib.suppress(PolicyInvalid):
        file.load()
    seen.append(file.changed())
    assert [True, False, True, True, True, True, False] == seen


@given(st.binary(max_size=300) | st.text(alphabet="{}[]:-?&*!|>'\"%@`#,\n ab0.~=<", max_size=80).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_policy_or_refused_as_one(tmp_path: Path, content: bytes) -> None:
    """R-S12: whatever stands in the file, PolicyInvalid is the only way it fails."""
    with contextlib.suppress(PolicyInvalid):
        load(tmp_path, content)
