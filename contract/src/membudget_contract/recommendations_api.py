"""What the controller answers of budgets that policies would need (R-P14). Never applied: a person decides.

Covers: the messages and where they are served. Does not sum up (`membudget_controller.recommendations`). Neighbour:
`recommend` for one pod.
"""

from __future__ import annotations

from typing import Final

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message

RECOMMENDATIONS_PATH: Final = "/v1/recommendations"
"""GET -> PolicyRecommendations, at the controller's port for metrics."""
CONTROLLER_PORT: Final = 9466


class PolicyRecommendation(Message, frozen=True, kw_only=True):
    """The budget that would do for every pod of one policy; without figures `absent` says what is missing."""

    namespace: str
    policy: str
    total: str
    """As the policy has it now."""
    pods: int
    """That follow it."""
    pods_seen: int
    """Of these, pods that were seen for long enough to tell."""
    total_bytes: int | None = None
    components: dict[str, int] = {}
    limit_bytes: int | None = None
    """For the container."""
    reasons: tuple[str, ...] = ()
    absent: str | None = None


class PolicyRecommendations(Message, frozen=True, kw_only=True):
    """All policies, in the order of their namespaces and names."""

    contract: str = CONTRACT_VERSION
    policies: tuple[PolicyRecommendation, ...]
