"""The ledger: every byte held on purpose, admitted before it is allocated.

Covers: ceilings by component, the limit of what is neither index nor cache, reservations, eviction by priority to make
room, and the figures for a report. Does not act on a target from outside (`reclaim`), nor know how large the room over
all components is (`room`), nor what was found free and may be taken without another look (`credit`), nor measure other
processes. Its lock guards all bookkeeping of all components, so that there is one lock and no order of locks to get
wrong.

Room: managed bytes may reach `target - (signal - managed)`, where `target` is the soft entry less a margin. As
unmanaged bytes move, the signal is read again after every MiB admitted and every 100 ms: 10 us each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from membudget_contract.policy import EVICTABLE, Priority, Signal
from membudget_runtime.arena import SEGMENT_BYTES
from membudget_runtime.bounds import Bounds
from membudget_runtime.component import Account, Component, Removed
from membudget_runtime.credit import CREDIT_BYTES, Credits
from membudget_runtime.errors import NoRoom, OverBaseLimit, UnknownComponent, ValueTooLarge
from membudget_runtime.own_memory import Allocator, OwnMemory
from membudget_runtime.room import Room
from membudget_runtime.yielding_lock import YieldingLock

TRIM_AGAIN_SECONDS: Final = 1.0
BATCH_BYTES: Final = SEGMENT_BYTES
"""Evicted at once when anything must go: so that whole segments come free without moving."""
UNBOUNDED: Final = sys.maxsize
STEP_BYTES: Final = 1024 * 1024
"""Evicted under one hold of the lock: some milliseconds, below the 20 ms that a query may wait."""


class Reservation(AbstractContextManager[None]):
    """Room held while one block runs."""

    __slots__ = ("_asked", "_ledger")

    def __init__(self, ledger: Ledger, component: str, byte_count: int, priority: Priority) -> None:
        self._ledger = ledger
        self._asked = (component, byte_count, priority)

    def __enter__(self) -> None:
        self._ledger.set_aside(*self._asked)

    def __exit__(self, *_error: object) -> None:
        component, byte_count, _ = self._asked
        self._ledger.return_reserved(component, byte_count)


class Ledger:
    """Registers components and admits their bytes. Thread-safe."""

    def __init__(self, bounds: Bounds, *, memory: OwnMemory, allocator: Allocator, clock: Callable[[], float]) -> None:
        self.lock = YieldingLock()
        self.bounds = bounds
        self.refused = 0
        self._memory = memory
        self._allocator = allocator
        self._clock = clock
        self._components: dict[str, Component] = {}
        self._reserved: dict[str, int] = {}
        self._tracked: dict[str, int] = {}
        self._room = Room(memory, self.charged_bytes, clock)
        self._trimmed_at = -TRIM_AGAIN_SECONDS
        self._credits = Credits()
        """Until the signal is read again at the latest."""
        self._held_over: dict[str, int] = {}
        """Observe mode: what each component may hold although its ceiling is lower."""

    def register(self, component: Component) -> None:
        """Take a component in; its name is its ceiling's name in the policy."""
        with self.lock:
            former = self._components.get(component.name)
            if former is not None and not isinstance(former, Account):
                raise ValueError(f"component {component.name!r} is registered already")
            self._components[component.name] = component
            self._credits.take_back()

    @property
    def components(self) -> tuple[Component, ...]:
        """All components, in the order of their registration."""
        return tuple(self._components.values())

    def set_bounds(self, bounds: Bounds) -> None:
        """Hold these bounds from now on. Brings nothing down by itself: `reclaim` does.

        In Observe mode what is held over a ceiling stays and does not grow: an admission evicts what it brings, a
        batch at a time, and what left otherwise does not come back.
        """
        with self.lock:
            self.bounds = bounds
            self._credits.take_back()
            self._room.forget()
            kept = () if bounds.live else self._components.values()
            self._held_over = {component.name: self.held_bytes(component) for component in kept}

    def tell_room(self, room_bytes: int) -> None:
        """The sidecar's figure of the room, which sees memory that this process cannot (docs/decisions/0002)."""
        with self.lock:
            self._room.tell(room_bytes, self.bounds)
            self._credits.take_back()

    def ceiling(self, component: str) -> int | None:
        """The component's ceiling in bytes; None where no plan names one."""
        return self.bounds.ceilings.get(component)

    def limit(self, component: Component) -> int | None:
        """What the component may hold: its ceiling, or in Observe mode what it holds over it; the lock is held."""
        ceiling = self.ceiling(component.name)
        held_over = self._held_over.get(component.name)
        return ceiling if ceiling is None or held_over is None else max(ceiling, held_over)

    def owned_bytes(self, component: Component) -> int:
        """Anonymous memory that the component owns and that is tracked in its name."""
        return component.owned_bytes() + self._tracked.get(component.name, 0)

    def reserved_bytes(self, component: Component) -> int:
        """Admitted for the component and not allocated yet, as far as the ledger knows."""
        return self._reserved.get(component.name, 0)

    def tracked_bytes(self, component: str | None = None) -> int:
        """Tracked in the name of one component, or of all."""
        return sum(self._tracked.values()) if component is None else self._tracked.get(component, 0)

    def held_bytes(self, component: Component) -> int:
        """What counts against the component's ceiling: owned and in use, reserved, mapped where the signal has it."""
        name = component.name
        beside = self._tracked.get(name, 0) + self._reserved.get(name, 0) + self._mapped_bytes(component)
        return component.used_bytes() + beside

    def managed_bytes(self) -> int:
        """What counts against the room, over all components."""
        return sum(map(self.held_bytes, self._components.values()))

    def room_bytes(self) -> int | None:
        """How many managed bytes fit now; None in Observe mode, and while neither process can tell.

        While it is None the ceilings alone hold: unknown is no reason to refuse or to evict.
        """
        with self.lock:
            if self._room.is_read_long_ago():
                self._credits.take_back()
            return self._room.room_bytes(self.bounds)

    def over_bytes(self) -> int:
        """Bytes by which the managed bytes exceed the room; at most 0 when they fit or nothing is known."""
        return self._over_bytes_with(0)

    def unreclaimable_over_bytes(self) -> int | None:
        """By how much memory that no page-out gives back exceeds the target, whatever the signal; None: not known."""
        signal, target = self._memory.signal_bytes(Signal.UNRECLAIMABLE), self.bounds.target_bytes
        return None if signal is None or target is None else signal - target

    def reserve(self, component: str, byte_count: int, priority: Priority = Priority.MEDIUM) -> Reservation:
        """Hold room for bytes about to be allocated, while the block runs that this is used as context of.

        Raises:
            NoRoom: they do not fit now, even after evicting what this priority may evict.
            ValueTooLarge: they can never fit.
        """
        return Reservation(self, component, byte_count, priority)

    def set_aside(
        self, component: str, byte_count: int, priority: Priority = Priority.MEDIUM, *, momentary: bool = False
    ) -> None:
        """Hold room until `return_reserved`.

        What is `momentary`, as of one request, asks for room alone: a process over its base limit must go on answering.

        Raises:
            NoRoom, ValueTooLarge: as for `reserve`.
            OverBaseLimit: the process without its index and caches would pass its limit.
            UnknownComponent: neither a plan nor the service has it.
        """
        with self.lock:
            named = self._named(component)
            if not momentary:
                self._check_base(named, byte_count)
            self.admit(named, byte_count, priority)
            self._reserved[component] = self._reserved.get(component, 0) + byte_count

    def return_reserved(self, component: str, byte_count: int) -> None:
        """Give up room that was set aside: what was allocated in it is the component's own by now, or gone."""
        with self.lock:
            self._reserved[component] -= byte_count
            if isinstance(self._components[component], Account):
                # Any other may have used the room for what it holds since.
                self._credits.change(component, -byte_count)

    def base_bytes(self) -> int | None:
        """The process without its index and caches; None when the kernel did not say.

        Unreclaimable bytes less what registered components own, and what is granted to nobody's component, as an
        embedding buffer, whether it is filled yet or not. Mapped files are never part of it, whatever the signal.
        """
        with self.lock:
            signal = self._memory.signal_bytes(Signal.UNRECLAIMABLE)
            if signal is None:
                return None
            owned = granted = 0
            for component in self._components.values():
                if isinstance(component, Account):
                    granted += self.reserved_bytes(component)
                else:
                    owned += self.owned_bytes(component)
            return max(0, signal - owned) + granted

    def check_base(self, component: str, incoming_bytes: int) -> None:
        """Refuse bytes in a name that no index and no cache has, when the process without those is over its limit.

        Raises:
            OverBaseLimit: it is, with these bytes; they may fit when others were freed.
            ValueTooLarge: they alone are more than the limit.
            UnknownComponent: neither a plan nor the service has it.
        """
        with self.lock:
            self._check_base(self._named(component), incoming_bytes)

    def count_tracked(self, component: str, byte_count: int) -> None:
        """So many bytes more, or less, exist in the component's name without its own doing.

        Raises:
            UnknownComponent: neither a plan nor the service has it.
        """
        with self.lock:
            self._named(component)
            self._credits.take_back()
            self._tracked[component] = self._tracked.get(component, 0) + byte_count

    def admit(self, component: Component, byte_count: int, priority: Priority) -> None:
        """Make room for `byte_count` more bytes of a component; the caller holds the lock and allocates after.

        Raises:
            NoRoom, ValueTooLarge: as for `reserve`; nothing was allocated.
        """
        if self.spend(component, byte_count):
            return
        if byte_count > min(self._look(component, byte_count)) or component.name in self._held_over:
            try:
                self._admit_to_component(component, byte_count, priority)
                self._admit_to_room(component, byte_count, priority)
            except (NoRoom, ValueTooLarge):
                self.refused += 1
                raise
            self._look(component, byte_count)
        self.note_change(component, byte_count)
        self._room.admitted_bytes += byte_count

    def goes_first(self, component: Component, byte_count: int, priority: Priority) -> Priority | None:
        """The class of the component's that would be evicted first, were so many bytes more admitted; the lock is held.

        None: they fit, or what others hold would go first, or nothing may go for them.
        """
        classes = EVICTABLE[: priority.rank + 1]
        ceiling = self.ceiling(component.name)
        if ceiling is not None and byte_count > ceiling:
            return None
        under_limit, in_room = self._look(component, byte_count)
        if byte_count > under_limit:
            return next((each for each in classes if component.gives(each)), None)
        if byte_count <= in_room:
            return None
        for each in classes:
            giving = [part for part in self._components.values() if part.gives(each)]
            if giving:
                return each if component is max(giving, key=lambda part: part.owned_bytes()) else None
        return None

    def spend(self, component: Component, byte_count: int) -> bool:
        """Admit from what the last look found free; False when `admit` must look. The caller holds the lock."""
        if self._room.is_read_long_ago() or not self._credits.spend(component.name, byte_count):
            return False
        self._room.admitted_bytes += byte_count
        return True

    def is_free(self, component: Component, byte_count: int) -> bool:
        """Whether so many bytes fit without anything giving way. The next admission may find it otherwise."""
        with self.lock:
            spendable = self._credits.covers(component.name, byte_count) and not self._room.is_read_long_ago()
            return spendable or byte_count <= min(self._look(component, byte_count))

    def note_change(self, component: Component, byte_count: int) -> None:
        """The component holds so many bytes more, or less, than was admitted for it; the caller holds the lock."""
        self._credits.change(component.name, byte_count)

    def evict(self, target_bytes: int, up_to: Priority) -> Removed:
        """Evict about `target_bytes`: class by class from Low, in a class the component with most bytes first."""
        removed = Removed()
        with self.lock:
            self._credits.take_back()  # what goes may leave more marks behind
            for priority in EVICTABLE[: up_to.rank + 1]:
                for component in sorted(self._components.values(), key=lambda part: part.owned_bytes(), reverse=True):
                    missing = target_bytes - removed.freed_bytes
                    if missing <= 0:
                        return removed
                    removed.add(component.evict(missing, priority, self.bounds.ranking))
        return removed

    def over_limit_bytes(self, component: Component) -> int:
        """By how much a component that grew without an admission is over its limit, if it is; the lock is held."""
        self._credits.take_back()
        limit = self.limit(component)
        return 0 if limit is None else max(0, self.held_bytes(component) - limit)

    def evict_over_ceiling(self, component: Component, incoming_bytes: int, up_to: Priority) -> Removed:
        """Bring a component one step nearer to its ceiling, `incoming_bytes` to come; the caller holds the lock."""
        limit = self.limit(component)
        removed = Removed()
        over = 0 if limit is None else self.held_bytes(component) + incoming_bytes - limit
        if over <= 0:
            return removed
        self._credits.take_back()
        for priority in EVICTABLE[: up_to.rank + 1]:
            missing = _step(over, incoming_bytes) - removed.freed_bytes
            if missing > 0:
                removed.add(component.evict(missing, priority, self.bounds.ranking))
        return removed

    def trim(self) -> bool:
        """Give spare memory and the heap's free pages back to the kernel, and read the room anew."""
        trimmed = self._allocator.trim()
        with self.lock:
            for component in self._components.values():
                component.give_back_spare()
            self._room.read_again()
        return trimmed

    def _admit_to_component(self, component: Component, byte_count: int, priority: Priority) -> None:
        ceiling = self.ceiling(component.name)
        if ceiling is None:
            return
        if byte_count > ceiling:
            raise ValueTooLarge(f"{component.name}: {byte_count} bytes never fit under the ceiling of {ceiling}")
        limit = max(ceiling, self._held_over.get(component.name, 0))
        held = self.held_bytes(component)
        if held + byte_count > limit:
            self.evict_over_ceiling(component, byte_count, priority)
            held = self.held_bytes(component)
            if held + byte_count > limit:
                raise NoRoom(component.name, byte_count, f"{held} of {limit} bytes are held by higher classes")
        if limit > ceiling:
            # An eviction for one value goes a step too far at most: what is below that left by itself.
            self._held_over[component.name] = min(limit, held + byte_count + STEP_BYTES)

    def _admit_to_room(self, component: Component, byte_count: int, priority: Priority) -> None:
        over = self._over_bytes_with(byte_count)
        if over <= 0:
            return
        self.evict(_step(over, byte_count), priority)
        if self._over_bytes_with(byte_count) > 0:
            # What was evicted may lie free in the heap rather than with the kernel.
            self._trim_at_most_every_second()
            if self._over_bytes_with(byte_count) > 0:
                raise NoRoom(component.name, byte_count, "the budget is taken by what may not be evicted for it")

    def _look(self, component: Component, byte_count: int) -> tuple[int, int]:
        """What fits under the component's limit, and what into the room beside the others' credits.

        Where those leave too little for `byte_count` they are taken back. The lesser is the component's credit, but for
        one that holds more than its ceiling (Observe mode): nothing is free for that.
        """
        limit, room = self.limit(component), self.room_bytes()
        under_limit = UNBOUNDED if limit is None else limit - self.held_bytes(component)
        in_room = UNBOUNDED if room is None else room - self.managed_bytes()
        if in_room < byte_count + self._credits.beside(component.name):
            self._credits.take_back()
        in_room -= self._credits.beside(component.name)
        if component.name in self._held_over:
            self._credits.end(component.name)
        else:
            self._credits.give(component.name, min(under_limit, in_room, byte_count + CREDIT_BYTES))
        return under_limit, in_room

    def _over_bytes_with(self, incoming_bytes: int) -> int:
        room = self.room_bytes()
        return 0 if room is None else self.managed_bytes() + incoming_bytes - room

    def _check_base(self, component: Component, incoming_bytes: int) -> None:
        """As `check_base`; the lock is held."""
        limit = self.bounds.base_limit_bytes
        if limit is None or not isinstance(component, Account):
            return
        if incoming_bytes > limit:
            self.refused += 1
            raise ValueTooLarge(f"{component.name}: {incoming_bytes} bytes never fit under the base limit of {limit}")
        if self._over_base(incoming_bytes, limit):
            # What others freed may lie in the heap rather than with the kernel.
            self._trim_at_most_every_second()
            if self._over_base(incoming_bytes, limit):
                self.refused += 1
                raise OverBaseLimit(component.name, incoming_bytes, limit)

    def _over_base(self, incoming_bytes: int, limit: int) -> bool:
        base = self.base_bytes()
        return base is not None and base + incoming_bytes > limit

    def _trim_at_most_every_second(self) -> None:
        if self._clock() - self._trimmed_at >= TRIM_AGAIN_SECONDS:
            self._trimmed_at = self._clock()
            self.trim()

    def charged_bytes(self) -> int:
        """Managed bytes that the kernel charges already: spare pages too, but no reservations, not touched yet.

        Signal less this is what nobody manages, here and for the sidecar, which reads it in the report.
        """
        return sum(
            self.owned_bytes(component) + self._mapped_bytes(component) for component in self._components.values()
        )

    def _named(self, name: str) -> Component:
        """The component of that name; one that only the plan knows has an account from now on."""
        component = self._components.get(name)
        if component is None:
            if self.ceiling(name) is None:
                known = ", ".join(sorted({*self._components, *self.bounds.ceilings}))
                raise UnknownComponent(f"no component {name!r}; there are {known}")
            component = self._components[name] = Account(name)
        return component

    def _mapped_bytes(self, component: Component) -> int:
        # Unknown pages are in the signal and in no component: they count as unmanaged, and what fits stays the same.
        return (component.mapped_bytes() or 0) if self.bounds.counts_mapped() else 0


def _step(over_bytes: int, incoming_bytes: int) -> int:
    """What to evict at once: a batch at least, and no more than a step unless the incoming bytes alone ask for it."""
    return min(max(over_bytes, BATCH_BYTES), max(STEP_BYTES, incoming_bytes))
