"""Where Debian's prometheus and promtool are: skips the test without them, fails it under REQUIRE_PROMETHEUS=1."""

from __future__ import annotations

import os
import shutil

import pytest


def find_program(name: str) -> str:
    """Its path."""
    found = shutil.which(name)
    if found is not None:
        return found
    need = f"{name} is not installed: on Debian `apt-get install prometheus`"
    if os.environ.get("REQUIRE_PROMETHEUS") == "1":
        pytest.fail(f"REQUIRE_PROMETHEUS=1, but {need}")
    pytest.skip(need)
