"""The arguments of `membudget`, command by command.

Covers: names, help, bounds. Does not cover what a command does: `__main__` imports that once it is known which one,
since a cluster's client alone takes half a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from membudget_cli.figures import OUTPUTS

if TYPE_CHECKING:
    # argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

SECONDS_OF_A_DEMO: Final = (20, 600)
"""Shorter shows nothing, longer belongs to `make soak`."""
SHELLS: Final = ("bash", "zsh", "tcsh")
WITHOUT_BYTES: Final = ("Collect", "Trim")
"""Actions that free what they find."""
PROFILE_PARTS: Final = ("stores", "mmap", "caches", "workload")


def parser(program: str = "membudget") -> argparse.ArgumentParser:
    """Of the whole command line; as a plugin of kubectl the program is `kubectl membudget`."""
    whole = argparse.ArgumentParser(prog=program, description="Memory budgets for retrieval pods.")
    commands = whole.add_subparsers(dest="command", required=True)
    for add in (
        _add_demo,
        _add_status,
        _add_top,
        _add_explain,
        _add_act,
        _add_lint,
        _add_recommend,
        _add_replay,
        _add_profile,
        _add_diagnose,
        _add_mcp,
        _add_completion,
    ):
        add(commands)
    return whole


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="an engine under a budget, 20 agents, and a live edit of the policy; no cluster",
        description="Starts a real engine and a real sidecar here, sends queries from 20 agents, and edits the policy "
        "file half-way from 165Mi to 150Mi. Stops and removes everything it started.",
    )
    demo.add_argument("--seconds", type=_seconds, default=100, help="of load, from 20 to 600 (default 100)")


def _add_status(commands: Commands) -> None:
    status = commands.add_parser(
        "status",
        help="how an engine, or the policies of a cluster, are",
        description="Without a namespace: one engine and its sidecar, here or in a pod. With -n or -A: the "
        "MemoryPolicies of the cluster that KUBECONFIG names.",
    )
    where = status.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="of a cluster")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="of a cluster")
    _add_sidecar(where.add_argument)
    _add_output(status)


def _add_top(commands: Commands) -> None:
    top = commands.add_parser(
        "top",
        help="one engine's memory, live",
        description="Usage against budget and ladder, components, the last actions and what is foretold, drawn anew "
        "every second on a terminal until Ctrl-C; elsewhere one line a look.",
    )
    top.add_argument("--once", action="store_true", help="one look, then end")
    top.add_argument("--every", type=_pause, default=1.0, metavar="SECONDS", help="between looks (default 1)")
    _add_sidecar(top.add_mutually_exclusive_group().add_argument)


def _add_explain(commands: Commands) -> None:
    explain = commands.add_parser(
        "explain",
        help="why a sidecar acts or does not",
        description="For each rung of the ladder why it acts or does not at the last look, and which layer each value "
        "of the plan comes from.",
    )
    _add_sidecar(explain.add_mutually_exclusive_group().add_argument)
    _add_output(explain)


def _add_act(commands: Commands) -> None:
    act = commands.add_parser(
        "act",
        help="have a sidecar do one thing, and see what came of it",
        description="Asks for one action by hand, waits for its end and shows what was freed, as read from the kernel "
        "before and after. In Observe mode it is only recorded. Exit code 1 when it did not do what was asked.",
    )
    act.add_argument("kind", choices=("Cleanup", "Spill", "Evict", "Collect", "Trim"))
    act.add_argument(
        "--free", type=quantity, metavar="QUANTITY", help=f"how much, like 10Mi; not for {' and '.join(WITHOUT_BYTES)}"
    )
    act.add_argument("--description", default="", help="kept with the action: why it was asked for")
    _add_sidecar(act.add_mutually_exclusive_group().add_argument)
    _add_output(act)


def _add_lint(commands: Commands) -> None:
    lint = commands.add_parser(
        "lint",
        help="what is wrong or doubtful in a policy, before it is applied",
        description="Reads policies as the controller does and says what contradicts itself or is too tight for the "
        "container's limit. With --cluster also which pods a policy selects, whether they opted in and what limits "
        "they have. Exit code 1 with an error; with --strict with a warning too.",
    )
    lint.add_argument("policies", nargs="+", type=Path, metavar="POLICY", help="MemoryPolicy as YAML")
    lint.add_argument("--limit", type=quantity, metavar="QUANTITY", help="memory limit of the engine's container")
    lint.add_argument("--cluster", action="store_true", help="hold them against the pods of KUBECONFIG's cluster")
    lint.add_argument("-n", "--namespace", help="there, of a policy that names none (default: of KUBECONFIG's context)")
    lint.add_argument("--strict", action="store_true", help="a warning is a failure as well")
    _add_output(lint)


def _add_recommend(commands: Commands) -> None:
    recommend = commands.add_parser(
        "recommend",
        help="the budget that an engine, or the pods of a policy, would need",
        description="From what was seen of the use of memory, with the reasons; nothing is applied. Without a "
        "namespace: one engine and its sidecar, here or in a pod. With -n or -A: the policies of the cluster that "
        "KUBECONFIG names, as its controller answers. Exit code 1 while something was not seen for long enough.",
    )
    recommend.add_argument("policy", nargs="?", help="only this one, of a cluster")
    where = recommend.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="of a cluster")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="of a cluster")
    _add_sidecar(where.add_argument)
    recommend.add_argument("--controller-namespace", default="membudget-system", help="where the controller runs")
    _add_output(recommend)


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser(
        "replay",
        help="what a policy would have done with a load that a sidecar recorded",
        description="Runs the ladder over what `membudget-sidecar --record FILE` wrote. Without --policy: under the "
        "plans that were in force, as if they enforced, and held against what was done.",
    )
    replay.add_argument("recording", type=Path, help="written by a sidecar with --record")
    replay.add_argument("--policy", type=Path, help="a MemoryPolicy as YAML to try in place of the recorded plans")
    replay.add_argument(
        "--learn-from",
        type=Path,
        action="append",
        default=[],
        metavar="RECORDING",
        help="further recordings, of which only is taken how much actions free and how long they take",
    )
    _add_output(replay)


def _add_profile(commands: Commands) -> None:
    profile = commands.add_parser(
        "profile",
        help="what membudget costs and saves, measured on this machine",
        description="Measures code chunk stores, a mapped index, a cache, and the whole engine with 20 agents beside a "
        "naive build, each in processes of its own whose memory is read from outside. No cluster, no root; removes "
        "what it made. Exit code 1 when a promise does not hold here.",
    )
    profile.add_argument(
        "--only", type=_parts, default=PROFILE_PARTS, metavar="PART,...", help=f"of {', '.join(PROFILE_PARTS)}"
    )
    profile.add_argument("--report", type=Path, metavar="FOLDER", help="write profile.md and images/ there")
    profile.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures are rough")
    _add_output(profile)


def _add_diagnose(commands: Commands) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="the one document that a bug report needs",
        description="What runs, what holds, what was read and what went wrong, without secrets. The table has the "
        "problems; attach `-o yaml` or `-o json` to a report. Exit code 1 when there are problems.",
    )
    _add_sidecar(diagnose.add_mutually_exclusive_group().add_argument)
    _add_output(diagnose)


def _add_mcp(commands: Commands) -> None:
    mcp = commands.add_parser(
        "mcp",
        help="one engine's memory as tools for agents",
        description="Speaks the Model Context Protocol over stdin and stdout, with the tools get_diagnostics and "
        "manage_memory. Needs the extra: pip install 'membudget-cli[agents]'.",
    )
    _add_sidecar(mcp.add_mutually_exclusive_group().add_argument)


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="a script that completes these commands in a shell",
        description='In bash: eval "$(membudget completion bash)". In zsh: membudget completion zsh > '
        "~/.zfunc/_membudget, with ~/.zfunc in fpath.",
    )
    completion.add_argument("shell", choices=SHELLS)


def _add_sidecar(add_argument: Callable[..., object]) -> None:
    """Which sidecar is asked: one here by the folder of its socket, or one in a pod."""
    add_argument("--run", type=Path, default=Path("/run/membudget"), help="folder of the socket of a sidecar here")
    add_argument("--pod", metavar="NAMESPACE/NAME", help="the sidecar in this pod, by exec, as KUBECONFIG lets you")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", choices=OUTPUTS, default=OUTPUTS[0])


def quantity(text: str) -> int:
    """Bytes of a quantity; raises argparse's error for a percent, of which nobody knows the whole."""
    from membudget_contract.quantities import Amount

    try:
        amount = Amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if amount.percent is not None:
        raise argparse.ArgumentTypeError(
            f"{text}: give a quantity like 10Mi; there is no whole here to take percents of"
        )
    return amount.of(0)


def _parts(text: str) -> tuple[str, ...]:
    asked = text.split(",")
    unknown = [part for part in asked if part not in PROFILE_PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no part: {', '.join(PROFILE_PARTS)}")
    return tuple(part for part in PROFILE_PARTS if part in asked)


def _pause(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 60:  # noqa: PLR2004  quicker than the sidecar looks shows nothing new
        raise argparse.ArgumentTypeError(f"{text} must lie between 0.1 and 60 seconds")
    return seconds


def _seconds(text: str) -> int:
    seconds, (least, most) = int(text), SECONDS_OF_A_DEMO
    if not least <= seconds <= most:
        raise argparse.ArgumentTypeError(f"{seconds} must lie between {least} and {most}")
    return seconds
