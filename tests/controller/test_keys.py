"""The key pair and the epoch: made once, raised at each start, shown to nobody (R-P08)."""

from __future__ import annotations

import base64
import hashlib
import logging

import pytest
from nacl.signing import VerifyKey

from controller.fake_cluster import FakeCluster
from membudget_controller.cluster import Stored
from membudget_controller.errors import ApiFailed, KeysUnusable, SteppedDown, api_failure
from membudget_controller.key_publication import BUSY_SECONDS, RETRY_SECONDS, KeyPublication
from membudget_controller.keys import EPOCH_FIELD, KEY_ID_FIELD, PRIVATE_FIELD, stored_epoch, take_authority
from membudget_controller.settings import KEY_CONFIG_MAP, KEY_SECRET
from membudget_controller.write_budget import MOST_PER_SECOND, BudgetSpent, WriteBudget

HOME = "membudget-system"
WHERE = (HOME, KEY_SECRET)


def test_the_first_start_makes_the_pair_and_an_epoch_of_the_clock() -> None:
    """R-P08: kid is the first 16 hex digits of the sha256 of the public key."""
    cluster = FakeCluster()
    authority = take_authority(cluster, HOME, 1_790_000_000.9)
    public = base64.b64decode(authority.key.public_text)
    assert hashlib.sha256(public).hexdigest()[:16] == authority.key.key_id
    stored = cluster.secrets[WHERE].data
    assert (1_790_000_000, "1790000000", authority.key.key_id) == (
        authority.epoch,
        stored[EPOCH_FIELD],
        stored[KEY_ID_FIELD],
    )
    VerifyKey(public).verify(b"said", base64.b64decode(authority.key.sign(b"said")))


def test_the_empty_secret_of_the_chart_is_filled_and_what_else_is_in_it_stays() -> None:
    """R-P08: the chart renders it empty and keeps it."""
    cluster = FakeCluster()
    cluster.store(cluster.secrets, WHERE, {"note": "kept"})
    take_authority(cluster, HOME, 5)
    assert {"note", PRIVATE_FIELD, KEY_ID_FIELD, EPOCH_FIELD} == set(cluster.secrets[WHERE].data)


@pytest.mark.parametrize(("wall", "expected"), [(900, 1001), (1000, 1001), (5000, 5000)])
def test_each_start_raises_the_epoch_even_if_the_clock_went_back(wall: int, expected: int) -> None:
    """Fault 96: the key stays, the epoch never falls."""
    cluster = FakeCluster()
    first = take_authority(cluster, HOME, 1000)
    second = take_authority(cluster, HOME, wall)
    assert (first.key.key_id, expected, expected) == (second.key.key_id, second.epoch, stored_epoch(cluster, HOME))


def test_of_two_that_start_at_once_each_gets_its_own_epoch() -> None:
    """Fault 33: compare-and-swap; whoever was first counts."""
    cluster = FakeCluster()
    take_authority(cluster, HOME, 1000)
    other: list[int] = []

    def start_another(request: str) -> None:
        if not other and request == "PATCH secret":
            other.append(0)
            other[0] = take_authority(cluster, HOME, 1000).epoch

    cluster.before_write = start_another
    assert (1002, [1001]) == (take_authority(cluster, HOME, 1000).epoch, other)


def test_a_secret_made_by_another_in_between_is_used() -> None:
    """R-P08: create answers 409, and its key counts."""
    cluster = FakeCluster()
    theirs = take_authority(FakeCluster(), HOME, 1)

    def make_it(request: str) -> None:
        if request == "POST secret" and WHERE not in cluster.secrets:
            source = FakeCluster()
            take_authority(source, HOME, 77)
            cluster.secrets[WHERE] = source.secrets[WHERE]

    cluster.before_write = make_it
    ours = take_authority(cluster, HOME, 1)
    assert (78, cluster.secrets[WHERE].data[KEY_ID_FIELD]) == (ours.epoch, ours.key.key_id)
    assert theirs.key.key_id != ours.key.key_id


def test_a_secret_that_is_written_all_the_time_ends_the_start() -> None:
    """R-P08: after ten attempts a person is told."""
    cluster = FakeCluster()
    take_authority(cluster, HOME, 1)

    def write_it(_: str) -> None:
        cluster.store(cluster.secrets, WHERE, cluster.secrets[WHERE].data)

    cluster.before_write = write_it
    with pytest.raises(KeysUnusable, match="changed 10 times"):
        take_authority(cluster, HOME, 1)


@pytest.mark.parametrize(
    "data",
    [
        {PRIVATE_FIELD: "short"},
        {PRIVATE_FIELD: "AAAA"},
        {PRIVATE_FIELD: "\x00" * 44},
        {EPOCH_FIELD: "soon"},
        {EPOCH_FIELD: "-1"},
    ],
)
def test_a_damaged_secret_is_named_and_not_overwritten(data: dict[str, str]) -> None:
    """R-P08: a new key in its place would lock out every pod that knows the old one."""
    cluster = FakeCluster()
    kept = cluster.store(cluster.secrets, WHERE, data)
    with pytest.raises(KeysUnusable, match=next(iter(data))) as refusal:
        take_authority(cluster, HOME, 1)
    assert kept == cluster.secrets[WHERE]
    assert next(iter(data.values())) not in str(refusal.value)


