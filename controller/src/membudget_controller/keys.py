"""The key that signs orders, and the epoch that tells this controller from older ones.

Covers: making the pair at the first start, raising the epoch at each start by compare-and-swap, the two steps of a
rotation in the Secret, signing. Does not publish the public keys (`key_publication`), decide when a rotation goes on
(`key_rotation`) nor number orders (`orders`). The Secret is the only place where private keys are; nothing here shows
one in a repr, a log or an error.

Invariant: of two controllers that start at the same time each gets an epoch of its own, before its first push.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from typing import Final

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from membudget_controller.cluster import Cluster, Stored
from membudget_controller.errors import ApiConflict, ApiNotFound, KeysUnusable
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.settings import KEY_SECRET

PRIVATE_FIELD: Final = "privateKey"
KEY_ID_FIELD: Final = "keyId"
EPOCH_FIELD: Final = "epoch"
ROTATE_FIELD: Final = "rotate"
"""Written by a person: any text that is not the one in `rotated` asks for a new pair."""
ROTATED_FIELD: Final = "rotated"
NEXT_PRIVATE_FIELD: Final = "nextPrivateKey"
"""Signs nothing but requests for reports, until every pod knows it."""
RETIRED_FIELD: Final = "retiredKeyId"
_ATTEMPTS: Final = 10
_KEY_ID_LENGTH: Final = 16


class OrderKey:
    """Signs; its repr names the key and does not show it."""

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        public = bytes(signing_key.verify_key)
        self.key_id = hashlib.sha256(public).hexdigest()[:_KEY_ID_LENGTH]
        self.public_text = base64.b64encode(public).decode()

    def __repr__(self) -> str:
        return f"OrderKey({self.key_id})"

    def sign(self, message: bytes) -> str:
        """Base64 of the signature."""
        return base64.b64encode(self._signing_key.sign(message).signature).decode()


@dataclass(frozen=True, slots=True)
class Authority:
    """What makes orders of this process count: a key that pods know, and an epoch above all earlier ones."""

    key: OrderKey
    epoch: int
    next_key: OrderKey | None = None
    """While a rotation is under way."""
    retired_id: str = ""
    """Of the key before this one: pods are not to believe it any more."""

    @property
    def public_keys(self) -> dict[str, str]:
        """What pods should know, at most two: key ids and base64."""
        keys = [self.key] if self.next_key is None else [self.key, self.next_key]
        return {key.key_id: key.public_text for key in keys}


def take_authority(cluster: Cluster, namespace: str, wall_seconds: float) -> Authority:
    """The key and a new epoch; both are in the Secret when this returns.

    Raises:
        KeysUnusable: the Secret holds something else, or others write it all the time.
        ApiFailed: the API server could not be asked.
    """
    for _ in range(_ATTEMPTS):
        stored = _read(cluster, namespace)
        signing_key = _signing_key(stored)
        epoch = max(_epoch(stored) + 1, int(wall_seconds))
        key = OrderKey(signing_key)
        private = base64.b64encode(bytes(signing_key)).decode()
        wanted = {PRIVATE_FIELD: private, KEY_ID_FIELD: key.key_id, EPOCH_FIELD: str(epoch)}
        passed(Failpoint.BEFORE_EPOCH_SWAP)
        try:
            if stored is None:
                cluster.create_secret(namespace, KEY_SECRET, wanted)
            else:
                cluster.patch_secret(namespace, KEY_SECRET, wanted, stored.resource_version)
        except (ApiConflict, ApiNotFound):
            continue  # somebody was first: what they wrote counts
        passed(Failpoint.AFTER_EPOCH_SWAP)
        return _authority(stored, key, epoch)
    raise KeysUnusable(f"Secret {namespace}/{KEY_SECRET} changed {_ATTEMPTS} times while an epoch was taken")


def begin_rotation(cluster: Cluster, namespace: str, authority: Authority) -> Authority:
    """With a next key if a person asks for one in the Secret; else, and where a newer controller is, the same.

    Raises:
        ApiFailed: nothing was begun; ApiConflict where somebody else wrote meanwhile.
    """
    stored = _read(cluster, namespace)
    if stored is None or _epoch(stored) != authority.epoch or authority.next_key is not None:
        return authority
    asked = stored.data.get(ROTATE_FIELD, "")
    if not asked or asked == stored.data.get(ROTATED_FIELD, ""):
        return authority
    made = SigningKey.generate()
    private = base64.b64encode(bytes(made)).decode()
    cluster.patch_secret(namespace, KEY_SECRET, {NEXT_PRIVATE_FIELD: private}, stored.resource_version)
    return replace(authority, next_key=OrderKey(made))


def finish_rotation(cluster: Cluster, namespace: str, authority: Authority) -> Authority:
    """With the next key in the place of the present one, which is retired.

    Raises:
        ApiFailed: it is not finished.
    """
    stored = _read(cluster, namespace)
    if stored is None or _epoch(stored) != authority.epoch or authority.next_key is None:
        return authority
    written = {
        PRIVATE_FIELD: stored.data.get(NEXT_PRIVATE_FIELD, ""),
        KEY_ID_FIELD: authority.next_key.key_id,
        NEXT_PRIVATE_FIELD: "",
        RETIRED_FIELD: authority.key.key_id,
        ROTATED_FIELD: stored.data.get(ROTATE_FIELD, ""),
    }
    cluster.patch_secret(namespace, KEY_SECRET, written, stored.resource_version)
    return Authority(authority.next_key, authority.epoch, retired_id=authority.key.key_id)


def stored_epoch(cluster: Cluster, namespace: str) -> int:
    """The epoch of whoever started last; 0 without a Secret."""
    return _epoch(_read(cluster, namespace))


def _read(cluster: Cluster, namespace: str) -> Stored | None:
    try:
        return cluster.read_secret(namespace, KEY_SECRET)
    except ApiNotFound:
        return None


def _authority(stored: Stored | None, key: OrderKey, epoch: int) -> Authority:
    """A rotation that a controller before this one began goes on."""
    next_key = _kept_key(stored, NEXT_PRIVATE_FIELD)
    retired_id = stored.data.get(RETIRED_FIELD, "") if stored else ""
    return Authority(key, epoch, None if next_key is None else OrderKey(next_key), retired_id)


def _signing_key(stored: Stored | None) -> SigningKey:
    return _kept_key(stored, PRIVATE_FIELD) or SigningKey.generate()


def _kept_key(stored: Stored | None, field: str) -> SigningKey | None:
    """None where the field is empty or missing."""
    text = stored.data.get(field, "") if stored else ""
    if not text:
        return None
    try:
        return SigningKey(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError, CryptoError):
        raise KeysUnusable(
            f"{field} in Secret {KEY_SECRET} is no key of 32 bytes; remove the field for a new key"
        ) from None


def _epoch(stored: Stored | None) -> int:
    text = stored.data.get(EPOCH_FIELD, "") if stored else ""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise KeysUnusable(f"{EPOCH_FIELD} in Secret {KEY_SECRET} is no whole number; remove it to start anew")
    return int(text)
