"""`membudget status`, `explain` and `act` against a real sidecar: tables for people, JSON for programs, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from cli.local_stack import MIB, LocalStack, run
from membudget_contract.control_api import FREE_PATH


@pytest.fixture
def stack(tmp_path: Path) -> Generator[LocalStack]:
    """One for each test."""
    made = LocalStack(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("command", [["status"], ["top"], ["explain"], ["act", "Trim"], ["diagnose"]])
def test_without_a_sidecar_one_line_says_which_socket_was_asked(command: list[str], tmp_path: Path) -> None:
    """R-S09: exit code 1, no traceback."""
    asked = run(*command, "--run", str(tmp_path))
    assert (1, True, False) == (
        asked.returncode,
        str(tmp_path / "sidecar.sock") in asked.stderr,
        "Traceback" in asked.stderr,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["act"],
        ["act", "Explode"],
        ["act", "Resize"],
        ["act", "Evict", "--free", "10%"],
        ["act", "Evict", "--free", "much"],
        ["explain", "-o", "xml"],
        ["explain", "--run", "/run/membudget", "--pod", "search/a"],
        ["top", "--every", "0"],
        ["completion", "powershell"],
    ],
)
def test_wrong_arguments_end_with_exit_code_2(arguments: list[str]) -> None:
    """R-T03: before anything is asked."""
    asked = run(*arguments)
    assert (2, True, False) == (asked.returncode, "usage: membudget" in asked.stderr, "Traceback" in asked.stderr)


@pytest.mark.parametrize("command", ["top", "explain", "act", "lint", "replay", "diagnose", "completion"])
def test_every_command_explains_itself(command: str) -> None:
    """R-T03."""
    asked = run(command, "--help")
    assert (0, True) == (asked.returncode, asked.stdout.startswith("usage: membudget"))


def test_an_action_by_hand_shows_what_was_read_before_and_after(stack: LocalStack) -> None:
    """R-S09, R-S04: the kernel's figures, exit code 0; the same record as JSON."""
    asked = stack.run("act", "Evict", "--free", "8Mi", "--description", "a drill")
    assert (0, ["Effective", "8.0 MiB"]) == (
        asked.returncode,
        [text for text in ("Effective", "8.0 MiB") if text in asked.stdout],
    ), asked.stdout + asked.stderr
    again = json.loads(stack.run("act", "Evict", "--free", "4Mi", "-o", "json").stdout)
    assert (4 * MIB, "Effective", "asked by hand") == (again["askedBytes"], again["status"], again["cause"])
    assert again["signalBeforeBytes"] - again["signalAfterBytes"] >= 3 * MIB


def test_an_action_that_freed_nothing_ends_with_exit_code_1(stack: LocalStack) -> None:
    """R-S06, known bug 3: the engine's claim is not believed."""
    stack.engine.set_mode(FREE_PATH, "claims")
    asked = stack.run("act", "Evict", "--free", "8Mi")
    assert (1, True) == (asked.returncode, "Ineffective" in asked.stdout)


def test_an_action_with_bytes_it_does_not_take_or_without_those_it_needs_is_refused_by_the_options_name(
    stack: LocalStack,
) -> None:
    """R-T03: nobody is asked; what to type is said."""
    refusals = [stack.run("act", *arguments) for arguments in (["Evict"], ["Trim", "--free", "1Mi"])]
    assert [2, 2] == [asked.returncode for asked in refusals]
    assert ("--free 10Mi" in refusals[0].stderr, "takes no --free" in refusals[1].stderr) == (True, True)


def test_what_the_sidecar_refuses_is_said_in_its_words(stack: LocalStack) -> None:
    """R-S09: with its reason."""
    asked = stack.run("act", "Trim", "--description", "x" * 201)
    assert (1, True) == (asked.returncode, "Invalid" in asked.stderr)


def test_in_observe_mode_an_action_is_only_recorded(tmp_path: Path) -> None:
    """R-S09: said, with exit code 1."""
    stack = LocalStack(tmp_path, mode="Observe")
    try:
        asked = stack.run("act", "Evict", "--free", "8Mi")
        assert (1, True) == (asked.returncode, "Observed" in asked.stdout)
    finally:
        stack.end()


def test_explain_has_a_reason_for_every_rung_and_a_layer_for_every_value(stack: LocalStack) -> None:
    """R-S09, R-S03, R-P05: as a table and as JSON."""
    asked = stack.run("explain")
    expected = ["nothing to do", "Collect", "Soft", "Hard", "Emergency", "80.0 MiB", "budget.total", "Policy"]
    assert (0, []) == (asked.returncode, [text for text in expected if text not in asked.stdout]), asked.stdout
    document = json.loads(stack.run("explain", "-o", "json").stdout)
    assert (3, "Policy") == (
        len(document["explanation"]["rungs"]),
        document["plan"]["plan"]["layers"]["budget.total"],
    )


def test_status_shows_level_enforcement_outlook_and_alerts(stack: LocalStack) -> None:
    """R-S09: what a glance needs."""
    calm = stack.run("status").stdout
    assert [] == [text for text in ("Normal", "enforcing", "outlook") if text not in calm], calm
    assert 200 == stack.sidecar.ask("POST", "/v1/enforcement/stop", {"ttlSeconds": 60})[0]
    assert "enforcement stopped by hand until" in stack.run("status").stdout
    document = json.loads(stack.run("status", "-o", "json").stdout)
    assert (False, []) == (document["enforcement"]["active"], document["alerts"])


def test_a_document_is_the_same_as_json_and_as_yaml(stack: LocalStack) -> None:
    """R-T03: `-o yaml` holds what `-o json` holds."""
    record = json.loads(stack.run("act", "Collect", "-o", "json").stdout)
    plans = [stack.run("explain", "-o", output).stdout for output in ("json", "yaml")]
    assert "Collect" == record["kind"]
    assert json.loads(plans[0])["plan"] == yaml.safe_load(plans[1])["plan"]


def test_diagnose_tells_problems_by_its_exit_code_and_all_of_it_as_a_document(stack: LocalStack) -> None:
    """R-T03: here a process without a memory limit is the only one; with the engine gone there is another."""
    calm = stack.run("diagnose")
    document = yaml.safe_load(stack.run("diagnose", "-o", "yaml").stdout)
    assert ("Connected", ["limit is not known: no limit"]) == (document["status"]["engine"], document["problems"])
    assert (1, 1) == (calm.returncode, calm.stdout.count("PROBLEM")), calm.stdout
    stack.engine.kill()
    stack.sidecar.until(engine="Unreachable")
    troubled = stack.run("diagnose")
    assert (1, True) == (troubled.returncode, troubled.stdout.count("PROBLEM") > 1), troubled.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_gets_a_script_that_knows_every_command(shell: str) -> None:
    """R-T03."""
    script = run("completion", shell).stdout
    commands = ("demo", "status", "top", "explain", "act", "lint", "replay", "diagnose", "completion")
    assert [] == [command for command in commands if command not in script]


def test_bash_completes_commands_and_options() -> None:
    """R-T03: by bash itself, with the script in force."""
    script = run("completion", "bash").stdout
    asked = script + '\nCOMP_WORDS=(membudget di); COMP_CWORD=1; _shtab_membudget; echo "${COMPREPLY[@]}"'
    assert "diagnose\n" == subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout


def test_as_a_plugin_of_kubectl_it_calls_itself_so() -> None:
    """R-T03: `kubectl membudget` runs `kubectl-membudget`, found on the PATH."""
    plugin = Path(sys.executable).with_name("kubectl-membudget")
    told = subprocess.run([plugin, "status", "--help"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("usage: kubectl membudget status")
