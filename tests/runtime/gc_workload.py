"""A service's work on the interpreter, in a process of its own: prints how often it collected and how long it stood.

Arguments: the mode, the profile, and how many requests. Each request decodes a body and builds objects that refer to
each other and stay for some hundred requests, as in an engine that answers and caches.
"""

import gc
import json
import sys
from collections import deque
from collections.abc import Callable

import msgspec

from membudget_contract.control_api import GcMode
from membudget_contract.policy import ProfileName
from membudget_contract.profiles import PROFILES
from membudget_runtime.interpreter.gc_tuner import GcTuner


class Hit:
    """One result; knows the answer it stands in, which knows it."""

    def __init__(self, answer: "Answer", fields: dict[str, object]) -> None:
        self.answer = answer
        self.fields = fields


class Answer:
    """What one request is answered with."""

    def __init__(self, body: str) -> None:
        self.hits = [Hit(self, fields) for fields in json.loads(body)]


def work(requests: int, ended: Callable[[], None]) -> int:
    """Answer so many requests, tell of each; how many objects the last answers hold."""
    body = json.dumps([{"path": f"module_{number}.py", "lines": [number, number + 9]} for number in range(50)])
    recent: deque[Answer] = deque(maxlen=300)
    for _ in range(requests):
        recent.append(Answer(body))
        ended()
    return sum(len(answer.hits) for answer in recent)


def main(mode: GcMode, profile: ProfileName, requests: int) -> None:
    """The profile's thresholds hold, as a sidecar sends them."""
    tuner = GcTuner()
    tuner.plan(PROFILES[profile].gc_thresholds)
    tuner.use(mode)
    before = gc.get_stats()
    work(requests, tuner.note_activity)
    by_generation = [now["collections"] - then["collections"] for now, then in zip(gc.get_stats(), before, strict=True)]
    sys.stdout.buffer.write(msgspec.json.encode((by_generation, tuner.report().pauses)))


if __name__ == "__main__":
    main(GcMode(sys.argv[1]), ProfileName(sys.argv[2]), int(sys.argv[3]))
