from hypothesis import given
from hypothesis import strategies as st

from membudget_sidecar.kernel.reading import Absent, Reading, remainder, total

absences = st.builds(Absent, st.text())
readings: st.SearchStrategy[Reading] = st.one_of(st.integers(min_value=0, max_value=2**64), absences)


def test_a_sum_adds_what_is_known() -> None:
    """R-S01: a figure made of figures."""
    assert total(1, 2, 3) == 6


def test_a_sum_with_an_absent_part_is_absent_with_the_first_reason() -> None:
    """R-S01: never 0 for what is not known."""
    assert total(1, Absent("first"), Absent("second")) == Absent("first")


def test_a_remainder_does_not_go_under_nothing() -> None:
    """R-S01: the kernel's counters are not of the same moment."""
    assert remainder(3, 5) == 0


def test_a_remainder_of_an_absent_whole_or_part_is_absent() -> None:
    """R-S01: never 0 for what is not known."""
    assert (remainder(Absent("whole"), 1), remainder(1, Absent("part"))) == (Absent("whole"), Absent("part"))


@given(st.lists(readings))
def test_a_sum_is_a_number_only_when_all_parts_are(parts: list[Reading]) -> None:
    """R-S01: absence cannot get lost in arithmetic."""
    assert isinstance(total(*parts), int) == all(isinstance(part, int) for part in parts)
