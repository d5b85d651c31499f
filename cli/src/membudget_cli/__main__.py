"""`membudget`: the command line.

Covers: arguments and exit codes (0 done, 1 it did not hold, 2 wrong arguments, 130 interrupted).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "demo":
            from membudget_cli.demo.run import run_demo

            return run_demo(parsed.seconds)
        if parsed.namespace or parsed.all_namespaces:
            from membudget_cli.cluster_status import show_cluster_status

            return show_cluster_status(parsed.namespace, parsed.output)
        from membudget_cli.status import show_status

        return show_status(parsed.run, parsed.output)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; everything that was started is stopped\n")
        return 130


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
    where.add_argument("--run", type=Path, default=Path("/run/membudget"), help="folder of the sidecar's socket")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return parser


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 20 <= seconds <= 600:  # noqa: PLR2004  shorter shows nothing, longer belongs to `make soak`
        raise argparse.ArgumentTypeError(f"{seconds} must lie between 20 and 600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
