"""Public keys that orders are verified with, from a mounted folder.

Covers: one file per key (name = key id, content = base64 of 32 bytes) as a ConfigMap is mounted, read again when
the folder changes, and the verification of a signature. Does not say what a verified message may do (`order_gate`)
nor holds a private key: that is the controller's (`membudget_controller.keys`).

A folder that is missing or empty is no error: the pod may start before the keys are published.
"""

from __future__ import annotations

import base64
import binascii
import enum
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nacl.exceptions import CryptoError

if TYPE_CHECKING:
    from nacl.signing import VerifyKey

MOST_KEYS: Final = 2
"""The one in use and the one before or after it, while keys rotate."""
MAX_FILE_BYTES: Final = 1024
"""More than base64 of 32 bytes needs; a larger file is no key."""

Stamp = tuple[tuple[str, int, int, int], ...]

log = logging.getLogger(__name__)


class Proof(enum.StrEnum):
    """What a signature is worth."""

    VERIFIED = "Verified"
    UNKNOWN_KEY = "UnknownKey"
    """There are keys, but not this one: retired, or not yet mounted."""
    BAD_SIGNATURE = "BadSignature"
    NO_KEYS = "NoKeys"
    """None is mounted yet; nothing can be verified."""


class OrderKeys:
    """Thread-safe. What does not verify is never an error: everything here comes from the network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._keys: dict[str, VerifyKey] = {}

    def verify(self, key_id: str, domain: bytes, body: bytes, signature: str) -> Proof:
        """Whether that key signed `domain + body`.

        Args:
            key_id: the name of the key's file, as the sender gives it; it is looked up, never used as a path.
            domain: what the message is for, so that one kind is never taken for another.
            body: the bytes as they came.
            signature: base64 of the 64 bytes.
        """
        keys = self._current()
        if not keys:
            return Proof.NO_KEYS
        key = keys.get(key_id)
        if key is None:
            return Proof.UNKNOWN_KEY
        try:
            key.verify(domain + body, _signature_bytes(signature))
        except (CryptoError, ValueError):  # a length, a text or a signature that is wrong
            return Proof.BAD_SIGNATURE
        return Proof.VERIFIED

    def _current(self) -> dict[str, VerifyKey]:
        """The keys, read again if a file came, went or was replaced since."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp, self._keys = stamp, self._read([name for name, *_ in stamp])
            return self._keys

    def _look(self) -> Stamp:
        """Name, inode, change time and size of every file; hidden ones are the mount's own (`..data`)."""
        seen: list[tuple[str, int, int, int]] = []
        try:
            for path in self._folder.iterdir():
                if not path.name.startswith(".") and path.is_file():
                    status = path.stat()
                    seen.append((path.name, status.st_ino, status.st_ctime_ns, status.st_size))
        except OSError:  # no folder yet, or one that is being replaced: looked at again with the next message
            return ()
        return tuple(sorted(seen))

    def _read(self, names: list[str]) -> dict[str, VerifyKey]:
        if len(names) > MOST_KEYS:
            kept, ignored = ", ".join(names[:MOST_KEYS]), ", ".join(names[MOST_KEYS:])
            log.warning("%s holds %d keys; %s are used, %s not", self._folder, len(names), kept, ignored)
        read = {name: self._read_key(name) for name in names[:MOST_KEYS]}
        keys = {name: key for name, key in read.items() if key is not None}
        log.info("keys for orders: %s", ", ".join(keys) or "none yet")
        return keys

    def _read_key(self, name: str) -> VerifyKey | None:
        from nacl.signing import VerifyKey  # 1 MB resident, and without orders there is no key

        try:
            with (self._folder / name).open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
            return VerifyKey(base64.b64decode(text.strip(), validate=True))
        except (OSError, binascii.Error, ValueError, CryptoError) as error:
            log.warning("%s is not base64 of the 32 bytes of a key: %s", self._folder / name, error)
            return None


def _signature_bytes(text: str) -> bytes:
    """Only as an encoder writes it: its last letter has spare bits, and one signature would have many texts."""
    signature = base64.b64decode(text, validate=True)
    if base64.b64encode(signature).decode() != text:
        raise ValueError("the signature is not base64 as an encoder writes it")
    return signature
