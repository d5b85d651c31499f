"""What a look at the trend and at leaks costs, beside a least-squares line through the samples the history keeps.

All three are plain Python, as the sidecar has no numpy. A trend's look is a record and a forecast; it keeps some
hundred points of any number of samples.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from measuring import MIB, in_fresh_process, table
from membudget_sidecar.deciding.leaks import Holding, LeakRule, Leaks
from membudget_sidecar.deciding.trend import Trend

SAMPLES = 1000
LOOKS = 200
LIMIT = 10_000 * MIB
TRACES: dict[str, Callable[[float], float]] = {
    "rest": lambda _: 100.0,
    "growth of 1 MiB/s": lambda second: 100 + second,
    "saw-tooth over 0.1 MiB/s": lambda second: 100 + 3 * (second % 20) + 0.1 * second,
}


def cost(name: str) -> tuple[float, float, float]:
    """Microseconds of CPU per look: trend, leaks with five components, least squares."""
    dice, trend, leaks, samples = random.Random(1), Trend(), Leaks(LeakRule()), list[tuple[float, int]]()
    spent = [0.0, 0.0, 0.0]
    for number in range(SAMPLES + LOOKS):
        now = number / 10
        figure = int((TRACES[name](now) + dice.gauss(0, 0.3)) * MIB)
        samples = [*samples[-SAMPLES + 1 :], (now, figure)]
        marks = [time.thread_time()]
        trend.record(now, figure)
        trend.seconds_to(LIMIT)
        marks.append(time.thread_time())
        leaks.look(now, figure, {component: Holding(figure, 50 * MIB) for component in "abcde"})
        marks.append(time.thread_time())
        least_squares(samples)
        marks.append(time.thread_time())
        if number >= SAMPLES:
            spent = [sum_ + after - before for sum_, before, after in zip(spent, marks, marks[1:], strict=False)]
    first, second, third = (1e6 * seconds / LOOKS for seconds in spent)
    return first, second, third


def least_squares(samples: list[tuple[float, int]]) -> float:
    """The slope, in one pass."""
    count = len(samples)
    times = figures = squares = products = 0.0
    for now, figure in samples:
        times += now
        figures += figure
        squares += now * now
        products += now * figure
    spread = count * squares - times * times
    return (count * products - times * figures) / spread if spread else 0.0


if __name__ == "__main__":
    rows: list[tuple[str, float, float, float, float]] = []
    for name in TRACES:
        trend, leaks, line = in_fresh_process(cost, name)
        rows.append((name, trend, leaks, line, trend / line))
    table(
        f"CPU per look after {SAMPLES} samples, in microseconds",
        ("memory", "trend", "leaks, five components", "least squares", "trend / least squares"),
        rows,
    )
