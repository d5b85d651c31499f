"""The end of one pod as the API server tells it: how long it took, and how its containers ended.

Covers: following a pod's events from before its deletion to after it, and its engine's log meanwhile. A look now and
then would miss both: the last status stands for a few milliseconds, and the log goes with the pod.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.installed import ENGINE, NAMESPACE, READY_SECONDS, Installed, Pod
from node.sandbox import until


@dataclass
class Ending:
    """Filled when the pod is gone."""

    exit_codes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of the engine and its native sidecar, by the last status that the kubelet wrote."""
    seconds: float = 0.0
    """From just before the deletion was asked for."""
    engine_log: str = ""


@contextmanager
def ending(installed: Installed, pod: Pod, folder: Path) -> Generator[Ending]:
    """Follow this pod; whatever deletes it stands in the block, which ends when the pod is gone."""
    told = Ending()
    events, log = folder / "events.json", folder / "engine.log"
    name = ("-n", NAMESPACE, pod.name)
    watched = installed.node.followed(events, "get", "pod", *name, "--watch", "--output-watch-events", "-o", "json")
    logged = installed.node.followed(log, "logs", *name, "-c", ENGINE, "--follow")
    try:
        until(lambda: bool(_events(events)) and bool(log.read_text()))
        started = time.monotonic()
        yield told
        until(lambda: _deleted(events, pod.uid) is not None, READY_SECONDS)
        told.seconds = time.monotonic() - started
        logged.wait(READY_SECONDS)
    finally:
        for follower in (watched, logged):
            follower.terminate()
            follower.wait()
    last = _deleted(events, pod.uid)
    assert last is not None
    statuses = [*last["status"]["containerStatuses"], *last["status"]["initContainerStatuses"]]
    told.exit_codes = {
        status["name"]: status["state"]["terminated"]["exitCode"]
        for status in statuses
        if status["name"] in pod.containers
    }
    told.engine_log = log.read_text()


def _deleted(file: Path, uid: str) -> dict[str, Any] | None:
    """The pod as it was last of all."""
    for event in _events(file):
        if (event["type"], event["object"]["metadata"]["uid"]) == ("DELETED", uid):
            return event["object"]
    return None


def _events(file: Path) -> list[dict[str, Any]]:
    """Those that are written whole by now."""
    text, decoder = file.read_text(), json.JSONDecoder()
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(text):
        try:
            event, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            break
        found.append(event)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found