def test_the_private_key_is_in_no_log_no_repr_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Security: not at level DEBUG either, and not in what fails while it is written."""
    caplog.set_level(logging.DEBUG)
    cluster = FakeCluster()
    authority = take_authority(cluster, HOME, 1)
    stored = cluster.secrets[WHERE]
    KeyPublication(cluster, authority, WriteBudget(lambda: 0.0)).publish(["search"], 0)
    cluster.before_write = _refuse
    with pytest.raises(ApiFailed) as refusal:
        take_authority(cluster, HOME, 1)
    told = "\n".join([caplog.text, repr(authority), repr(stored), repr(cluster.secrets), repr(refusal.value)])
    told += "\n".join(map(repr, vars(authority.key)))
    secret = stored.data[PRIVATE_FIELD]
    raw = base64.b64decode(secret)
    assert [False] * 4 == [form in told for form in (secret, raw.hex(), repr(raw), str(list(raw)))]
    assert authority.key.key_id in told


def _refuse(request: str) -> None:
    raise api_failure(request, 422, "Unprocessable Entity")


def test_stepping_down_says_what_happened() -> None:
    """Fault 33: the message names both epochs; the exit code is its own."""
    error = SteppedDown(5, 9)
    assert (3, True, True) == (error.exit_code, "epoch 9" in str(error), "stepping down" in str(error))


class Published:
    """A publication with one key."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        authority = take_authority(self.cluster, HOME, 1)
        self.key = authority.key
        self.publication = KeyPublication(self.cluster, authority, WriteBudget(lambda: 0.0))
        self.cluster.writes.clear()

    def data(self, namespace: str) -> dict[str, str]:
        """Of the ConfigMap there."""
        return dict(self.cluster.config_maps.get((namespace, KEY_CONFIG_MAP), Stored("", {})).data)


def test_the_public_key_is_published_once_in_every_namespace_that_needs_it() -> None:
    """R-P08, guarantee 6: looked at again, it is not written again."""
    made = Published()
    for _ in range(3):
        made.publication.publish(["search", "archive"], 0)
        made.publication.look_again()
    own = {made.key.key_id: made.key.public_text}
    assert (own, own) == (made.data("search"), made.data("archive"))
    assert ["configmap in archive", "configmap in search"] == made.cluster.writes


def test_the_key_of_the_former_pair_stays_beside_ours() -> None:
    """R-P08: pods that hold only the old one still verify what its controller signed."""
    made = Published()
    made.cluster.store(made.cluster.config_maps, ("search", KEY_CONFIG_MAP), {"former": "key"})
    made.publication.publish(["search"], 0)
    assert {"former": "key", made.key.key_id: made.key.public_text} == made.data("search")


def test_a_third_key_is_not_added_and_none_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    """Design, Orders: at most two, never removed by the controller; a person is told."""
    made = Published()
    made.cluster.store(made.cluster.config_maps, ("search", KEY_CONFIG_MAP), {"a": "1", "b": "2"})
    made.publication.publish(["search"], 0)
    assert ({"a": "1", "b": "2"}, []) == (made.data("search"), made.cluster.writes)
    assert "remove one" in caplog.text


def test_a_damaged_copy_is_put_right_when_a_pod_does_not_know_the_key() -> None:
    """R-P08: the namespace is looked at again."""
    made = Published()
    made.publication.publish(["search"], 0)
    made.cluster.store(made.cluster.config_maps, ("search", KEY_CONFIG_MAP), {made.key.key_id: "changed"})
    made.publication.publish(["search"], 1)
    before = made.data("search")
    made.publication.look_again(["search"])
    made.publication.publish(["search"], 2)
    assert ("changed", made.key.public_text) == (before[made.key.key_id], made.data("search")[made.key.key_id])


@pytest.mark.parametrize(("status", "pause"), [(500, BUSY_SECONDS), (429, BUSY_SECONDS), (403, RETRY_SECONDS)])
def test_a_busy_api_server_is_asked_again_sooner_than_one_that_refuses(status: int, pause: float) -> None:
    """Fault 7: pods wait for the key meanwhile."""
    cluster = FakeCluster()
    publication = KeyPublication(cluster, take_authority(cluster, HOME, 1), WriteBudget(lambda: 0.0))
    cluster.failing = status
    publication.publish({"search"}, 1000.0)
    assert (publication.next_at(), publication.published) == (1000.0 + pause, set())


def test_a_namespace_that_refuses_is_tried_again_later_and_holds_up_no_other() -> None:
    """Fault 17: a namespace that ends takes no new objects."""
    made = Published()

    def refuse(_: str) -> None:
        raise api_failure("POST configmap", 403, "Forbidden")

    made.cluster.before_write = refuse
    made.publication.publish(["ending"], 10)
    made.cluster.before_write = lambda _: None
    made.publication.publish(["ending", "search"], 11)
    soon, due = set(made.publication.published), made.publication.next_at()
    made.publication.publish(["ending", "search"], 10 + RETRY_SECONDS)
    assert ({"search"}, 10 + RETRY_SECONDS, {"ending", "search"}) == (soon, due, made.publication.published)


def test_keys_go_before_statuses_where_writes_are_scarce() -> None:
    """Without its key a pod believes no order: what this second does not have is left to the keys in the next."""
    cluster, now = FakeCluster(), 0.0
    budget = WriteBudget(lambda: now)
    publication = KeyPublication(cluster, take_authority(cluster, HOME, 1), budget)
    for _ in range(MOST_PER_SECOND):
        with budget.one():
            pass
    publication.publish({"search"}, now)
    waits = publication.next_at()
    now = 1.0
    for _ in range(MOST_PER_SECOND - 1):
        with budget.one():
            pass
    with pytest.raises(BudgetSpent), budget.one():
        pass
    publication.publish({"search"}, now)
    assert (1.0, {"search"}) == (waits, publication.published)
