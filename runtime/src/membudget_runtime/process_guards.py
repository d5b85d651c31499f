"""Limits that the kernel holds for this process alone, set where the environment asks for them.

Covers: RLIMIT_DATA and RLIMIT_AS, refused where they cannot hold, put back at the end. Does not cover the container's
limit (a cgroup's, which kills) nor budgets (`bounds`, which refuse before anything is allocated). Above a guard an
allocation fails, and Python raises MemoryError in the thread that asked: one request fails, the process lives.

MEMBUDGET_GUARD_DATA counts writable private memory: heap, stacks of threads (8 MiB each), what libraries allocate, and
the runtime's caches, which refuse values at it and evict as before. A mapped index is not writable and does not count.
MEMBUDGET_GUARD_ADDRESS_SPACE counts every mapping, also of files and those never touched: with numpy or a mapped index
it must be gigabytes, and only stops what would be absurd.
"""

from __future__ import annotations

import enum
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from membudget_contract.errors import EnvironmentInvalid
from membudget_contract.quantities import Amount
from membudget_runtime.errors import GuardRefused


class GuardKind(enum.StrEnum):
    """What a guard counts."""

    DATA = "Data"
    ADDRESS_SPACE = "AddressSpace"


VARIABLES: Final = {
    GuardKind.DATA: "MEMBUDGET_GUARD_DATA",
    GuardKind.ADDRESS_SPACE: "MEMBUDGET_GUARD_ADDRESS_SPACE",
}
"""In bytes, as 512Mi."""
_LIMITS: Final = {GuardKind.DATA: resource.RLIMIT_DATA, GuardKind.ADDRESS_SPACE: resource.RLIMIT_AS}
_STATUS_FIELDS: Final = {GuardKind.DATA: "VmData", GuardKind.ADDRESS_SPACE: "VmSize"}


def guards_asked(environment: Mapping[str, str]) -> dict[GuardKind, int]:
    """Bytes by guard, of those that the environment names.

    Raises:
        EnvironmentInvalid: a variable is no number of bytes.
    """
    asked: dict[GuardKind, int] = {}
    for kind, variable in VARIABLES.items():
        text = environment.get(variable)
        if text is None:
            continue
        try:
            byte_count = Amount(text).byte_count
        except ValueError as error:
            raise EnvironmentInvalid(variable, str(error)) from None
        if byte_count is None:
            raise EnvironmentInvalid(variable, f"{text} must be bytes like 512Mi: the process has no whole")
        asked[kind] = byte_count
    return asked


def counted_bytes(kind: GuardKind, proc: Path = Path("/proc/self")) -> int | None:
    """What a guard of this kind counts now; None when the kernel did not say."""
    name = _STATUS_FIELDS[kind] + ":"
    try:
        lines = (proc / "status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
    except (OSError, ValueError, IndexError):
        return None


class ProcessGuards:
    """The guards that an environment asks for, in force from construction to `restore`."""

    def __init__(self, environment: Mapping[str, str], proc: Path = Path("/proc/self")) -> None:
        """Set them all, or none.

        Raises:
            EnvironmentInvalid: a variable is no number of bytes.
            GuardRefused: the process is larger already, or the hard limit is lower.
        """
        self._former: dict[GuardKind, int] = {}
        asked = guards_asked(environment)
        for kind, byte_count in asked.items():
            held = counted_bytes(kind, proc)
            if held is not None and held > byte_count:
                raise GuardRefused(f"{VARIABLES[kind]} asks for {byte_count} bytes, and the process has {held} already")
        try:
            for kind, byte_count in asked.items():
                self._former[kind] = _set(kind, byte_count)
        except (ValueError, OSError) as error:
            self.restore()
            raise GuardRefused(f"the kernel refuses {', '.join(VARIABLES[kind] for kind in asked)}: {error}") from None

    def restore(self) -> None:
        """Put back the limits that were found; a second time does nothing."""
        while self._former:
            _set(*self._former.popitem())


def _set(kind: GuardKind, byte_count: int) -> int:
    """Set the soft limit, which may be raised again; returns the former one."""
    former, hard = resource.getrlimit(_LIMITS[kind])
    resource.setrlimit(_LIMITS[kind], (byte_count, hard))
    return former
