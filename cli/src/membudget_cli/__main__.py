"""`membudget`: the command line.

Covers: arguments and exit codes (0 done, 1 it did not hold, 2 wrong arguments, 130 interrupted).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        return _COMMANDS[parsed.command](parsed)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; everything that was started is stopped\n")
        return 130


def _demo(parsed: argparse.Namespace) -> int:
    from membudget_cli.demo.run import run_demo

    return run_demo(parsed.seconds)


def _status(parsed: argparse.Namespace) -> int:
    if parsed.namespace or parsed.all_namespaces:
        from membudget_cli.cluster_status import show_cluster_status

        return show_cluster_status(parsed.namespace, parsed.output)
    from membudget_cli.status import show_status

    return show_status(parsed.run, parsed.output)


def _explain(parsed: argparse.Namespace) -> int:
    from membudget_cli.explain import show_explanation

    return show_explanation(parsed.run, parsed.output)


def _act(parsed: argparse.Namespace) -> int:
    from membudget_cli.act import act
    from membudget_contract.sidecar_api import ActionKind, ActionRequest

    asked = ActionRequest(kind=ActionKind(parsed.kind), target_bytes=parsed.free or 0, description=parsed.description)
    return act(parsed.run, asked, parsed.output)


def _replay(parsed: argparse.Namespace) -> int:
    from membudget_cli.replay.command import show_replay

    return show_replay(parsed.recording, parsed.policy, parsed.learn_from, parsed.output)


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "demo": _demo,
    "status": _status,
    "explain": _explain,
    "act": _act,
    "replay": _replay,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="membudget", description="Memory budgets for retrieval pods.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="an engine under a budget, 20 agents, and a live edit of the policy; no cluster",
        description="Starts a real engine and a real sidecar here, sends queries from 20 agents, and edits the policy "
        "file half-way from 150Mi to 130Mi. Stops and removes everything it started.",
    )
    demo.add_argument("--seconds", type=_seconds, default=100, help="of load, from 20 to 600 (default 100)")
    status = commands.add_parser(
        "status",
        help="how an engine here, or the policies of a cluster, are",
        description="Without a namespace: the engine and sidecar on this machine, by the sidecar's socket. With -n or "
        "-A: the MemoryPolicies of the cluster that KUBECONFIG names.",
    )
    where = status.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="of a cluster")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="of a cluster")
    _add_run(where.add_argument)
    _add_output(status)
    _add_explain(commands)
    _add_act(commands)
    _add_replay(commands)
    return parser


def _add_run(add_argument: Callable[..., object]) -> None:
    add_argument("--run", type=Path, default=Path("/run/membudget"), help="folder of the sidecar's socket")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _add_explain(commands: Commands) -> None:
    explain = commands.add_parser(
        "explain",
        help="why the sidecar here acts or does not",
        description="For each rung of the ladder why it acts or does not at the last look, and which layer each value "
        "of the plan comes from.",
    )
    _add_run(explain.add_argument)
    _add_output(explain)


def _add_act(commands: Commands) -> None:
    act = commands.add_parser(
        "act",
        help="have the sidecar here do one thing, and see what came of it",
        description="Asks for one action by hand, waits for its end and shows what was freed, as read from the kernel "
        "before and after. In Observe mode it is only recorded. Exit code 1 when it did not do what was asked.",
    )
    act.add_argument("kind", choices=("Cleanup", "Spill", "Evict", "Collect", "Trim"))
    act.add_argument("--free", type=_amount, metavar="QUANTITY", help="how much, like 10Mi; not for Collect and Trim")
    act.add_argument("--description", default="", help="kept with the action: why it was asked for")
    _add_run(act.add_argument)
    _add_output(act)


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
    replay.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _amount(text: str) -> int:
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


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 20 <= seconds <= 600:  # noqa: PLR2004  shorter shows nothing, longer belongs to `make soak`
        raise argparse.ArgumentTypeError(f"{seconds} must lie between 20 and 600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
