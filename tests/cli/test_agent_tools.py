"""The tools for agents, asked by the official SDK's own client over stdin and stdout of a real process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from cli.local_stack import MIB, LocalStack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalStack]:
    """A sidecar beside 20 MiB that can be given back, under 100 MiB."""
    made = LocalStack(tmp_path_factory.mktemp("agents"))
    yield made
    made.end()


def asked(folder: Path, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers to these calls in one session: what is structured, or the text of an error."""
    command = StdioServerParameters(command=sys.executable, args=["-m", "membudget_cli", "mcp", "--run", str(folder)])

    async def session() -> list[Any]:
        async with Client(command) as client:
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
        return [
            "".join(getattr(part, "text", "") for part in answer.content)
            if answer.is_error
            else answer.structured_content
            for answer in answers
        ]

    return asyncio.run(session())


def test_the_tools_say_what_they_take_and_answer(stack: LocalStack) -> None:
    """R-T02: names, schemas, and that looking changes nothing."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "membudget_cli", "mcp", "--run", str(stack.folder)]
    )

    async def listed() -> Any:
        async with Client(command) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(listed())}
    assert {"get_diagnostics", "manage_memory"} == set(tools)
    assert tools["get_diagnostics"].annotations.read_only_hint
    assert ["cleanup", "spill", "configure"] == tools["manage_memory"].input_schema["properties"]["action"]["enum"]
    promised = {"process", "garbage_collection", "loaded_files", "cached_queries", "limits_exceeded", "breakdown"}
    assert promised <= set(tools["get_diagnostics"].output_schema["properties"])


def test_diagnostics_are_the_kernels_figures_and_name_what_could_not_be_read(stack: LocalStack) -> None:
    """R-T02: process, heap, peak, threads, collections; the breakdown sums to the resident set; no zero for unknown."""
    (found,) = asked(stack.folder, ("get_diagnostics", {}))
    process = found["process"]
    assert (stack.engine.pid, "Connected", 100 * MIB) == (process["pid"], found["engine"], found["budget"])
    assert process["resident"] == sum(found["breakdown"].values())
    assert [True] * 4 == [process[name] > 0 for name in ("anonymous", "heap", "peak_signal", "threads")]
    assert (None, "no limit") == (found["container_limit"], found["unread"]["container_limit"])
    assert (None, None) == (found["loaded_files"], found["cached_queries"])
    assert ["working"] == [sentence.split()[0] for sentence in found["limits_exceeded"]]
    assert ["semanticCache"] == [part["name"] for part in found["components"] if part["entries"]]


def test_a_cleanup_answers_with_freed_bytes_duration_and_details(tmp_path: Path) -> None:
    """R-T02: freed as the kernel tells before and after."""
    made = LocalStack(tmp_path)
    try:
        (cleaned, spilled) = asked(
            tmp_path,
            ("manage_memory", {"action": "cleanup", "free": "4Mi"}),
            ("manage_memory", {"action": "spill", "free": "4Mi"}),
        )
    finally:
        made.end()
    for managed in (cleaned, spilled):
        assert (4 * MIB, "Effective", True) == (
            managed["asked_bytes"],
            managed["status"],
            managed["freed_bytes"] > 3.9 * MIB,
        ), managed
        assert managed["duration_seconds"] > 0
        details = managed["details"]
        before, after = int(details["signal_before_bytes"]), int(details["signal_after_bytes"])
        assert managed["freed_bytes"] == before - after


def test_configure_answers_previous_and_new_limits_and_refuses_to_loosen(tmp_path: Path) -> None:
    """R-T02: tighter for a time; looser is refused with the reason, and nothing changes."""
    made = LocalStack(tmp_path)
    try:
        tighter, looser = asked(
            tmp_path,
            ("manage_memory", {"action": "configure", "total": "90Mi", "ttl_seconds": 60}),
            ("manage_memory", {"action": "configure", "total": "1Gi"}),
        )
        status = made.sidecar.ask("GET", "/v1/status")[1]
    finally:
        made.end()
    assert [100 * MIB, 90 * MIB] == [tighter[which]["total"] for which in ("previous_limits", "new_limits")]
    assert ("LooserThanPlan" in looser, 90 * MIB) == (True, status["budgetBytes"]), looser


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"action": "cleanup"}, "needs `free`"),
        ({"action": "spill", "free": "much"}, "is no quantity"),
        ({"action": "configure"}, "needs `total` or `components`"),
        ({"action": "explode"}, "cleanup"),
    ],
)
def test_wrong_arguments_are_told_and_the_session_goes_on(
    stack: LocalStack, arguments: dict[str, Any], told: str
) -> None:
    """R-T02: the next question of the same session is answered."""
    refused, answered = asked(stack.folder, ("manage_memory", arguments), ("get_diagnostics", {}))
    assert (True, "Connected") == (told in refused, answered["engine"]), refused


def test_without_a_sidecar_every_call_says_where_it_asked(tmp_path: Path) -> None:
    """R-T02: an error of the tool, not of the session."""
    (refused,) = asked(tmp_path, ("get_diagnostics", {}))
    assert str(tmp_path / "sidecar.sock") in refused
