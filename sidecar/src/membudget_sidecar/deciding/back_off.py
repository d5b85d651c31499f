"""How long a kind of action rests after it did harm (R-S06).

Pure. Does not judge harm (`verification`) nor decide what is done instead (`ladder`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FIRST_SECONDS: Final = 60.0
"""Six cool-downs of the built-in rungs: shorter would hardly differ from having no back-off."""
LONGEST_SECONDS: Final = 600.0
"""Load changes within the hour; what harmed then may help by now, and is worth a try every ten minutes."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """One kind's last pause and its end; each effective action since then halves the next one."""

    seconds: float
    until: float
    relieved: int = 0


def harmed(before: BackOff | None, now: float) -> BackOff:
    """Twice as long as the last time, 60 s to 10 min.

    The harm shows seconds after the action counted as effective, so that relief is taken back first.
    """
    if before is None:
        return BackOff(FIRST_SECONDS, now + FIRST_SECONDS)
    relieved = max(0, before.relieved - 1)
    seconds = min(LONGEST_SECONDS, max(FIRST_SECONDS, 2 * before.seconds / 2.0**relieved))
    return BackOff(seconds, now + seconds)


def relieved(before: BackOff) -> BackOff:
    """After an effective action: a next harm doubles half as much. The pause under way goes on."""
    return replace(before, relieved=before.relieved + 1)
