"""membudget on a real kubelet, in the order in which a person meets it; one node and one installation for all.

Neighbours: test_shrink_first.py goes on with the same installation, test_uninstall.py ends it.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable

import pytest

from membudget_contract.profiles import PRODUCTION_SPLIT, SEMANTIC_CACHE
from membudget_contract.quantities import MIB
from membudget_contract.resolve import split_by_ratio
from node.burst import COLLECTION, Outcome, burst, deploy, settled
from node.burst import LIMIT as BURST_LIMIT
from node.endpoints import ReadyEndpoints
from node.installed import (
    CONTROLLER,
    CONTROLLER_PORT,
    ENGINE,
    ENGINE_PORT,
    NAMESPACE,
    READY_SECONDS,
    SIDECAR,
    SIDECAR_PORT,
    Installed,
    Pod,
    resident_bytes,
)
from node.load import Load, ask, distinct
from node.sandbox import until

pytestmark = pytest.mark.node

LIMIT = 200 * MIB
"""The chart's for the example."""
SMALL = 90 * MIB
CEILING = 4 * MIB
"""Of the semantic cache, under the smaller budget; the questions take 7 MB."""
QUESTIONS = 12_000
KILLS = int(os.environ.get("MEMBUDGET_NODE_KILLS", "5"))
"""Pods of each mode."""
GRACE_SECONDS = 30
"""The chart's for the example."""
ORDER_SECONDS = 60.0
CACHE_BUDGET = f"membudget_component_budget_bytes{{{SEMANTIC_CACHE}}}"
CACHE_OWNED = f"membudget_component_owned_bytes{{{SEMANTIC_CACHE}}}"


def test_the_chart_runs_under_the_restricted_standard(installed: Installed, publish: Callable[[str], None]) -> None:
    """R-T05, R-T06: controller, engine and native sidecar are ready where a pod that asks for no less is refused."""
    careless = ("run", "careless", "-n", NAMESPACE, "--image=none", "--dry-run=server")
    refused = installed.node.kubectl(*careless, check=False)
    assert refused.returncode == 1
    assert 'violates PodSecurity "restricted' in refused.stderr
    pod = installed.pod()
    figures: list[str] = []
    for owner, container in ((installed.controller(), CONTROLLER), (pod, SIDECAR), (pod, ENGINE)):
        (process,) = installed.processes(owner, container)
        memory = resident_bytes(process)
        figures.append(f"{container} {memory['VmRSS'] / MIB:.1f} MiB RSS, {memory['RssAnon'] / MIB:.1f} anonymous")
        assert 0 == owner.restarts(container)
    publish("just started on a kubelet: " + "; ".join(figures))


