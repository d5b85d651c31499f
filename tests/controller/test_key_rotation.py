"""From one key pair to the next: no pod stops listening, and nobody waits for one that does not answer (R-P08)."""

from __future__ import annotations

import pytest

from controller.fake_sidecar import FakeSidecar
from controller.test_loop import HOME, Controller, totals
from membudget_controller.errors import api_failure
from membudget_controller.keys import (
    KEY_ID_FIELD,
    NEXT_PRIVATE_FIELD,
    PRIVATE_FIELD,
    RETIRED_FIELD,
    ROTATE_FIELD,
    ROTATED_FIELD,
)
from membudget_controller.settings import KEY_SECRET

WHERE = (HOME, KEY_SECRET)
LIST_SECONDS = 300.0
"""A request is seen with the next full list."""


@pytest.fixture
def controller() -> Controller:
    """Three pods that hold their plan, and the kubelet's copy of the keys in `mounted`."""
    made = Controller()
    made.apply(total="100Mi")
    made.add_pods(3)
    made.run()
    return made


def ask_for_rotation(controller: Controller, text: str = "2026-11-21") -> None:
    """As a person does with `kubectl patch secret`."""
    stored = controller.cluster.secrets[WHERE]
    controller.cluster.store(controller.cluster.secrets, WHERE, {**stored.data, ROTATE_FIELD: text})


def secret(controller: Controller) -> dict[str, str]:
    """What stands in it."""
    return dict(controller.cluster.secrets[WHERE].data)


def mount_late(sidecar: FakeSidecar, controller: Controller) -> None:
    """The pod goes on with the keys that it has now."""
    now = controller.public_keys("search")
    sidecar.mount(lambda: now)


def mount_now(sidecar: FakeSidecar, controller: Controller) -> None:
    """The kubelet has brought what is published."""
    sidecar.mount(lambda: controller.public_keys("search"))


def sidecars(controller: Controller) -> list[FakeSidecar]:
    """All of them."""
    return list(controller.network.sidecars.values())


def test_a_rotation_on_request_ends_with_one_new_key_everywhere(controller: Controller) -> None:
    """Asked once, done once; orders are taken under the new key and the old one is known nowhere."""
    old = secret(controller)
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 60)
    new = secret(controller)
    assert (new[PRIVATE_FIELD] != old[PRIVATE_FIELD], new[NEXT_PRIVATE_FIELD], new[RETIRED_FIELD]) == (
        True,
        "",
        old[KEY_ID_FIELD],
    )
    assert list(controller.public_keys("search")) == [new[KEY_ID_FIELD]]
    controller.apply(total="110Mi")
    controller.run()
    assert totals(sidecars(controller)) == ["110Mi"] * 3
    assert controller.sample("pushes_total", result="Refused") is None  # numbers went on
    controller.run(2 * LIST_SECONDS)
    assert secret(controller) == new


def test_the_old_key_stays_until_every_pod_that_answers_knows_the_new_one(controller: Controller) -> None:
    """One pod's kubelet is late: two keys are published, orders go out under the old one, all pods follow."""
    old = secret(controller)[KEY_ID_FIELD]
    late = sidecars(controller)[0]
    mount_late(late, controller)
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 120)
    assert (secret(controller)[KEY_ID_FIELD], len(controller.public_keys("search"))) == (old, 2)
    controller.apply(total="110Mi")
    controller.run()
    assert totals(sidecars(controller)) == ["110Mi"] * 3
    mount_now(late, controller)
    controller.run(60)
    assert (secret(controller)[KEY_ID_FIELD] != old, len(controller.public_keys("search"))) == (True, 1)


def test_a_pod_that_does_not_answer_holds_up_no_rotation(controller: Controller) -> None:
    """It finds the new key mounted when it is back."""
    gone = sidecars(controller)[0]
    gone.mode = "down"
    controller.run(120)
    old = secret(controller)[KEY_ID_FIELD]
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 60)
    assert secret(controller)[KEY_ID_FIELD] != old
    gone.mode = ""
    controller.apply(total="110Mi")
    controller.run(60)
    assert totals(sidecars(controller)) == ["110Mi"] * 3


def test_a_pod_that_knows_no_key_at_all_holds_up_no_rotation(controller: Controller) -> None:
    """It has nothing to lose with the old one; KeysPending says what is the matter with it."""
    sidecars(controller)[0].mount(dict)
    controller.run(120)
    old = secret(controller)[KEY_ID_FIELD]
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 60)
    assert secret(controller)[KEY_ID_FIELD] != old


def test_a_successor_goes_on_with_a_rotation(controller: Controller) -> None:
    """The next pair is in the Secret before anybody hears of it: it is not made twice."""
    late = sidecars(controller)[0]
    mount_late(late, controller)
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 10)
    half_done = secret(controller)
    controller.start()
    controller.run(60)
    mount_now(late, controller)
    controller.run(120)
    done = secret(controller)
    assert (half_done[NEXT_PRIVATE_FIELD] != "", done[PRIVATE_FIELD]) == (True, half_done[NEXT_PRIVATE_FIELD])
    assert done[ROTATED_FIELD] == done[ROTATE_FIELD]


def test_a_rotation_pushes_nothing_and_the_reports_stay_fresh(controller: Controller) -> None:
    """Guarantee 6: a key is no change of plan; a pod that lacks it goes on being asked with the one that it has."""
    late = sidecars(controller)[0]
    mount_late(late, controller)
    orders, reports = controller.network.orders(), late.reports
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 300)
    assert controller.network.orders() == orders
    assert late.reports - reports >= 600 // 75


@pytest.mark.parametrize("status", [403, 409, 500])
def test_a_secret_that_cannot_be_written_holds_up_nothing_else(controller: Controller, status: int) -> None:
    """The rotation waits; policies are followed."""

    def refuse(request: str) -> None:
        if "secret" in request:
            raise api_failure(request, status, "as the test wants it")

    ask_for_rotation(controller)
    controller.cluster.before_write = refuse
    controller.run(LIST_SECONDS)
    controller.apply(total="110Mi")
    controller.run()
    assert (totals(sidecars(controller)), len(controller.public_keys("search"))) == (["110Mi"] * 3, 1)


def test_private_keys_are_in_the_secret_alone(controller: Controller, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the pair that goes nor the one that comes is in a log or a ConfigMap."""
    caplog.set_level("DEBUG")
    seen = {secret(controller)[PRIVATE_FIELD]}
    ask_for_rotation(controller)
    controller.run(LIST_SECONDS + 60)
    seen.add(secret(controller)[PRIVATE_FIELD])
    published = str(controller.cluster.config_maps)
    assert (len(seen), [key for key in seen if key in caplog.text or key in published]) == (2, [])
