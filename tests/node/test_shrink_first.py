"""Shrink first on a real kubelet: a pod full of cache gets a lower memory limit, with membudget and without.

Covers: the order (plan, bytes, limit; going up, limit and then plan), that nobody is killed, and what becomes of the
same resize where nothing is given back first. On cgroup v1 the kernel refuses a limit under the usage with EBUSY, and
since Kubernetes 1.34 the kubelet asks for none; what v2 does, tests/emulated shows. Neighbour: burst.py.
"""

from __future__ import annotations

import errno
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.quantities import MIB
from node.burst import COLLECTION, deploy, settled
from node.installed import ENGINE, NAMESPACE, Installed, Pod
from node.load import Conversation, Load, distinct
from node.sandbox import until

pytestmark = pytest.mark.node

LARGE, SMALL = 96 * MIB, 52 * MIB
SHRINKS = f"{LARGE // MIB} -> {SMALL // MIB} MiB"
FULL = 58 * MIB
"""What an engine holds that was talked with enough: more than the lower limit."""
SPEC: dict[str, Any] = {
    "budget": {"total": "85%", "components": {"sessions": "60%"}},
    "caches": {"compression": False},  # else conversations that rest become smaller of themselves
}
FILL_SECONDS = 300.0
RESIZE_SECONDS = 60.0
REFUSED_SECONDS = 12.0
"""The kubelet looks again after 10 s."""


@pytest.fixture(scope="module")
def full(installed: Installed) -> dict[str, Pod]:
    """Two pods of the same kind with the same limit, full of conversations alike; nobody may resize either yet."""
    for name in ("shrunk", "unshrunk"):
        deploy(installed, name, 1, limit=_quantity(LARGE), **SPEC)
    pods = {name: settled(installed, name, 1)[0] for name in ("shrunk", "unshrunk")}
    questions = itertools.cycle(distinct(1000, COLLECTION)[::-1])
    for pod in pods.values():
        with Load(installed.node, _only(pod), questions, 2, Conversation):
            until(lambda pod=pod: used(installed, pod) > FULL, FILL_SECONDS)
    return pods


def test_a_lower_limit_without_shrink_first_is_refused(
    installed: Installed, full: dict[str, Pod], publish: Callable[[str], None]
) -> None:
    """Goal 1, the other side: asked directly, the kubelet does not get there, nor would the kernel."""
    pod = full["unshrunk"]
    before = used(installed, pod)
    patch = {"spec": {"containers": [{"name": ENGINE, "resources": _memory(SMALL)}]}}
    resize(installed, pod, patch)
    until(lambda: resize_problem(installed, pod) != "", RESIZE_SECONDS)
    problem = resize_problem(installed, pod)
    ended = time.monotonic() + REFUSED_SECONDS
    while time.monotonic() < ended:
        assert LARGE == installed.limit(pod, ENGINE)
        time.sleep(0.2)
    limit_file = installed.cgroup(pod, ENGINE) / "memory.limit_in_bytes"
    kernel = _refusal_of_the_kernel(limit_file) if limit_file.exists() else "cgroup v2, not asked: it would kill"
    publish(
        f"{SHRINKS} asked of a pod that uses {before / MIB:.0f} MiB, without shrink first: the limit stayed for "
        f"{REFUSED_SECONDS:.0f} s; kubelet: {problem}; kernel: {kernel}"
    )
    assert limit_file.exists() is False or kernel == "EBUSY"
    resize(installed, pod, {"spec": {"containers": [{"name": ENGINE, "resources": _memory(LARGE)}]}})


def test_with_shrink_first_the_bytes_go_and_then_the_limit_falls(
    installed: Installed, full: dict[str, Pod], publish: Callable[[str], None]
) -> None:
    """Goal 1: smaller plan, bytes given back as measured, lower limit; nobody is killed and nothing restarts."""
    pod = full["shrunk"]
    before = used(installed, pod)
    started = time.monotonic()
    resized(installed, _quantity(SMALL))
    seen: list[tuple[float, int, int]] = []
    while (limit := installed.limit(pod, ENGINE)) != SMALL:
        seen.append((time.monotonic() - started, limit, used(installed, pod)))
        assert time.monotonic() - started < RESIZE_SECONDS, (installed.condition("Resized", "shrunk"), seen[-1])
        time.sleep(0.02)
    took = time.monotonic() - started
    given_back = next(at for at, _, amount in seen if amount < SMALL)
    until(lambda: installed.condition("Resized", "shrunk")[0] == "True", RESIZE_SECONDS)
    after = used(installed, pod)
    publish(
        f"shrink first, {SHRINKS}: {before / MIB:.0f} MiB in use, under the lower limit {given_back:.1f} s and "
        f"the limit set {took:.1f} s after kubectl apply; {after / MIB:.0f} MiB in use then, 0 kills, 0 restarts"
    )
    assert ["GivingBack", "Resizing", "Resized"] == installed.transitions("Resized", "shrunk")
    assert {LARGE} == {limit for _, limit, _ in seen}
    assert seen[-1][2] < SMALL
    assert (0, 0) == (kills(installed, pod), installed.pod("shrunk").restarts(ENGINE))
    assert (pod.uid, 1) == (installed.pod("shrunk").uid, _status(installed)["resizedPods"])


