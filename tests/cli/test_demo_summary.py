"""What the demo says at its end: that it held only where its policies were in force."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from membudget_cli.demo.summary import Half, Outcome, show
from membudget_cli.witness import Witness
from membudget_contract.quantities import parse_quantity
from membudget_contract.sidecar_api import Level, Status

GOLDEN = Path(__file__).parents[1] / "contract/golden_messages/1.0/Status.json"
STATUS = msgspec.json.decode(GOLDEN.read_bytes(), type=Status)


def half(asked: str, in_force: str, problem: str | None = None, resident: str = "100Mi") -> Half:
    """The end of one half."""
    status = msgspec.structs.replace(
        STATUS, budget_bytes=parse_quantity(in_force), policy_problem=problem, level=Level.NORMAL
    )
    return Half(parse_quantity(asked), status, parse_quantity(resident), None, None, None)


@pytest.mark.parametrize(
    ("after", "held"),
    [
        (half("150Mi", "150Mi"), True),
        (half("150Mi", "165Mi", "components is unknown"), False),
        (half("150Mi", "150Mi", resident="120Mi"), False),
    ],
)
def test_it_held_where_each_policy_was_in_force_and_its_soft_rung_above_the_engine(after: Half, *, held: bool) -> None:
    """R-S12: a policy that was refused is not shown as one that held."""
    assert held is Outcome(half("165Mi", "165Mi"), after, (), 9, {}, 0).held()


def test_a_policy_that_was_refused_is_said_with_the_reason() -> None:
    """R-S12: at the end, where people look."""
    text = io.StringIO()
    outcome = Outcome(half("165Mi", "165Mi"), half("150Mi", "165Mi", "components is unknown"), (), 9, {}, 0)
    show(Console(file=text, width=200), outcome, Witness(1))
    assert "The policy of 150.0 MiB was not taken: components is unknown." in text.getvalue()
