"""Fills the heap, frees it, and asks the allocator to give it back; prints its name and three readings.

The allocator is the one this process was started with.
"""

import sys
from contextlib import closing

import msgspec

from membudget_contract.policy import Signal
from membudget_runtime.own_memory import Allocator, OwnMemory

VALUES = 20_000
VALUE_BYTES = 2_000


def main() -> None:
    """40 MB of values of 2 kB, and one that stays at the end of the heap."""
    with closing(OwnMemory()) as memory:
        allocator = Allocator()
        allocator.use_one_arena()
        before = memory.signal_bytes(Signal.UNRECLAIMABLE)
        values = [bytes([number % 251]) * VALUE_BYTES for number in range(VALUES)]
        last = bytes(VALUE_BYTES)
        full = memory.signal_bytes(Signal.UNRECLAIMABLE)
        values.clear()
        gave = allocator.trim()
        after = memory.signal_bytes(Signal.UNRECLAIMABLE)
    sys.stdout.buffer.write(msgspec.json.encode((allocator.name, before, full, after, gave, len(last))))


if __name__ == "__main__":
    main()
