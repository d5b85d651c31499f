"""Orders do not wait for an API server that takes its time with statuses (R-P08, R-P10)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from controller.test_loop import Controller, totals

WITHIN_SECONDS = 10.0


def test_pods_get_their_plans_while_a_status_is_being_written() -> None:
    """R-P08, faults 14 and 23: a write of a status has not ended, and another edit arrives at every pod."""
    controller = Controller()
    pods = controller.add_pods(3)
    gate, stuck = threading.Event(), threading.Event()

    def before_write(request: str) -> None:
        if "status" in request:
            stuck.set()
            assert gate.wait(3 * WITHIN_SECONDS)

    controller.cluster.before_write = before_write
    controller.apply(total="100Mi")
    loop = threading.Thread(target=controller.loop.run, args=(lambda: None,), daemon=True)
    loop.start()
    await_(lambda: totals(pods) == ["100Mi"] * 3)
    assert stuck.wait(WITHIN_SECONDS)
    controller.now += 5
    controller.apply(total="110Mi")
    await_(lambda: totals(pods) == ["110Mi"] * 3)
    assert [] == controller.cluster.statuses
    gate.set()
    controller.loop.stop()
    loop.join(WITHIN_SECONDS)
    assert not loop.is_alive()


def await_(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    ends_at = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
