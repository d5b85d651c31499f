"""The arguments in the chart, read by the programs that get them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from membudget_controller import __main__ as controller
from membudget_engine import __main__ as engine
from membudget_sidecar import __main__ as sidecar


def read(member: str, arguments: Sequence[str]) -> argparse.Namespace:
    """As that member's program understands them; ends the test where it does not."""
    parsers = {
        "controller": controller._parser,  # pyright: ignore[reportPrivateUsage]
        "engine": engine._parser,  # pyright: ignore[reportPrivateUsage]
        "sidecar": sidecar._parser,  # pyright: ignore[reportPrivateUsage]
    }
    return parsers[member]().parse_args(arguments)
