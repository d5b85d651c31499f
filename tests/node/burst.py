"""The same pod twice, once enforced and once observed: what a load does to each.

Covers: deployments made from the chart's example with a small limit and start-up ceilings far above it, the load, and
how often the kernel killed, read from the container's cgroup while it is there.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.installed import ENGINE, NAMESPACE, READY_SECONDS, Installed, Pod
from node.load import Conversation, Load, Question
from node.sandbox import until

LIMIT = "56Mi"
SOURCE = "engine=/opt/membudget/membudget_engine"
"""What the pods index: their own code, which is small, there on any base, and leaves the processors to the queries."""
COLLECTION = "engine"
START_TOTAL = "1Gi"
"""Of the engine before a sidecar speaks, and in Observe mode for good: its caches alone may then exceed the limit."""
AGENTS = 2
_LOOK_SECONDS = 0.002


@dataclass(frozen=True)
class Outcome:
    """Of one pod."""

    answered: int
    oom_kills: int
    """By the kernel, in the container that the load began with."""
    reason: str | None
    """Why the kubelet says that the container ended, if it did."""


def deploy(installed: Installed, name: str, replicas: int, limit: str = LIMIT, **spec: Any) -> None:
    """So many pods of the example's kind under a policy of that spec; nothing but the spec tells two calls apart."""
    deployment = installed.node.get("deploy", "retriever", "-n", NAMESPACE)
    template = deployment["spec"]["template"]
    template["metadata"]["labels"]["app"] = name
    engine = next(c for c in template["spec"]["containers"] if c["name"] == ENGINE)
    engine["env"] = [{"name": "MEMBUDGET_TOTAL", "value": START_TOTAL}]
    engine["resources"] = {"requests": {"cpu": "50m", "memory": limit}, "limits": {"memory": limit}}
    build = next(c for c in template["spec"]["initContainers"] if c["name"] == "build-index")
    build["args"] = [f"--source={SOURCE}" if arg.startswith("--source=") else arg for arg in build["args"]]
    copy: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }
    installed.apply_policy(name, name, **{"budget": {"total": "88%"}, **spec})
    installed.node.kubectl("apply", "-f", "-", stdin=json.dumps(copy))


def settled(installed: Installed, name: str, replicas: int) -> list[Pod]:
    """Its pods, when all are ready and hold the policy."""
    until(lambda: len(installed.ready_pods(name)) == replicas, READY_SECONDS)
    until(lambda: installed.is_programmed(name), READY_SECONDS)
    return installed.ready_pods(name)


def burst(installed: Installed, pods: list[Pod], questions: list[Question]) -> list[Outcome]:
    """Ask each of the pods all of these at once, or until the kernel has killed its engine."""
    with ExitStack() as stack:
        watched = [(pod, stack.enter_context(_watched(installed, pod))) for pod in pods]
        loads = [
            stack.enter_context(Load(installed.node, _only(pod), _until_killed(questions, kills), AGENTS, Conversation))
            for pod, kills in watched
        ]
        for load in loads:
            load.wait()
        answered = [load.answered for load in loads]
    return [
        Outcome(count, kills.count, _reason(installed, pod, killed=bool(kills.count)))
        for count, (pod, kills) in zip(answered, watched, strict=True)
    ]


class _Kills:
    """The count of one cgroup, kept when the cgroup has gone with its container."""

    def __init__(self, file: Path) -> None:
        self.count = 0
        self._file = file
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                found = re.search(r"^oom_kill (\d+)", self._file.read_text(), re.MULTILINE)
            except OSError:
                return
            assert found is not None, f"{self._file} counts no kills"
            self.count = int(found[1])


@contextmanager
def _watched(installed: Installed, pod: Pod) -> Generator[_Kills]:
    folder = installed.cgroup(pod, ENGINE)
    kills = _Kills(next(f for f in (folder / "memory.oom_control", folder / "memory.events") if f.exists()))
    kills.start()
    try:
        yield kills
    finally:
        kills.stop()


def _only(pod: Pod) -> Any:
    return lambda: [pod.address]


def _until_killed(questions: list[Question], kills: _Kills) -> Iterator[Question]:
    for question in questions:
        if kills.count:
            return
        yield question


def _reason(installed: Installed, pod: Pod, *, killed: bool) -> str | None:
    """Told a moment after the kernel acted; None when it did not and nothing ended since `pod` was looked at."""
    states: list[str] = []

    def told() -> bool:
        (now,) = [each for each in installed.pods(_app(installed, pod)) if each.uid == pod.uid]
        status = now.containers[ENGINE]
        ended = [status.get(key, {}).get("terminated") for key in ("state", "lastState")]
        again = now.restarts(ENGINE) > pod.restarts(ENGINE) or ended[0]
        states[:] = [each["reason"] for each in ended if each] if again else []
        return bool(states) or not killed

    until(told, READY_SECONDS)
    return states[0] if states else None


def _app(installed: Installed, pod: Pod) -> str:
    labels = installed.node.get("pod", pod.name, "-n", NAMESPACE)["metadata"]["labels"]
    return labels["app"]
