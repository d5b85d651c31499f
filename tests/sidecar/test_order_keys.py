"""Keys come and go with a mounted folder, and only a whole signature by one of them counts (R-P08, fault 93)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from membudget_contract.orders import ORDER_DOMAIN, REPORT_DOMAIN
from membudget_sidecar.plans.order_keys import OrderKeys, Proof
from sidecar.signed_orders import Controller, Signed

BODY = b'{"sequence": 1}'
SIGNATURE = Controller().sign(BODY).signature


def proof(keys: OrderKeys, request: Signed) -> Proof:
    """What the request is worth as an order."""
    return keys.verify(request.key_id, ORDER_DOMAIN, request.body, request.signature)


@pytest.mark.parametrize("folder", ["missing", "empty", "file", "missing/deeper"])
def test_without_a_folder_of_keys_there_are_no_keys_and_no_error(tmp_path: Path, folder: str) -> None:
    """R-P08: a pod may start before the keys are published."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("where a folder should be")
    assert Proof.NO_KEYS == proof(OrderKeys(tmp_path / folder), Controller().sign(BODY))


def test_keys_that_arrive_later_are_noticed(tmp_path: Path) -> None:
    """R-P08: the ConfigMap is mounted optional, and no restart brings it in."""
    keys = OrderKeys(tmp_path / "keys")
    seen = [proof(keys, Controller().sign(BODY))]
    Controller("zz").publish(tmp_path / "keys")
    seen.append(proof(keys, Controller().sign(BODY)))
    Controller().publish(tmp_path / "keys")
    seen.append(proof(keys, Controller().sign(BODY)))
    assert [Proof.NO_KEYS, Proof.UNKNOWN_KEY, Proof.VERIFIED] == seen


def test_a_config_map_is_read_through_its_links_and_swapped_whole(tmp_path: Path) -> None:
    """R-P08: as the kubelet mounts it: `..data` points at a hidden folder and is replaced by rename."""
    first, second = Controller("first"), Controller("second")
    mount = tmp_path / "keys"
    for name, controller in (("..2026_1", first), ("..2026_2", second)):
        (mount / name).mkdir(parents=True)
        controller.publish(mount / name)
    (mount / "..data").symlink_to("..2026_1")
    (mount / "first").symlink_to("..data/first")
    keys = OrderKeys(mount)
    before = [proof(keys, first.sign(BODY)), proof(keys, second.sign(BODY))]
    (mount / "..data_tmp").symlink_to("..2026_2")
    (mount / "..data_tmp").replace(mount / "..data")
    (mount / "second").symlink_to("..data/second")
    (mount / "first").unlink()
    after = [proof(keys, first.sign(BODY)), proof(keys, second.sign(BODY))]
    assert [Proof.VERIFIED, Proof.UNKNOWN_KEY] == before
    assert [Proof.UNKNOWN_KEY, Proof.VERIFIED] == after


def test_a_key_replaced_under_its_name_is_noticed(tmp_path: Path) -> None:
    """Fault 93: the key that stood there before is retired."""
    keys, controller = OrderKeys(tmp_path), Controller("k")
    controller.publish(tmp_path)
    before = proof(keys, controller.sign(BODY))
    Controller("another").publish(tmp_path)
    (tmp_path / "another").replace(tmp_path / "k")
    assert (Proof.VERIFIED, Proof.BAD_SIGNATURE) == (before, proof(keys, controller.sign(BODY)))


