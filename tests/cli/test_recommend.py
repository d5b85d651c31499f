"""`membudget recommend` for one sidecar; for a cluster see tests/cluster/test_recommendations.py (R-P14)."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from cli.local_stack import MIB, LocalStack, run
from membudget_cli.recommend import recommend_for_one
from membudget_contract.policy import Signal
from membudget_contract.recommend import LEAST_LOOKS, LEAST_SECONDS, ComponentSeen, Recommendation, SeenUse, Use
from membudget_contract.recommend import recommend as advise

SEEN = SeenUse(
    seconds=LEAST_SECONDS,
    looks=LEAST_LOOKS,
    unmanaged=Use(median_bytes=30 * MIB, high_bytes=40 * MIB, peak_bytes=40 * MIB),
    components={
        "semanticCache": ComponentSeen(
            owned=Use(median_bytes=20 * MIB, high_bytes=30 * MIB, peak_bytes=31 * MIB),
            mapped=Use(median_bytes=0, high_bytes=0, peak_bytes=0),
            ceiling_bytes=40 * MIB,
            evictions=0,
            critical_bytes=0,
        )
    },
)


@pytest.fixture
def stack(tmp_path: Path) -> Generator[LocalStack]:
    """A sidecar that has looked for some seconds."""
    made = LocalStack(tmp_path)
    yield made
    made.end()


def test_what_was_not_seen_for_long_enough_is_said_and_is_no_success(stack: LocalStack) -> None:
    """R-P14, R-T03: by a real sidecar, for people and for programs; exit code 1."""
    asked = stack.run("recommend")
    assert (1, True, "") == (
        asked.returncode,
        asked.stdout.startswith("nothing to recommend yet: seen for"),
        asked.stderr,
    )
    as_json, as_yaml = (stack.run("recommend", "-o", output) for output in ("json", "yaml"))
    for asked, told in ((as_json, json.loads(as_json.stdout)), (as_yaml, yaml.safe_load(as_yaml.stdout))):
        assert (1, None, True) == (asked.returncode, told["totalBytes"], "it takes 600 s" in told["absent"])


def test_a_recommendation_stands_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """R-P14: total, parts, limit; exit code 0."""
    advised = advise(SEEN, Signal.UNRECLAIMABLE, 80)

    class Told:
        """A sidecar that has seen enough."""

        def recommendation(self) -> Recommendation:
            """What it was seen to need."""
            return advised

    assert 0 == recommend_for_one(Told(), "table")
    shown = capsys.readouterr().out
    figures = [f"{size / MIB:.1f} MiB" for size in (advised.total_bytes or 0, 33 * MIB, advised.limit_bytes or 0)]
    assert [True] * 3 == [figure in shown for figure in figures]
    flat = " ".join(shown.split())
    assert [True] * len(advised.reasons) == [reason in flat for reason in advised.reasons]


def test_without_a_sidecar_one_line_says_so(tmp_path: Path) -> None:
    """R-T03: exit code 1, no traceback."""
    asked = run("recommend", "--run", str(tmp_path))
    assert (1, "", False) == (asked.returncode, asked.stdout, "Traceback" in asked.stderr)
