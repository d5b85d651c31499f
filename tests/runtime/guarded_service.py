"""A service under a guard on its data, with a component that takes a thousand times what it is asked to evict.

Arguments: the folder, the guard. Says "serving" when it can be asked, and ends when its input ends.
"""

import sys
from contextlib import closing
from pathlib import Path

from membudget_contract.policy import Priority
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.memory_runtime import MemoryRuntime


class Greedy(Component):
    """To evict it allocates first."""

    def owned_bytes(self) -> int:
        """Nothing lasting."""
        return 0

    def collections(self) -> list[CollectionUse]:
        """One that may be evicted."""
        return [CollectionUse("default", 1, 1)]

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Touches every page of what it takes."""
        if not ranking.may_evict("default", priority):
            return Removed()
        return Removed(freed_bytes=len(bytearray(b"x") * (1024 * target_bytes)))


def main(folder: Path, guard: str) -> None:
    """Until the input ends."""
    with closing(MemoryRuntime(folder / "state", {"MEMBUDGET_GUARD_DATA": guard})) as runtime:
        runtime.register(Greedy("greedy"))
        runtime.serve(folder / "engine.sock")
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
