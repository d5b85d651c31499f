"""Two tools over the sidecar's API: `get_diagnostics` and `manage_memory`, spoken over stdin and stdout.

Covers: what the tools take and answer, and refusals in words that say what to do. Does not cover the protocol (the
official SDK) nor which sidecar is asked (`membudget_cli.sidecar_client`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Final, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from membudget_cli.act import ended
from membudget_cli.agents.diagnostics import EngineDiagnostics, engine_diagnostics
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_contract.errors import QuantityInvalid
from membudget_contract.quantities import parse_quantity
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionRequest, ConfigureRequest, Limits

INSTRUCTIONS: Final = (
    "Memory of one retrieval engine under a budget. Look with get_diagnostics first. manage_memory cleans up, spills "
    "to disk, or tightens the budget for a time; what it freed is read from the kernel before and after."
)
Action = Literal["cleanup", "spill", "configure"]
_KINDS: Final = {"cleanup": ActionKind.CLEANUP, "spill": ActionKind.SPILL}


@dataclass(frozen=True)
class MemoryLimits:
    """What holds, in bytes."""

    total: int
    components: dict[str, int]


@dataclass(frozen=True)
class MemoryManaged:
    """What came of one call."""

    action: str
    status: str
    """Effective, Ineffective, Harmful, Unverified, Failed, Observed (decided, nothing done); Configured."""
    freed_bytes: int | None
    """As the kernel told before and after; None where that could not be read, and for configure."""
    asked_bytes: int | None
    duration_seconds: float | None
    details: dict[str, str]
    previous_limits: MemoryLimits | None
    """Of configure; None otherwise."""
    new_limits: MemoryLimits | None
    limits_expire_at: float | None
    """Unix seconds."""


def memory_server(client: SidecarClient) -> MCPServer:
    """The tools, bound to one sidecar."""
    server = MCPServer("membudget", instructions=INSTRUCTIONS, version=version("membudget-cli"), log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def get_diagnostics() -> EngineDiagnostics:
        """One engine's memory now: usage, budget, process, heap, components, breakdown, what is over its limit."""
        try:
            return engine_diagnostics(client.diagnostics())
        except SidecarUnreachable as error:
            raise ToolError(str(error)) from None

    @server.tool(annotations=ToolAnnotations(destructive_hint=False))
    def manage_memory(
        action: Annotated[Action, Field(description="cleanup: expired entries, cold pages; spill: values to disk")],
        free: Annotated[str | None, Field(description="For cleanup and spill: how much to free, like 10Mi.")] = None,
        total: Annotated[str | None, Field(description="For configure: a smaller budget, like 120Mi or 80%.")] = None,
        components: Annotated[
            dict[str, str] | None, Field(description="For configure: smaller ceilings by component.")
        ] = None,
        ttl_seconds: Annotated[int, Field(description="For configure: how long it holds.", ge=1, le=86_400)] = 600,
    ) -> MemoryManaged:
        """Free memory, verified, or tighten the budget for a time. Loosening it takes an edit of the policy."""
        try:
            if action == "configure":
                return _configure(client, total, components or {}, ttl_seconds)
            return _free(client, action, free)
        except (SidecarUnreachable, QuantityInvalid) as error:
            raise ToolError(str(error)) from None

    return server


def _free(client: SidecarClient, action: str, free: str | None) -> MemoryManaged:
    if free is None:
        raise ToolError(f"{action} needs `free`: how much to give back, like 10Mi")
    asked = ActionRequest(kind=_KINDS[action], target_bytes=parse_quantity(free), description="asked by an agent")
    record = ended(client, client.submit(asked))
    return MemoryManaged(
        action=action,
        status=record.status.value,
        freed_bytes=record.freed_bytes,
        asked_bytes=record.asked_bytes,
        duration_seconds=record.duration_seconds,
        details=_details(record),
        previous_limits=None,
        new_limits=None,
        limits_expire_at=None,
    )


def _details(record: ActionRecord) -> dict[str, str]:
    told = {
        "id": record.id,
        "entries": record.entries,
        "candidates": record.candidates,
        "signal_before_bytes": record.signal_before_bytes,
        "signal_after_bytes": record.signal_after_bytes,
        "owned_before_bytes": record.owned_before_bytes,
        "owned_after_bytes": record.owned_after_bytes,
        "read_from": record.signal_source,
        "harm": record.harm,
        "error": record.error,
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def _configure(client: SidecarClient, total: str | None, components: dict[str, str], ttl_seconds: int) -> MemoryManaged:
    if total is None and not components:
        raise ToolError("configure needs `total` or `components`: quantities like 120Mi")
    changed = client.configure(ConfigureRequest(total=total, components=components, ttl_seconds=ttl_seconds))
    return MemoryManaged(
        action="configure",
        status="Configured",
        freed_bytes=None,
        asked_bytes=None,
        duration_seconds=None,
        details={},
        previous_limits=_limits(changed.previous),
        new_limits=_limits(changed.current),
        limits_expire_at=changed.expires_at,
    )


def _limits(limits: Limits) -> MemoryLimits:
    return MemoryLimits(limits.total_bytes, dict(limits.components))
