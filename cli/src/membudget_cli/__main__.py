"""`membudget`: the command line.

Covers: which command runs, and exit codes (0 done, 1 it did not hold, 2 wrong arguments, 130 interrupted). Does not
cover its arguments (`arguments`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from membudget_cli.arguments import WITHOUT_BYTES, parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parsed = parser(_program(sys.argv[0])).parse_args(arguments)
    try:
        return _COMMANDS[parsed.command](parsed)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; everything that was started is stopped\n")
        return 130
    except BrokenPipeError:  # as with `| head`: nothing is wrong, and nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _program(called: str) -> str:
    """What was typed: `kubectl membudget` runs `kubectl-membudget`."""
    return "kubectl membudget" if Path(called).name == "kubectl-membudget" else "membudget"


def _demo(parsed: argparse.Namespace) -> int:
    from membudget_cli.demo.run import run_demo

    return run_demo(parsed.seconds)


def _status(parsed: argparse.Namespace) -> int:
    if parsed.namespace or parsed.all_namespaces:
        from membudget_cli.cluster_status import show_cluster_status

        return show_cluster_status(parsed.namespace, parsed.output)
    from membudget_cli.sidecar_client import client_of
    from membudget_cli.status import show_status

    return show_status(client_of(parsed.run, parsed.pod), parsed.output)


def _top(parsed: argparse.Namespace) -> int:
    from membudget_cli.sidecar_client import client_of
    from membudget_cli.top import show_top

    return show_top(client_of(parsed.run, parsed.pod), parsed.every, once=parsed.once)


def _explain(parsed: argparse.Namespace) -> int:
    from membudget_cli.explain import show_explanation
    from membudget_cli.sidecar_client import client_of

    return show_explanation(client_of(parsed.run, parsed.pod), parsed.output)


def _act(parsed: argparse.Namespace) -> int:
    from membudget_cli.act import act
    from membudget_cli.sidecar_client import client_of
    from membudget_contract.sidecar_api import ActionKind, ActionRequest

    if (parsed.kind in WITHOUT_BYTES) == bool(parsed.free):
        needs = "takes no --free" if parsed.free else "needs --free, like --free 10Mi: how much it is to free"
        sys.stderr.write(f"membudget act: {parsed.kind} {needs}\n")
        return 2
    asked = ActionRequest(kind=ActionKind(parsed.kind), target_bytes=parsed.free or 0, description=parsed.description)
    return act(client_of(parsed.run, parsed.pod), asked, parsed.output)


def _lint(parsed: argparse.Namespace) -> int:
    from membudget_cli.lint.command import show_lint

    return show_lint(
        parsed.policies,
        parsed.limit,
        parsed.output,
        in_cluster=parsed.cluster,
        namespace=parsed.namespace,
        strict=parsed.strict,
    )


def _recommend(parsed: argparse.Namespace) -> int:
    from membudget_cli.recommend import recommend_for_one, recommend_for_policies

    if parsed.namespace or parsed.all_namespaces:
        return recommend_for_policies(parsed.controller_namespace, parsed.namespace, parsed.policy, parsed.output)
    from membudget_cli.sidecar_client import client_of

    return recommend_for_one(client_of(parsed.run, parsed.pod), parsed.output)


def _replay(parsed: argparse.Namespace) -> int:
    from membudget_cli.replay.command import show_replay

    return show_replay(parsed.recording, parsed.policy, parsed.learn_from, parsed.output)


def _profile(parsed: argparse.Namespace) -> int:
    from membudget_cli.profile.command import run_profile

    return run_profile(parsed.only, parsed.report, parsed.output, quick=parsed.quick)


def _diagnose(parsed: argparse.Namespace) -> int:
    from membudget_cli.diagnose import show_diagnostics
    from membudget_cli.sidecar_client import client_of

    return show_diagnostics(client_of(parsed.run, parsed.pod), parsed.output)


def _mcp(parsed: argparse.Namespace) -> int:
    try:
        from membudget_cli.agents.server import memory_server
    except ModuleNotFoundError as error:
        sys.stderr.write(f"membudget: {error.name} is missing; pip install 'membudget-cli[agents]'\n")
        return 1
    from membudget_cli.sidecar_client import client_of

    memory_server(client_of(parsed.run, parsed.pod)).run()
    return 0


def _completion(parsed: argparse.Namespace) -> int:
    import shtab

    sys.stdout.write(shtab.complete(parser(), parsed.shell) + "\n")
    return 0


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "demo": _demo,
    "status": _status,
    "top": _top,
    "explain": _explain,
    "act": _act,
    "lint": _lint,
    "recommend": _recommend,
    "replay": _replay,
    "profile": _profile,
    "diagnose": _diagnose,
    "mcp": _mcp,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
