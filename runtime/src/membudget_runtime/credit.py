"""What each component may still take without a look at all of them: free when the ledger looked, and spent since.

Covers: credits by component, and when they end. Does not cover what is free, nor who asks (`ledger`, whose lock guards
this).

Two bounds hold at any moment, as far as holders tell of what they hold: managed bytes and all credits together fit
into the room, and what a component holds fits under its limit together with its credit. Whoever finds one that may be
broken takes every credit back: the next to ask looks again.
"""

from __future__ import annotations

from typing import Final

CREDIT_BYTES: Final = 256 * 1024
"""What one look gives at most beside what was asked for: for some hundred entries of a kilobyte or two."""


class Credits:
    """Bytes by component. Not thread-safe."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def covers(self, component: str, byte_count: int) -> bool:
        """Whether it has as many left."""
        left = self._left.get(component)
        return left is not None and byte_count <= left

    def spend(self, component: str, byte_count: int) -> bool:
        """Take so many of the component's; False when it has not as many left."""
        left = self._left.get(component)
        if left is None or byte_count > left:
            return False
        self._left[component] = left - byte_count
        return True

    def give(self, component: str, free_bytes: int) -> None:
        """So much is free for it, and promised to nobody else; in place of what it had. Below 0: nothing."""
        self.end(component)
        if free_bytes >= 0:
            self._left[component] = free_bytes

    def beside(self, component: str) -> int:
        """Promised to the others."""
        return sum(self._left.values()) - self._left.get(component, 0)

    def change(self, component: str, byte_count: int) -> None:
        """The component holds so many bytes more, or less, than it spent."""
        left = self._left.get(component)
        if byte_count > 0 and (left is None or byte_count > left):
            self.take_back()
        elif left is not None:
            self._left[component] = left - byte_count

    def end(self, component: str) -> None:
        """Nothing is free for it without a look."""
        self._left.pop(component, None)

    def take_back(self) -> None:
        """Nothing is, for anybody."""
        self._left.clear()
