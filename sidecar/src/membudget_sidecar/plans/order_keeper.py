"""The last accepted order: on the disk before it counts, and back after a restart.

Covers: whether an order's plan can hold here, `order.kept`, handing the plan to the `plan_keeper`. Does not cover who
may order and which order is newer (`order_gate`, `membudget_contract.orders`). Calls of `accept` are serialised by
the gate; other threads read `held` and `accepted_at`.

Invariant: what was acknowledged is on the disk. A kill between the write and the answer leaves an order that holds
and was not acknowledged; sent again, it is `Unchanged`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_contract.errors import ContractError, NoLimit
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_contract.orders import HeldOrder, Order, OrderNumber, PodIdentity
from membudget_contract.plan import Message
from membudget_sidecar.plans.plan_keeper import Floor, PlanKeeper

KEPT_ORDER: Final = "order.kept"

log = logging.getLogger(__name__)


class KeptOrder(Message, frozen=True, kw_only=True):
    """What the file holds. On a volume that outlives its pod, the next pod finds an order that was never its own."""

    pod: PodIdentity
    accepted_at: float
    order: HeldOrder


class OrderKeeper:
    """`held` is what newer orders are judged against; None takes any number."""

    def __init__(self, state_folder: Path, pod: PodIdentity, plans: PlanKeeper, *, wall: Callable[[], float]) -> None:
        self.held: HeldOrder | None = None
        self.accepted_at: float | None = None
        """Unix seconds, also of an order accepted in a former life."""
        self._file = state_folder / KEPT_ORDER
        self._pod = pod
        self._plans = plans
        self._wall = wall
        state_folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def accept(self, order: Order, floor: Floor | None, *, limit_was_looked_for: bool) -> None:
        """Keep an order that is this pod's and newer, and put its plan in force.

        A percent of a limit that nobody could look for yet, since the engine is not up, is kept too and waits: it is
        the newest order there is, and nothing is wrong with it. Refused, it would come back only with the
        controller's next try, and the pod would start under a plan that was replaced long ago. The acknowledgement
        tells it from a plan in force: `effectivePlanHash` is that of what holds meanwhile, `problem` what it waits for.

        Raises:
            ContractError: the plan cannot hold here; nothing changed but the problem in the status.
            OSError: the disk does not take it; nothing changed.
        """
        try:
            self._plans.check(order.plan, floor)
        except NoLimit as error:
            if limit_was_looked_for:
                self._plans.refuse(error)
                raise
        except ContractError as error:
            self._plans.refuse(error)
            raise
        number = OrderNumber(epoch=order.epoch, sequence=order.sequence)
        held = HeldOrder(number=number, policy=order.policy, plan=order.plan, plan_hash=order.plan_hash)
        accepted_at = self._wall()
        write_kept(self._file, KeptOrder(pod=self._pod, accepted_at=accepted_at, order=held))
        self.held, self.accepted_at = held, accepted_at
        self._plans.hold(order.plan, floor)

    def _resume(self) -> None:
        """Go on with the order of the former life; without a readable one the built-in plan holds, and any is newer."""
        try:
            kept = read_kept(self._file, KeptOrder)
        except KeptFileInvalid as error:
            self._plans.refuse(error)
            log.warning("starting with the built-in plan: %s", error)
            return
        if kept is None:
            return
        if kept.pod == self._pod:
            self.held, self.accepted_at = kept.order, kept.accepted_at
        else:
            log.info("%s is of pod %s: its plan holds until the first order", self._file, kept.pod.uid)
        self._plans.hold(kept.order.plan, None)
