"""From a policy file to budgets that the engine holds.

Covers: reading the file when it changed, the plan in force as the loop knows it, asking for a Resize whenever the
engine holds another plan. Does not keep plans (`plan_keeper`) nor carry the Resize out (`actions`). For one thread.

Invariant: at most one Resize waits or runs; one that did not help is repeated only after a pause.
"""

from __future__ import annotations

import logging
from typing import Final

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import Report
from membudget_contract.errors import ContractError
from membudget_contract.plan import EffectivePlan, plan_hash
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind
from membudget_sidecar.acting.execution import Order
from membudget_sidecar.kernel.reading import Reading
from membudget_sidecar.plans.plan_keeper import Floor, PlanKeeper
from membudget_sidecar.plans.policy_file import PolicyFile

RESIZE_AGAIN_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class PlanFollower:
    """`plan` is what the loop decides by; it moves in `follow` only."""

    def __init__(self, keeper: PlanKeeper, policy_file: PolicyFile | None) -> None:
        self.plan = keeper.effective
        self._keeper = keeper
        self._policy_file = policy_file
        self._wanted = plan_hash(self.plan)
        self._resizing = False
        self._tried: str | None = None
        self._try_again_at = 0.0

    def read_policy(self, floor: Floor | None, *, asked: bool) -> None:
        """Take the policy if its file changed, or changed or not when a person asked."""
        if self._policy_file is None or not (asked or self._policy_file.changed()):
            return
        try:
            self._keeper.adopt(compile_policy(self._policy_file.load()), floor)
            log.info("took %s", self._policy_file.path)
        except ContractError as error:
            self._keeper.refuse(error)
            log.warning("%s was not taken, the last good plan stays: %s", self._policy_file.path, error)

    def follow(self, limit: int | None, floor: Floor | None) -> EffectivePlan:
        """Look what is in force now; the plan before, which is the same object when nothing moved."""
        before, now = self.plan, self._keeper.follow(limit, floor)
        if now is not before:
            self.plan, self._wanted = now, plan_hash(now)
        return before

    def forget_engine(self) -> None:
        """Another engine: what the one before answered says nothing about it."""
        self._tried = None

    def resize(self, report: Report | None, used: Reading, now: float) -> Order | None:
        """The Resize to submit now: when the engine reports another plan than the one in force."""
        if report is None or report.plan_hash == self._wanted or self._resizing:
            return None
        if self._tried == self._wanted and now < self._try_again_at:
            return None
        self._resizing, self._tried = True, self._wanted
        goal = self.plan.soft_entry_bytes
        over = max(0, used - goal) if isinstance(used, int) and self.plan.mode is Mode.ENFORCE else 0
        return Order(
            ActionKind.RESIZE, self.plan, over, goal, f"the engine holds another plan than {self._wanted[:12]}"
        )

    def resize_ended(self, now: float) -> None:
        """However it ended: what the engine reports from now on decides whether another one is due."""
        self._resizing = False
        self._try_again_at = now + RESIZE_AGAIN_SECONDS
