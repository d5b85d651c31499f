"""An hour of a leak under load, in simulated time: prints unreclaimable bytes and what a leak detector says of it.

Argument: `on` or `off`. A request keeps the wrapper that was put around its session, as a decorator with a registry
does by mistake: one each 3 s, of about 5 kB. Beside it a steady load makes and drops objects. Ends with the detector as
it is.
"""

import gc
import sys
from contextlib import closing

import msgspec

from membudget_contract.policy import Signal
from membudget_runtime.interpreter.gc_tuner import GcTuner
from membudget_runtime.interpreter.leak_detector import LOOK_SECONDS, LeakDetector
from membudget_runtime.own_memory import Allocator, OwnMemory

HOUR_SECONDS = 3600
SNAPSHOT_SECONDS = 300
LEAK_SECONDS = 3
DROPPED = 200
"""Objects that come and go between two looks."""


class SessionWrapper:
    """What nobody lets go."""

    def __init__(self) -> None:
        self.buffer = bytearray(5_000)


def main(*, on: bool) -> None:
    """A look each 10 s, as the detector's own thread takes them, a snapshot each 5 minutes."""
    now = 0.0
    with closing(OwnMemory()) as memory:
        allocator = Allocator()

        def read() -> int | None:
            return memory.signal_bytes(Signal.UNRECLAIMABLE)

        detector = LeakDetector(
            read_bytes=read, trim=allocator.trim, uninterrupted=GcTuner().uninterrupted, clock=lambda: now
        )
        registry: list[SessionWrapper] = [SessionWrapper() for _ in range(50)]
        load: list[dict[str, object]] = [{} for _ in range(2000)]
        gc.collect()
        allocator.trim()
        before = read()
        if on:
            detector.start()
        for second in range(HOUR_SECONDS + 1):
            now = float(second)
            if second % LEAK_SECONDS == 0:
                registry.append(SessionWrapper())
            if on and second % SNAPSHOT_SECONDS == 0:
                detector.snapshot(f"after {second} s")
            if second % int(LOOK_SECONDS) == 0:
                for number in range(DROPPED):
                    load[(second + number) % len(load)] = {"request": f"{second} {number}"}
                if on:
                    detector.look()
        findings = detector.findings()
        gc.collect()
        allocator.trim()
        after = read()
    sys.stdout.buffer.write(msgspec.json.encode((len(registry), before, after, findings)))


if __name__ == "__main__":
    main(on=sys.argv[1] == "on")
