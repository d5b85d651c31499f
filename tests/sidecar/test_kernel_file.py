import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from membudget_sidecar.kernel.kernel_file import (
    only,
    parse_count,
    parse_keyed,
    parse_kibibytes,
    read_count,
    read_figures,
    read_stall_percent,
    read_text,
)
from membudget_sidecar.kernel.reading import Absent

# Pieces of the kernel's formats, so that the search meets almost-right lines and not only noise.
pieces = st.sampled_from(
    ["anon", " ", "12", "kB", ":", "\n", "-1", "1_0", "٣", "max", "some avg10=", "9" * 25, "\x00", "²"]
)
texts = st.one_of(st.text(), st.lists(pieces).map("".join))


def test_a_missing_file_is_absent_and_the_reason_names_it(tmp_path: Path) -> None:
    """R-S01: absent with a reason."""
    path = str(tmp_path / "memory.current")
    assert read_text(path) == Absent(f"{path}: No such file or directory")


def test_a_directory_in_place_of_a_file_is_absent(tmp_path: Path) -> None:
    """R-S01: every error of the system becomes a reason."""
    assert read_count(str(tmp_path)) == Absent(f"{tmp_path}: Is a directory")


def test_an_empty_file_is_no_zero(tmp_path: Path) -> None:
    """R-S01: truncated content is absent."""
    path = tmp_path / "memory.current"
    path.write_text("")
    assert read_count(str(path)) == Absent(f"{path}: not a number: ''")


def test_a_figure_that_the_file_lacks_is_absent_and_named(tmp_path: Path) -> None:
    """R-S01: the reason names file and figure."""
    path = tmp_path / "memory.stat"
    path.write_text("anon 5\n")
    assert read_figures(str(path), parse_keyed).get("shmem") == Absent(f"{path}: no figure shmem")


def test_garbage_lines_do_not_lose_the_good_ones() -> None:
    """R-S01: one bad line costs one figure."""
    assert parse_keyed("anon 5\n\x00\x00 what\nfile\nsock -1\nshmem 7 8\n 9\nkernel 11") == {"anon": 5, "kernel": 11}


def test_kibibytes_become_bytes_and_other_lines_are_left_out() -> None:
    """R-S01: units are bytes."""
    assert parse_kibibytes("Name:\tx kB\nVmRSS:\t    12 kB\nThreads:\t9\nVmSwap:\t1x kB\n") == {"VmRSS": 12288}


def test_a_number_longer_than_64_bits_is_none() -> None:
    """R-S01: int() would raise at 4,300 digits."""
    assert (parse_count("18446744073709551615"), parse_count("18446744073709551616"), parse_count("9" * 5000)) == (
        2**64 - 1,
        None,
        None,
    )


@given(texts)
def test_any_text_parses_to_numbers_or_nothing(text: str) -> None:
    """R-S01: no content of a kernel file can raise."""
    figures = [parse_count(text), *parse_keyed(text).values(), *parse_kibibytes(text).values()]
    assert [figure for figure in figures if figure is not None and not 0 <= figure < 2**64] == []


@given(st.one_of(st.binary(), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_file_reads_as_a_figure_or_its_absence(content: bytes) -> None:
    """R-S01: no content of a kernel file can raise."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        path.write_bytes(content)
        count, stall = read_count(str(path)), read_stall_percent(str(path))
    assert (isinstance(count, int | Absent), isinstance(stall, float | Absent)) == (True, True)


@given(st.text(alphabet="ab 0123456789\n-x", max_size=200))
def test_a_parse_for_a_few_names_is_as_strict_as_the_whole_one(text: str) -> None:
    """R-S01: a line that does not parse is left out by both."""
    whole = parse_keyed(text)
    assert {name: value for name, value in whole.items() if name in {"a", "ab"}} == only("a", "ab")(text)
