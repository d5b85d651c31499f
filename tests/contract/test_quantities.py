from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.errors import QuantityInvalid
from membudget_contract.quantities import MAX_BYTES, MIB, Amount, format_bytes, parse_quantity

SUFFIXES = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("150Mi", 157_286_400),
        ("150M", 150_000_000),
        ("1.5Gi", 1_610_612_736),
        (".5Ki", 512),
        ("5.", 5),
        ("1k", 1000),
        ("2e8", 200_000_000),
        ("2E8", 200_000_000),
        ("12e+2", 1200),
        ("1E", 10**18),
        ("7Ei", 7 * 1024**6),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1Ti", 1024**4),
        ("1Pi", 1024**5),
        ("007", 7),
        ("9223372036854775807", MAX_BYTES),
        # Fractions of a byte are rounded up, as the API server does.
        ("1m", 1),
        ("1001m", 2),
        ("0.1", 1),
        ("15e-1", 2),
        ("1e-99", 1),
    ],
)
def test_quantities_mean_what_they_mean_to_kubernetes(text: str, amount: int) -> None:
    """R-P02: binary, decimal and exponent notation."""
    assert parse_quantity(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "Mi",
        "1Zi",
        "1Yi",
        "1K",
        "1ki",
        "1mi",
        "1 Mi",
        " 1Mi",
        "1Mi ",
        "1Mi\n",
        "1MB",
        "1MiB",
        "-1",
        "-150Mi",
        "+1",
        "1e400",
        "1e",
        "1e1.5",
        "1,5Gi",
        "1_000",
        "0x10",
        "NaN",
        "Infinity",
        "inf",
        "\u0661\u0665\u0660",  # Arabic digits, which int() would read
        "\uff11\uff15\uff10Mi",  # full-width digits
        "150\u041ci",  # a Cyrillic letter that looks like M
        "\u00bd",
        "1\x00",
        "9223372036854775808",
        "8Ei",
        "9999999999999999999E",
        "1.0000000001",
        "1" * 1_000_000,
    ],
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """R-P02: nothing is guessed; the answer carries no megabyte."""
    with pytest.raises(QuantityInvalid) as refused:
        parse_quantity(text)
    assert len(str(refused.value)) < 150


@given(st.integers(0, 10**9), st.integers(0, 999), st.sampled_from(sorted(SUFFIXES)))
def test_fractions_round_up_to_whole_bytes(whole: int, thousandths: int, suffix: str) -> None:
    """R-P02: never less than was written, and less than a byte more."""
    exact = (Decimal(whole) + Decimal(thousandths) / 1000) * SUFFIXES[suffix]
    assert 0 <= parse_quantity(f"{whole}.{thousandths:03}{suffix}") - exact < 1


@given(st.integers(0, MAX_BYTES) | st.integers(0, 2**23).map(lambda mib: mib * MIB))
def test_formatted_bytes_read_back_the_same(amount: int) -> None:
    """R-P02: what is shown can be pasted into a policy."""
    assert parse_quantity(format_bytes(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1000, "1000"), (1024, "1Ki"), (157_286_400, "150Mi"), (1536 * MIB, "1536Mi")]
)
def test_bytes_are_shown_with_the_largest_suffix_that_is_exact(amount: int, text: str) -> None:
    """R-P02: figures in messages are short and never rounded."""
    assert format_bytes(amount) == text


QUANTITY_LIKE = st.text(alphabet="0123456789.eE+-kKMmGTPEi% \n\u0661NaZB", max_size=25)


@given(st.text() | QUANTITY_LIKE | st.from_regex(r"[0-9.]{1,30}[A-Za-z%+-]{0,3}[0-9]{0,5}"))
def test_any_text_is_an_amount_or_refused_by_name(text: str) -> None:
    """R-P02: no input reaches the caller as another error, and none makes a negative or endless amount."""
    try:
        amount = Amount(text)
    except QuantityInvalid:
        return
    assert 0 <= amount.of(1000) <= MAX_BYTES


@pytest.mark.parametrize("text", ["0%", "101%", "999%", "1000%", "-5%", "7.5%", "%", "75 %", "75%%", "\u0667\u0665%"])
def test_percents_outside_1_to_100_are_refused(text: str) -> None:
    """R-P03: whole percents only."""
    with pytest.raises(QuantityInvalid):
        Amount(text)


@pytest.mark.parametrize(("text", "amount"), [("1%", 10), ("75%", 757), ("100%", 1010), ("64", 64), ("1Ki", 1024)])
def test_an_amount_is_bytes_or_a_share_rounded_down(text: str, amount: int) -> None:
    """R-P03: a percent follows the whole, bytes do not."""
    assert Amount(text).of(1010) == amount


def test_amounts_compare_by_value_and_show_what_was_written() -> None:
    """R-P02: 1Gi and 1024Mi ask for the same; people see their own words."""
    assert {Amount("1Gi")} == {Amount("1024Mi")}
    assert Amount("50%") != Amount("50")
    assert (str(Amount("1024Mi")), repr(Amount("75%"))) == ("1024Mi", "Amount('75%')")
