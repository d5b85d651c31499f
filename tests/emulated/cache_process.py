"""An engine's runtime with a cache full to its budget: holds it, or gives bytes back when it is told a smaller one.

Usage: cache_process.py STATE_FOLDER; the budget comes from MEMBUDGET_TOTAL. It prints `full`; then for every line on
its input, a number of bytes, it holds that budget and prints `held`. It offers new values all the time.
"""

import os
import sys
import threading
from pathlib import Path

import msgspec

from membudget_contract.control_api import Budgets
from membudget_runtime.bounds import start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.errors import NoRoom
from membudget_runtime.memory_runtime import MemoryRuntime

COMPONENT = "semanticCache"
VALUE = os.urandom(100 * 1024)


def main(state_folder: str) -> None:
    """Until its input ends."""
    runtime = MemoryRuntime(Path(state_folder), os.environ)
    start = msgspec.structs.replace(start_budgets(os.environ), cache_compression=False)
    runtime.apply(_all_for_the_cache(start, start.total_bytes))
    cache: BoundedCache[bytes] = runtime.cache(COMPONENT, ttl_seconds=3600.0)
    full = threading.Event()

    def offer() -> None:
        for number in range(1 << 62):
            try:
                with runtime.ledger.reserve(COMPONENT, len(VALUE)):
                    kept = cache.put(str(number).encode(), VALUE[number % 7 :])
            except NoRoom:
                kept = False
            if not kept or len(cache) <= number:  # something went to make room for it
                full.set()
                full.wait(0.001)

    threading.Thread(target=offer, daemon=True).start()
    full.wait()
    sys.stdout.write("full\n")
    sys.stdout.flush()
    for line in sys.stdin:
        runtime.apply(_all_for_the_cache(start, int(line)))
        sys.stdout.write("held\n")
        sys.stdout.flush()


def _all_for_the_cache(budgets: Budgets, total: int) -> Budgets:
    """Soft entry and margin in the same proportion."""
    return msgspec.structs.replace(
        budgets,
        total_bytes=total,
        soft_entry_bytes=budgets.soft_entry_bytes * total // budgets.total_bytes,
        room_margin_bytes=budgets.room_margin_bytes * total // budgets.total_bytes,
        components={COMPONENT: total},
    )


if __name__ == "__main__":
    main(sys.argv[1])
