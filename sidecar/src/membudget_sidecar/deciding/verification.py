"""How an action is judged: by what was read before and after it, and by what came of it (R-S04, R-S06).

Pure. Does not read (`evidence`, `aftermath`) and does not act (`actions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.kernel.reading import Absent, Reading

WORTH: Final = 0.5
"""An action that freed less than half of what was asked did not do its work: the next rung runs. One whose pages were
read back by half did not do it for long: it is harmful."""
LASTING_SECONDS: Final = 1.0
"""After this an effect counts as lasting: pages that are in use are back within a tenth of it."""
SLOW_SECONDS: Final = 2.0
"""Requests may be slow for so long after an action (goal: p99 at most 3x for at most 2 s)."""
SLOWER_TIMES: Final = 3.0
SLOWER_MICROSECONDS: Final = 5_000
"""Beside the factor: three times of a quarter of a millisecond is felt by nobody."""
LEAST_REQUESTS: Final = 100
"""Of fewer the p99 is the slowest one, and one slow request proves nothing."""


def judge(asked_bytes: int, before: Reading, after: Reading, goal_bytes: int) -> ActionStatus:
    """Effective or ineffective, done when nothing was asked, or unverified when one of the readings is missing.

    Args:
        asked_bytes: what was to be freed; 0 asks for nothing in particular, so no fall of the signal proves anything.
        before: the signal before.
        after: the signal after.
        goal_bytes: a signal under which the work is done, however little was freed.
    """
    if isinstance(before, Absent) or isinstance(after, Absent):
        return ActionStatus.UNVERIFIED
    if asked_bytes == 0:
        return ActionStatus.DONE
    if after < goal_bytes or before - after >= WORTH * asked_bytes:
        return ActionStatus.EFFECTIVE
    return ActionStatus.INEFFECTIVE


@dataclass(frozen=True, slots=True)
class Refaulting:
    """File pages read again, counted three times: before an action, soon after it, and when it had long ended.

    The last span shows what is usual: an index larger than its memory refaults all the time.
    """

    before: Reading
    soon: Reading
    later: Reading
    soon_seconds: float
    later_seconds: float

    @property
    def caused(self) -> float | None:
        """Pages beyond the usual from before to soon after; None where the kernel does not count them."""
        before, soon, later = self.before, self.soon, self.later
        if isinstance(before, Absent) or isinstance(soon, Absent) or isinstance(later, Absent):
            return None
        usual = (later - soon) / self.later_seconds if self.later_seconds > 0 else 0.0
        return max(0.0, soon - before - usual * self.soon_seconds)


@dataclass(frozen=True, slots=True)
class Latency:
    """The p99 of requests before an action, and that of the time from SLOW_SECONDS after it on; None: unknown.

    `requests` ended between the two looks.
    """

    before_microseconds: int | None
    after_microseconds: int | None
    requests: int


def judge_harm(freed_bytes: int, refaulting: Refaulting, page_bytes: int, latency: Latency) -> str | None:
    """What got much worse after an action that freed what was asked; None when nothing shows, or nothing is known."""
    pages = refaulting.caused
    if pages is not None and freed_bytes > 0 and pages * page_bytes >= WORTH * freed_bytes:
        return f"{pages * page_bytes:.0f} of {freed_bytes} freed bytes were read again within {LASTING_SECONDS:.0f} s"
    before, after = latency.before_microseconds, latency.after_microseconds
    if before is None or after is None or latency.requests < LEAST_REQUESTS:
        return None
    if after > SLOWER_TIMES * before and after - before > SLOWER_MICROSECONDS:
        return (
            f"requests were slow for more than {SLOW_SECONDS:.0f} s: p99 {after / 1000:.1f} ms, "
            f"{before / 1000:.1f} ms before"
        )
    return None
