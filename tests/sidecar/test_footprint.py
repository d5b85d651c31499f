"""A real sidecar process lives in a real memory cgroup of 48 MB and stays small (R-S11)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from memory_cgroup import memory_cgroup
from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import policy_text
from sidecar.raw_peer import Peer
from sidecar.sidecar_process import Started

MB = 1 << 20
LIMIT = 48 * MB
MOST_RESIDENT, MOST_PRIVATE = 30 * MB, 18 * MB
SCRAPES = 300


def private_bytes(pid: int) -> int:
    """What would be free if only this process ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


@pytest.mark.cgroup
def test_a_sidecar_lives_in_48_mb_and_is_scraped_300_times(
    tmp_path: Path, engine: FakeEngine, publish: Callable[[str], None]
) -> None:
    """R-S11: 30 MB resident and 18 MB private, as the kernel shows them from outside; no OOM kill, no growth.

    The 24,000 samples are benches/footprint.py's.
    """
    (tmp_path / "policy.yaml").write_text(policy_text())
    with memory_cgroup(LIMIT) as cgroup:
        started = Started(tmp_path, "--policy", str(tmp_path / "policy.yaml"), launch=cgroup.run)
        started.until(engine="Connected", enginePid=engine.pid, policy="by-hand")
        peer = Peer(started)
        first = peer.resident_bytes()
        assert {200} == {peer.scrape()[0].status for _ in range(SCRAPES)}
        assert [str(started.process.pid)] == cgroup.members()
        mapped = Path(f"/proc/{started.process.pid}/maps").read_text()
        resident, private = peer.resident_bytes(), private_bytes(started.process.pid)
        code, kills, peak = started.end()[0], cgroup.oom_kills(), cgroup.peak_usage()
    publish(
        f"sidecar in 48 MB after {SCRAPES} scrapes: {resident / MB:.1f} MB resident, {private / MB:.1f} MB private, "
        f"the cgroup's peak with page cache {peak / MB:.1f} MB"
    )
    assert (0, 0) == (code, kills)
    assert [] == [library for library in ("libssl", "libcrypto") if library in mapped]
    assert (True, True, True) == (resident <= MOST_RESIDENT, private <= MOST_PRIVATE, resident - first <= MB)
