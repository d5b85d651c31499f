"""Settings of one controller process.

Covers: what is fixed from start to end. Does not cover policies. Neighbour: `__main__` reads the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from membudget_contract.recommendations_api import CONTROLLER_PORT
from membudget_contract.selector import MANAGED_LABEL

MANAGED_SELECTOR: Final = f"{MANAGED_LABEL}=true"
KEY_SECRET: Final = "membudget-controller-keys"  # noqa: S105  the name of the object, not what is in it
KEY_CONFIG_MAP: Final = "membudget-keys"
SIDECAR_PORT: Final = 9465


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """One controller."""

    namespace: str
    """Its own, which holds the Secret."""
    watched: tuple[str, ...] = ()
    """Namespaces whose policies and pods it follows; empty: all."""
    sidecar_port: int = SIDECAR_PORT
    """Fixed in every pod, so that no annotation can direct an order elsewhere."""
    metrics_host: str = "0.0.0.0"  # noqa: S104  Prometheus and the kubelet's probes come from outside the pod
    metrics_port: int = CONTROLLER_PORT
    list_seconds: float = 300.0
    """Between two full lists, which find deletions that no event told of."""
    request_seconds: float = 30.0
    """The API server may take so long for an answer."""
    watch_silence_seconds: float = 70.0
    """A watch that brings nothing for so long is begun anew: at least a bookmark comes each minute."""
    watch_behind_seconds: float = 120.0
    """A watch that owes for so long what a list showed is dead, and so is this process to the kubelet."""
    report_seconds: float = 60.0
    """Between two reports of one pod, on average; up to a quarter more or less, so that pods do not answer in step."""
