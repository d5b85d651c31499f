from pathlib import Path

import pytest

from emulated.parts import Parts, PartsMissing, fetch, load_order
from emulated.requirement import find_parts, required


def test_modules_are_loaded_after_those_they_need_and_once() -> None:
    """Insmod looks nothing up; the kernel's file names have dashes where its module names have none."""
    needs = {
        "kernel/a.ko": ["kernel/ring.ko", "kernel/bus-x.ko"],
        "kernel/b.ko": ["kernel/ring.ko"],
        "kernel/ring.ko": ["kernel/bus-x.ko"],
        "kernel/bus-x.ko": [],
        "kernel/unwanted.ko": [],
    }
    expected = ["kernel/bus-x.ko", "kernel/ring.ko", "kernel/b.ko", "kernel/a.ko"]
    assert load_order(("bus_x", "b", "a"), needs) == expected


def test_without_parts_the_test_is_skipped_with_the_reason_or_fails_where_they_were_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known bug 20: never a silent pass."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcome = pytest.fail.Exception if required() else pytest.skip.Exception
    with pytest.raises(outcome, match="run `make cgroup-v2`"):
        find_parts()


def test_what_a_host_lacks_for_fetching_is_one_clear_line(tmp_path: Path) -> None:
    """Where it works, which tools are missing; nothing is left behind."""
    expected = "needs Debian 12 or later on x86-64 with apt-get, apt-cache, dpkg, mkfs.ext4; this is "
    with pytest.raises(PartsMissing, match=expected + r"\w+ that lacks apt-get, apt-cache, dpkg, mkfs\.ext4$"):
        fetch(Parts(tmp_path / "machine"), search_path=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_checkout_are_fetched_anew(tmp_path: Path) -> None:
    """What was fetched for another list of packages or modules is not what this one boots from."""
    made = Parts(tmp_path)
    before = made.complete()
    (tmp_path / "complete").write_text("other packages")
    assert (before, made.complete()) == (False, False)
