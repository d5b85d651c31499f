"""A fake engine and a hand-driven sidecar beside it, both ended after the test."""

from collections.abc import Generator
from pathlib import Path

import pytest

from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import HandDriven


@pytest.fixture
def engine(tmp_path: Path) -> Generator[FakeEngine]:
    """An engine that listens in tmp_path."""
    fake = FakeEngine(tmp_path).start()
    yield fake
    fake.kill()


@pytest.fixture
def sidecar(tmp_path: Path) -> Generator[HandDriven]:
    """A sidecar that looks for an engine in tmp_path; its actions wait one second for an answer."""
    driven = HandDriven(tmp_path, action_seconds=1.0)
    yield driven
    driven.close()
