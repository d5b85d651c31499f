"""What the leak detector costs a busy process: prints seconds of work and unreclaimable bytes before and after it.

Arguments: `on` or `off`, and how many small objects the work holds and replaces, as a service with a steady load does.
Ends with the detector as it is, so that its tables count.
"""

import gc
import sys
import time
from contextlib import closing

import msgspec

from membudget_contract.policy import Signal
from membudget_runtime.interpreter.gc_tuner import GcTuner
from membudget_runtime.interpreter.leak_detector import LeakDetector
from membudget_runtime.own_memory import Allocator, OwnMemory

REPLACED = 200_000
"""Objects in all, in four quarters of the work."""


def main(live: int, *, on: bool) -> None:
    """After each quarter of the work a look and a snapshot."""
    with closing(OwnMemory()) as memory:
        allocator = Allocator()

        def read() -> int | None:
            return memory.signal_bytes(Signal.UNRECLAIMABLE)

        detector = LeakDetector(
            read_bytes=read, trim=allocator.trim, uninterrupted=GcTuner().uninterrupted, clock=time.monotonic
        )
        kept: list[dict[str, object]] = [{} for _ in range(live)]
        _replace(kept, live)
        gc.collect()
        allocator.trim()
        before = read()
        if on:
            detector.start()
        seconds = 0.0
        for quarter in range(4):
            started = time.perf_counter()
            _replace(kept, REPLACED // 4)
            seconds += time.perf_counter() - started
            if on:
                detector.look()
                detector.snapshot(f"quarter {quarter}")
        findings = detector.findings()
        gc.collect()
        allocator.trim()
        after = read()
    sys.stdout.buffer.write(msgspec.json.encode((len(kept), seconds, before, after, findings)))


def _replace(live: list[dict[str, object]], count: int) -> None:
    """The oldest first."""
    for number in range(count):
        live[number % len(live)] = {"path": f"module_{number}.py", "line": number}


if __name__ == "__main__":
    main(int(sys.argv[2]), on=sys.argv[1] == "on")