def test_a_limit_that_cannot_be_reached_is_not_set_and_the_condition_has_the_figure(
    installed: Installed, full: dict[str, Pod]
) -> None:
    """R-P10: less than the engine's own code needs; the sidecar refuses the plan, so the limit stays."""
    pod = full["shrunk"]
    resized(installed, "24Mi")
    until(lambda: "BudgetBelowFloor" in installed.condition("Resized", "shrunk")[2], RESIZE_SECONDS)
    assert ("False", "GivingBack") == installed.condition("Resized", "shrunk")[:2]
    assert SMALL == installed.limit(pod, ENGINE)
    assert 0 == kills(installed, pod)


def test_a_higher_limit_comes_before_the_larger_budget(
    installed: Installed, full: dict[str, Pod], publish: Callable[[str], None]
) -> None:
    """Going up: at no moment does the engine hold a budget that its limit does not carry."""
    pod = full["shrunk"]
    started = time.monotonic()
    resized(installed, _quantity(LARGE))
    seen: list[tuple[int, int]] = []
    while (budget := int(installed.metrics(pod.address)["membudget_budget_bytes"])) != LARGE * 85 // 100:
        seen.append((budget, installed.limit(pod, ENGINE)))
        assert time.monotonic() - started < RESIZE_SECONDS, installed.condition("Resized", "shrunk")
        time.sleep(0.02)
    took = time.monotonic() - started
    publish(f"back to {_quantity(LARGE)}: limit and then budget in force {took:.1f} s after kubectl apply")
    assert LARGE == installed.limit(pod, ENGINE)
    assert all(budget <= SMALL for budget, _ in seen)
    assert 0 == kills(installed, pod)
    until(lambda: installed.condition("Resized", "shrunk")[0] == "True", RESIZE_SECONDS)


def resized(installed: Installed, limit: str) -> None:
    """The policy of the pod that is resized asks for this limit."""
    resize_to = {"mode": "ShrinkFirst", "limit": limit}
    installed.apply_policy("shrunk", "shrunk", **SPEC, resize=resize_to)


def resize(installed: Installed, pod: Pod, patch: dict[str, Any]) -> None:
    """As a person asks for it."""
    chosen = ("patch", "pod", pod.name, "-n", NAMESPACE, "--subresource=resize", "-p", json.dumps(patch))
    installed.node.kubectl(*chosen)


def resize_problem(installed: Installed, pod: Pod) -> str:
    """What the kubelet says about the last resize; empty while it says nothing."""
    conditions = installed.node.get("pod", pod.name, "-n", NAMESPACE)["status"]["conditions"]
    told = [each for each in conditions if each["type"] in {"PodResizePending", "PodResizeInProgress"}]
    return "; ".join(f"{each.get('reason')}: {each['message']}" for each in told if each.get("message"))


def used(installed: Installed, pod: Pod) -> int:
    """What the kernel cannot take back from the engine's container, by its own files."""
    folder = installed.cgroup(pod, ENGINE)
    figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    if "total_rss" in figures:
        return int(figures["total_rss"]) + int(figures.get("total_shmem", 0))
    return int(figures["anon"]) + int(figures["shmem"])


def kills(installed: Installed, pod: Pod) -> int:
    """By the kernel, in the engine's container."""
    folder = installed.cgroup(pod, ENGINE)
    file = next(f for f in (folder / "memory.oom_control", folder / "memory.events") if f.exists())
    return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])


def _quantity(byte_count: int) -> str:
    return f"{byte_count // MIB}Mi"


def _memory(limit: int) -> dict[str, Any]:
    text = _quantity(limit)
    return {"limits": {"memory": text}, "requests": {"memory": text}}


def _refusal_of_the_kernel(limit_file: Path) -> str:
    try:
        limit_file.write_text(str(SMALL))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "taken"


def _status(installed: Installed) -> dict[str, Any]:
    return installed.node.get("mempol", "shrunk", "-n", NAMESPACE)["status"]


def _only(pod: Pod) -> Callable[[], list[str]]:
    return lambda: [pod.address]
