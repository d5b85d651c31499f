import subprocess

import pytest

from resident_sampler import ResidentSampler


def test_a_process_is_seen_from_its_first_moment_to_the_stop() -> None:
    """R-S01: the witness that system tests hold against the readings."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        with ResidentSampler(process.pid) as sampler:
            pass
        process.kill()
    times = [sample.taken_at for sample in sampler.samples]
    assert (len(times), times, sampler.max_resident > sampler.max_anonymous) == (2, sorted(times), True)


def test_sampling_ends_with_the_process() -> None:
    """R-S01: a zombie's missing lines are no sample."""
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    with ResidentSampler(process.pid) as sampler:
        pass
    assert sampler.samples == []
    with pytest.raises(ValueError, match="empty"):
        _ = sampler.max_resident
