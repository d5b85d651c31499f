"""From a full look to the facts that alerts are held against.

Pure. Covers: which bytes of files somebody accounts for, and which forecast counts. Does not raise anything (`alerts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from membudget_contract.control_api import Report
from membudget_sidecar.deciding.alerts import Facts
from membudget_sidecar.deciding.ladder_state import Observation
from membudget_sidecar.deciding.leaks import Suspect
from membudget_sidecar.kernel.process import ProcessReading
from membudget_sidecar.kernel.reading import Absent, Reading, remainder, total
from membudget_sidecar.kernel.sample import Sample

NAMED: Final = 3
"""Suspects in one alert, those that grew most; the local API lists all."""


def facts_of(
    seen: Observation | None, sample: Sample | Absent, report: Report | None, suspects: Iterable[Suspect]
) -> Facts:
    """What is known; a figure that is absent is None."""
    process = sample.process if isinstance(sample, Sample) else None
    worst = sorted(suspects, key=lambda suspect: suspect.grown_bytes, reverse=True)
    return Facts(
        signal_bytes=seen.signal_bytes if seen else None,
        resident_bytes=_known(process.resident) if process else None,
        heap_bytes=_known(total(process.anonymous, process.shmem)) if process else None,
        explained_file_bytes=_explained(process, report) if process and report else None,
        seconds_to_limit=seen.seconds_to_limit if seen else None,
        leaks=tuple(suspect.reason for suspect in worst[:NAMED]),
    )


def _explained(process: ProcessReading, report: Report) -> int | None:
    """Mapped indexes as the engine reports them, and of the other files as much as code and libraries may take.

    The kernel tells their size, not what of it is resident: a file mapped by nobody we know is seen once the rest is
    larger than all libraries together.
    """
    mapped = [part.mapped_bytes for part in report.components]
    if any(amount is None for amount in mapped):
        return None
    known = sum(amount or 0 for amount in mapped)
    others = remainder(process.file, known)
    libraries = total(process.code, process.libraries)
    if isinstance(others, Absent) or isinstance(libraries, Absent):
        return None
    return known + min(others, libraries)


def _known(reading: Reading) -> int | None:
    return None if isinstance(reading, Absent) else reading
