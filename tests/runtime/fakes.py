"""Stand-ins that speak the runtime's own interfaces: memory and clock moved by hand, a component made of numbers."""

import gc
from collections.abc import Mapping

import msgspec

from membudget_contract.control_api import Budgets, GcReport
from membudget_contract.plan import CollectionPlan
from membudget_contract.policy import Priority, Signal
from membudget_runtime.bounds import Bounds, start_budgets
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.ledger import Ledger
from membudget_runtime.own_memory import Allocator, OwnMemory

MB = 1024 * 1024
NOTHING_COLLECTED = GcReport(collections=0, collected=0)
RANKING = Ranking(
    {"low": Priority.LOW, "medium": Priority.MEDIUM, "high": Priority.HIGH, "critical": Priority.CRITICAL},
    frozenset({"pinned"}),
)


class HandClock:
    """Stands still until moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since it was made."""
        return self.now

    def tick(self) -> float:
        """One second on."""
        self.now += 1.0
        return self.now


class FakeMemory(OwnMemory):
    """A process whose signal is what its components own and `unmanaged`; None: the kernel does not say."""

    def __init__(self, unmanaged: int | None) -> None:
        self.unmanaged = unmanaged
        self.components: list[Component] = []
        self.readings = 0

    def signal_bytes(self, signal: Signal) -> int | None:
        """The sum, whichever signal is asked."""
        del signal
        self.readings += 1
        if self.unmanaged is None:
            return None
        return self.unmanaged + sum(component.owned_bytes() for component in self.components)


class FakeAllocator(Allocator):
    """Counts how often it was asked to trim."""

    def __init__(self) -> None:
        self.trims = 0

    def trim(self) -> bool:
        """Nothing to give."""
        self.trims += 1
        return False


class Pile(Component):
    """Holds as many bytes by collection as it is told; evicts them to the byte and notes every step."""

    def __init__(self, name: str, held: Mapping[str, int] | None = None) -> None:
        super().__init__(name)
        self.held = dict(held or {})
        self.mapped: int | None = 0
        self.steps: list[int] = []
        self.paged_out: list[int] = []
        self.applied: list[Budgets] = []
        self.spares_given = 0

    def owned_bytes(self) -> int:
        """All collections."""
        return sum(self.held.values())

    def mapped_bytes(self) -> int | None:
        """As set."""
        return self.mapped

    def collections(self) -> list[CollectionUse]:
        """Those that hold bytes."""
        return [CollectionUse(name, 1, held) for name, held in self.held.items() if held]

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Exactly the target, where the class has as much."""
        removed = Removed()
        self.steps.append(target_bytes)
        for name, held in self.held.items():
            taken = min(held, target_bytes - removed.freed_bytes) if ranking.may_evict(name, priority) else 0
            if taken:
                self.held[name] -= taken
                removed.count(name, taken)
                removed.freed_bytes += taken
        return removed

    def apply(self, budgets: Budgets) -> None:
        """Noted."""
        self.applied.append(budgets)

    def give_back_spare(self) -> None:
        """Noted: a trim asks for it."""
        self.spares_given += 1

    def page_out(self, target_bytes: int) -> int:
        """Noted; gives what is mapped."""
        self.paged_out.append(target_bytes)
        given, self.mapped = min(self.mapped or 0, target_bytes), max(0, (self.mapped or 0) - target_bytes)
        return given


def ledger_of(
    *components: Component,
    ceilings: Mapping[str, int],
    target: int | None = None,
    unmanaged: int | None = 0,
    signal: Signal = Signal.UNRECLAIMABLE,
    clock: HandClock | None = None,
) -> tuple[Ledger, FakeMemory]:
    """A ledger over these components, and the memory it reads."""
    memory = FakeMemory(unmanaged)
    memory.components = list(components)
    bounds = Bounds("plan", signal, target, ceilings, RANKING)
    ledger = Ledger(bounds, memory=memory, allocator=FakeAllocator(), clock=clock or HandClock())
    for component in components:
        ledger.register(component)
    return ledger, memory


def start() -> Budgets:
    """The built-in bounds."""
    return start_budgets({})


def budgets_with(ceilings: Mapping[str, int], *, live: bool = True) -> Budgets:
    """Of a policy with these ceilings, the classes of RANKING, and a total that is never met."""
    classes = RANKING.priorities.items()
    return msgspec.structs.replace(
        start(),
        live=live,
        total_bytes=1 << 50,
        soft_entry_bytes=1 << 50,
        components=dict(ceilings),
        collections=tuple(CollectionPlan(name=name, priority=priority) for name, priority in classes),
        exclude_collections=tuple(RANKING.excluded),
        gc_thresholds=gc.get_threshold(),
        cache_compression=False,
    )
