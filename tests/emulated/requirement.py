"""Whether this machine must be able to run the emulated one: REQUIRE_EMULATED=1, as CI sets it."""

import os

import pytest

from emulated.parts import Parts, cached_parts


def required() -> bool:
    """Whether a skip is a failure."""
    return os.environ.get("REQUIRE_EMULATED") == "1"


def find_parts() -> Parts:
    """Those to boot from; skips the test with the reason when there are none, fails it under REQUIRE_EMULATED=1."""
    parts = cached_parts()
    if parts.complete():
        return parts
    need = f"no parts of the emulated machine in {parts.folder}: run `make cgroup-v2`"
    if required():
        pytest.fail(f"REQUIRE_EMULATED=1, but {need}")
    pytest.skip(need)
