"""A sidecar's loop without its thread: the test moves the clock and looks after every tick."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from membudget_contract.control_api import REPORT_PATH
from membudget_contract.sidecar_api import ActionRecord, ActionStatus
from membudget_sidecar.acting.actions import ActionRunner
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.plan_keeper import PlanKeeper
from membudget_sidecar.plans.policy_file import PolicyFile
from membudget_sidecar.settings import SidecarSettings
from sidecar.fake_engine import FakeEngine, eventually

MIB = 1 << 20
UNENDED = (ActionStatus.QUEUED, ActionStatus.RUNNING)


def policy_text(total: str = "100Mi", *, signal: str = "ResidentSetSize", **spec: Any) -> str:
    """A MemoryPolicy as JSON, which is YAML too; measured by the resident set, so that no other process counts."""
    document = {
        "apiVersion": "membudget.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": "by-hand"},
        "spec": {"budget": {"signal": signal, "total": total}, **spec},
    }
    return json.dumps(document)


class HandDriven:
    """One sidecar under a folder; `now` is its monotonic clock. With a policy file, or following orders."""

    def __init__(self, folder: Path, *, action_seconds: float = 10.0, follows_orders: bool = False) -> None:
        policy_file = None if follows_orders else folder / "policy.yaml"
        self.settings = SidecarSettings(folder, folder / "state", policy_file)
        self.now = 1000.0
        self.link = EngineLink(self.settings)
        state_folder = None if follows_orders else self.settings.state_folder
        self.keeper = PlanKeeper(state_folder, {}, monotonic=lambda: self.now, wall=lambda: 1e9 + self.now)
        self.loop = Loop(
            self.link,
            self.keeper,
            PolicyFile(policy_file) if policy_file else None,
            runner=lambda ended: ActionRunner(
                self.settings,
                self.link,
                wall=time.time,
                ended=ended,
                mode=lambda: self.keeper.effective.mode,
                seconds=action_seconds,
                clock=lambda: self.now,
            ),
            clock=lambda: self.now,
            state_folder=self.settings.state_folder,
        )
        self.loop.actions.start()

    def write_policy(self, text: str) -> None:
        """By rename, as editors do."""
        assert self.settings.policy_file is not None
        aside = self.settings.policy_file.with_name("policy.new")
        aside.write_text(text)
        aside.replace(self.settings.policy_file)

    def tick(self, after: float = 0.125) -> float:
        """One look, that much later, in exact eighths of a second; what the loop asks as a pause."""
        self.now += after
        return self.loop.tick(self.now)

    def watch_quickly(self) -> None:
        """A look at the signal between two ticks."""
        self.loop.watch.look_quickly(self.keeper.effective, self.now)

    def settle(self, seconds: float = 10.0) -> list[ActionRecord]:
        """Tick without moving the clock until every action ended and the loop took its result; all records."""

        def settled() -> bool:
            self.tick(0.0)
            ended = sum(n for (_, status), n in self.loop.tally.actions.items() if status is not ActionStatus.HARMFUL)
            return not self.unended() and ended == len(self.records())

        eventually(settled, "the actions end", seconds)
        return self.records()

    def records(self) -> list[ActionRecord]:
        """Oldest first."""
        return list(self.loop.actions.records())

    def unended(self) -> list[ActionRecord]:
        """Those that wait or run."""
        return [record for record in self.records() if record.status in UNENDED]

    def close(self) -> None:
        """End the thread of the actions, and the connections."""
        self.loop.actions.stop()
        self.link.client.close()


def reports_asked(engine: FakeEngine) -> int:
    """How often the engine was asked for its report."""
    return len(engine.requests(REPORT_PATH))