def test_an_applied_policy_moves_the_budget_and_the_engine_gives_bytes_back(
    installed: Installed, publish: Callable[[str], None]
) -> None:
    """R-P01, R-P08, R-S05: kubectl apply, acknowledged generation, smaller ceilings, fewer bytes held and resident."""
    pod = installed.pod()
    installed.apply_policy(budget={"total": "75%", "signal": "Unreclaimable"})
    until(lambda: holds(installed, pod, LIMIT * 75 // 100) and installed.is_programmed(), ORDER_SECONDS)
    began = time.monotonic()
    asked = ask(installed.node, pod.address, distinct(1000)[:QUESTIONS])
    publish(f"{QUESTIONS / (time.monotonic() - began):.0f} distinct questions answered in a second")
    assert (QUESTIONS, {}) == (asked.answered, dict(asked.failed))
    until(lambda: installed.metrics(pod.address)[CACHE_OWNED] > CEILING, ORDER_SECONDS)
    (process,) = installed.processes(pod, ENGINE)
    before, resident = installed.metrics(pod.address)[CACHE_OWNED], resident_bytes(process)["RssAnon"]

    started = time.monotonic()
    smaller = {"total": "90Mi", "signal": "Unreclaimable", "components": {SEMANTIC_CACHE: "4Mi"}}
    generation = installed.apply_policy(budget=smaller)
    until(lambda: holds(installed, pod, SMALL, CEILING) and installed.is_programmed(), ORDER_SECONDS)
    took = time.monotonic() - started
    until(lambda: installed.metrics(pod.address)[CACHE_OWNED] <= CEILING, ORDER_SECONDS)
    after = installed.metrics(pod.address)[CACHE_OWNED]
    given_back = resident - resident_bytes(process)["RssAnon"]
    publish(
        f"policy generation {generation} in force {took:.1f} s after kubectl apply: semantic cache {before / MIB:.1f} "
        f"-> {after / MIB:.1f} MiB, engine's anonymous memory {given_back / MIB:.1f} MiB less"
    )
    assert given_back > 0
    assert 0 == installed.pod().restarts(ENGINE)


def test_metrics_are_scraped_at_the_ports_that_the_pods_declare(installed: Installed) -> None:
    """R-S10, R-T05: each port a PodMonitor of the chart names answers at the pod's address with what it should."""
    pod = installed.pod()
    assert LIMIT == installed.metrics(pod.address, SIDECAR_PORT)["membudget_limit_bytes"]
    assert 10_000 < installed.metrics(pod.address, ENGINE_PORT)["membudget_engine_chunks{stdlib}"]
    orders = installed.metrics(installed.controller().address, CONTROLLER_PORT).items()
    assert 0 < sum(count for name, count in orders if name.startswith("membudget_controller_pushes_total"))


def test_a_percent_budget_follows_an_in_place_resize(installed: Installed, publish: Callable[[str], None]) -> None:
    """R-P03: the kubelet raises the limit of the running container; the sidecar follows by its own reading."""
    pod = installed.pod()
    installed.apply_policy(budget={"total": "75%"})
    until(lambda: holds(installed, pod, LIMIT * 75 // 100), ORDER_SECONDS)
    larger = '{"spec":{"containers":[{"name":"engine","resources":{"limits":{"memory":"260Mi"}}}]}}'
    started = time.monotonic()
    installed.node.kubectl("patch", "pod", pod.name, "-n", NAMESPACE, "--subresource=resize", "-p", larger)
    until(lambda: 260 * MIB == installed.metrics(pod.address)["membudget_limit_bytes"], ORDER_SECONDS)
    seen = time.monotonic() - started
    until(lambda: holds(installed, pod, 195 * MIB), ORDER_SECONDS)
    publish(
        f"in-place resize 200 -> 260 MiB: seen by the sidecar {seen:.1f} s after the patch, "
        f"75 % of it in force after {time.monotonic() - started:.1f} s"
    )
    assert (0, 0) == (installed.pod().restarts(ENGINE), installed.pod().restarts(SIDECAR))


def test_a_killed_engine_is_started_again_and_gets_its_plan(
    installed: Installed, publish: Callable[[str], None]
) -> None:
    """R-P08: SIGKILL to the engine; the same pod serves again and holds the policy's budget."""
    pod = installed.pod()
    (process,) = installed.processes(pod, ENGINE)
    started = time.monotonic()
    os.kill(process, signal.SIGKILL)
    until(lambda: installed.pod().restarts(ENGINE) == 1 and installed.pod().ready, READY_SECONDS)
    until(lambda: holds(installed, pod, budget_now(installed)), ORDER_SECONDS)
    publish(f"engine killed: the pod was ready and held its plan {time.monotonic() - started:.1f} s later")
    assert 0 == installed.pod().restarts(SIDECAR)


def test_a_killed_sidecar_costs_no_query(installed: Installed, publish: Callable[[str], None]) -> None:
    """Guarantee 5: the engine answers on meanwhile, and the new sidecar resumes the plan it kept."""
    pod = installed.pod()
    budget = budget_now(installed)
    (process,) = installed.processes(pod, SIDECAR)
    with Load(installed.node, lambda: [pod.address], itertools.cycle(distinct(50)), agents=2) as load:
        started = time.monotonic()
        os.kill(process, signal.SIGKILL)
        until(lambda: installed.pod().restarts(SIDECAR) == 1 and installed.pod().ready, READY_SECONDS)
        until(lambda: holds(installed, pod, budget), ORDER_SECONDS)
        took = time.monotonic() - started
    publish(
        f"sidecar killed: it held its plan again {took:.1f} s later; {load.answered} queries meanwhile, none failed"
    )
    assert {} == dict(load.failed)
    assert load.answered > 0
    assert installed.pod().restarts(ENGINE) <= 1


def test_a_rolling_update_costs_no_query(installed: Installed, publish: Callable[[str], None]) -> None:
    """R-E17: clients that ask ready endpoints, as a service does, see no failure while every pod is replaced."""
    old = installed.pod()
    with (
        ReadyEndpoints(installed, "retriever") as ready,
        Load(installed.node, lambda: ready.addresses, itertools.cycle(distinct(50)), agents=2) as load,
    ):
        installed.node.kubectl("rollout", "restart", "deploy/retriever", "-n", NAMESPACE)
        installed.node.kubectl("rollout", "status", "deploy/retriever", "-n", NAMESPACE, "--timeout=150s")
        until(lambda: [old.uid] != [pod.uid for pod in installed.pods()] and len(installed.pods()) == 1, READY_SECONDS)
    publish(f"rolling update: {load.answered} queries by two agents over both pods, failed: {dict(load.failed)}")
    assert {} == dict(load.failed)
    until(installed.is_programmed, ORDER_SECONDS)


def test_a_deleted_pod_is_gone_within_its_grace_period(installed: Installed, publish: Callable[[str], None]) -> None:
    """R-E17, R-P13: nobody is killed, nothing holds the pod back; the sidecar ends after the engine."""
    pod = installed.pod()
    started = time.monotonic()
    installed.node.kubectl("scale", "deploy/retriever", "-n", NAMESPACE, "--replicas=0")
    codes: dict[str, int] = {}

    def gone() -> bool:
        for left in installed.pods():
            codes.update(
                (name, status["state"]["terminated"]["exitCode"])
                for name, status in left.containers.items()
                if "terminated" in status.get("state", {})
            )
        return not installed.pods()

    until(gone, GRACE_SECONDS)
    publish(f"deleted pod {pod.name} was gone after {time.monotonic() - started:.1f} s; exit codes as seen: {codes}")
    assert set(codes.values()) <= {0}


def holds(installed: Installed, pod: Pod, total: int, ceiling: int | None = None) -> bool:
    """The sidecar's budget is that, and the engine's ceilings follow from it, or one is named."""
    try:
        read = installed.metrics(pod.address)
    except OSError:
        return False
    expected = ceiling or split_by_ratio(total, PRODUCTION_SPLIT)[SEMANTIC_CACHE]
    return (total, expected) == (read.get("membudget_budget_bytes"), read.get(CACHE_BUDGET))


def budget_now(installed: Installed) -> int:
    """75 % of the limit that the kernel holds the engine's container to."""
    return installed.limit(installed.pod(), ENGINE) * 75 // 100


def test_a_load_that_kills_the_observed_pod_leaves_the_enforced_one_alive(
    installed: Installed, publish: Callable[[str], None]
) -> None:
    """R-P12, R-E18: same image, limit, requests, questions, conversations; only `mode` differs. The kernel counts."""
    questions = distinct(1000, COLLECTION)[::-1]  # the longest answers first: they fill conversations soonest
    deploy(installed, "observed", KILLS, mode="Observe")
    observed = burst(installed, settled(installed, "observed", KILLS), questions)
    installed.node.kubectl("scale", "deploy/observed", "-n", NAMESPACE, "--replicas=0")
    until(lambda: not installed.pods("observed"), READY_SECONDS)
    deploy(installed, "enforced", KILLS, mode="Enforce")
    most = max(outcome.answered for outcome in observed)
    # Twice what any of the others lived to answer.
    enforced = burst(installed, settled(installed, "enforced", KILLS), questions[: 2 * most])
    installed.node.kubectl("scale", "deploy/enforced", "-n", NAMESPACE, "--replicas=0")
    publish(f"conversations against a limit of {BURST_LIMIT}: Observe {told(observed)}; Enforce {told(enforced)}")
    assert [(1, "OOMKilled")] * KILLS == [(each.oom_kills, each.reason) for each in observed]
    assert [(0, None)] * KILLS == [(each.oom_kills, each.reason) for each in enforced]
    assert [2 * most] * KILLS == [each.answered for each in enforced]


def told(outcomes: list[Outcome]) -> str:
    """In one line."""
    killed = sum(bool(outcome.oom_kills) for outcome in outcomes)
    return f"{killed} of {len(outcomes)} killed, after {sorted(outcome.answered for outcome in outcomes)} answers"
