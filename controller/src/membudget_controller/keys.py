"""The key that signs orders, and the epoch that tells this controller from older ones.

Covers: making the pair at the first start, raising the epoch at each start by compare-and-swap, signing. Does not
publish the public key (`key_publication`) and numbers no orders (`orders`). The Secret is the only place where the
private key is; nothing here shows it in a repr, a log or an error.

Invariant: of two controllers that start at the same time each gets an epoch of its own, before its first push.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from membudget_controller.cluster import Cluster, Stored
from membudget_controller.errors import ApiConflict, ApiNotFound, KeysUnusable
from membudget_controller.settings import KEY_SECRET

PRIVATE_FIELD: Final = "privateKey"
KEY_ID_FIELD: Final = "keyId"
EPOCH_FIELD: Final = "epoch"
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
        try:
            if stored is None:
                cluster.create_secret(namespace, KEY_SECRET, wanted)
            else:
                cluster.patch_secret(namespace, KEY_SECRET, wanted, stored.resource_version)
        except (ApiConflict, ApiNotFound):
            continue  # somebody was first: what they wrote counts
        return Authority(key, epoch)
    raise KeysUnusable(f"Secret {namespace}/{KEY_SECRET} changed {_ATTEMPTS} times while an epoch was taken")


def stored_epoch(cluster: Cluster, namespace: str) -> int:
    """The epoch of whoever started last; 0 without a Secret."""
    return _epoch(_read(cluster, namespace))


def _read(cluster: Cluster, namespace: str) -> Stored | None:
    try:
        return cluster.read_secret(namespace, KEY_SECRET)
    except ApiNotFound:
        return None


def _signing_key(stored: Stored | None) -> SigningKey:
    text = stored.data.get(PRIVATE_FIELD, "") if stored else ""
    if not text:
        return SigningKey.generate()
    try:
        return SigningKey(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError, CryptoError):
        raise KeysUnusable(
            f"{PRIVATE_FIELD} in Secret {KEY_SECRET} is no key of 32 bytes; remove the field for a new key"
        ) from None


def _epoch(stored: Stored | None) -> int:
    text = stored.data.get(EPOCH_FIELD, "") if stored else ""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise KeysUnusable(f"{EPOCH_FIELD} in Secret {KEY_SECRET} is no whole number; remove it to start anew")
    return int(text)