def test_of_three_keys_the_first_two_by_name_count_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-P08: which came last decides nothing: whoever adds a key must not push out those in use."""
    controllers = [Controller(name) for name in ("c", "a", "b")]
    for controller in controllers:
        controller.publish(tmp_path)
    keys = OrderKeys(tmp_path)
    seen = {controller.key_id: proof(keys, controller.sign(BODY)) for controller in controllers * 3}
    assert {"a": Proof.VERIFIED, "b": Proof.VERIFIED, "c": Proof.UNKNOWN_KEY} == seen
    assert ["3 keys; a, b are used, c not"] == [
        text.partition("holds ")[2] for text in caplog.messages if "holds" in text
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"no base64!", base64.b64encode(b"x" * 31), base64.b64encode(b"x" * 33), b"A" * 5000, b"\xff" * 44],
)
def test_a_file_that_is_no_key_is_left_out_and_the_other_key_counts(tmp_path: Path, content: bytes) -> None:
    """Fault 93: never fail open, and one broken file does not stop the pod."""
    (tmp_path / "0broken").write_bytes(content)
    Controller("a").publish(tmp_path)
    keys = OrderKeys(tmp_path)
    broken = Signed("0broken", Controller("a").sign(BODY).signature, BODY)
    assert (Proof.UNKNOWN_KEY, Proof.VERIFIED) == (proof(keys, broken), proof(keys, Controller("a").sign(BODY)))


def test_a_key_that_anybody_can_sign_for_verifies_nothing(tmp_path: Path) -> None:
    """Fault 93: a public key of low order, as all zeros, fits signatures made without a private key."""
    (tmp_path / "zero").write_bytes(base64.b64encode(bytes(32)))
    forged = base64.b64encode(bytes([1]) + bytes(63)).decode()
    assert Proof.BAD_SIGNATURE == proof(OrderKeys(tmp_path), Signed("zero", forged, BODY))


def test_a_line_break_after_the_key_does_no_harm(tmp_path: Path) -> None:
    """R-P08: people write files with editors."""
    Controller("a").publish(tmp_path)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + b"\n")
    assert Proof.VERIFIED == proof(OrderKeys(tmp_path), Controller("a").sign(BODY))


@pytest.mark.parametrize("key_id", ["", "..", ".", "../keys/a", "..data", "a\0", "A", "a/", "é"])
def test_a_key_id_is_a_name_and_never_a_path(tmp_path: Path, key_id: str) -> None:
    """Fault 93: whatever the header holds."""
    Controller("a").publish(tmp_path)
    request = Controller("a").sign(BODY)._replace(key_id=key_id)
    assert Proof.UNKNOWN_KEY == proof(OrderKeys(tmp_path), request)


def test_a_signature_counts_for_one_domain(tmp_path: Path) -> None:
    """Fault 93: a report request replayed as an order, and the other way round."""
    Controller().publish(tmp_path)
    keys = OrderKeys(tmp_path)
    as_report = Controller().sign(BODY, REPORT_DOMAIN)
    assert Proof.BAD_SIGNATURE == proof(keys, as_report)
    assert Proof.VERIFIED == keys.verify(as_report.key_id, REPORT_DOMAIN, BODY, as_report.signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SIGNATURE[:-1],
        SIGNATURE[:40],
        SIGNATURE + "A",
        SIGNATURE[:-3] + chr(ord(SIGNATURE[-3]) + 1) + "==",
        SIGNATURE + "\n",
        SIGNATURE.rstrip("="),
        base64.b64encode(base64.b64decode(SIGNATURE)[:63]).decode(),
        base64.b64encode(base64.b64decode(SIGNATURE) + b"\0").decode(),
        "é" * 88,
    ],
)
def test_a_cut_or_stretched_signature_is_none(tmp_path: Path, text: str) -> None:
    """Fault 93: 64 bytes, written as an encoder writes them."""
    Controller().publish(tmp_path)
    changed = Controller().sign(BODY)._replace(signature=text)
    assert Proof.BAD_SIGNATURE == proof(OrderKeys(tmp_path), changed)


def test_a_malleated_signature_is_refused(tmp_path: Path) -> None:
    """Fault 93: S + L is another signature that a careless verifier takes for the same message."""
    group_order = 2**252 + 27742317777372353535851937790883648493
    Controller().publish(tmp_path)
    request = Controller().sign(BODY)
    signature = base64.b64decode(request.signature)
    raised = int.from_bytes(signature[32:], "little") + group_order
    malleated = base64.b64encode(signature[:32] + raised.to_bytes(32, "little")).decode()
    assert Proof.BAD_SIGNATURE == proof(OrderKeys(tmp_path), request._replace(signature=malleated))
