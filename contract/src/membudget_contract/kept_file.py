"""Messages kept on disk between two lives of a process: the last good plan, the last budgets.

Covers: a checksummed, versioned file, replaced atomically. Does not cover caches and sessions (snapshots) or
spilled values. The only module of the contract that touches files; the path is always an argument.

Format: one line `membudget-kept <version> <type> <sha256 of the body>`, then the body as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from membudget_contract.decoding import decode_json
from membudget_contract.errors import ContractError
from membudget_contract.plan import Message

VERSION: Final = 1
MAX_BYTES: Final = 1 << 20
"""More than any plan needs; a larger file is refused unread."""

Kept = TypeVar("Kept", bound=Message)


class KeptFileInvalid(ContractError):
    """The file is torn, changed, of another version or another type; it is left where it is."""

    reason = "KeptFileInvalid"


def write_kept(path: Path, message: Message) -> None:
    """Replace the file atomically: readers see the old message or the new one, also after power loss.

    One process writes a kept file, one thread at a time: what a killed writer left beside it is written over.

    Raises:
        OSError: the folder is missing, full or read-only; the old file is untouched.
    """
    body = msgspec.json.encode(message, order="deterministic")
    header = f"membudget-kept {VERSION} {type(message).__name__} {hashlib.sha256(body).hexdigest()}\n".encode()
    aside = path.with_name(f".{path.name}.new")
    try:
        with aside.open("wb") as file:
            file.write(header + body)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def read_kept(path: Path, expected: type[Kept]) -> Kept | None:
    """The message, or None where no file is.

    Raises:
        KeptFileInvalid: with what is wrong; the caller goes on without it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeptFileInvalid(f"{path} cannot be read: {error.strerror}") from None
    header, _, body = content.partition(b"\n")
    wanted = f"membudget-kept {VERSION} {expected.__name__} {hashlib.sha256(body).hexdigest()}"
    if len(content) > MAX_BYTES or header != wanted.encode():
        raise KeptFileInvalid(f"{path} is torn, changed, or of another version or type; expected {wanted!r}")
    try:
        return decode_json(body, expected)
    except (msgspec.DecodeError, RecursionError) as error:
        raise KeptFileInvalid(f"{path} does not hold a {expected.__name__}: {error}") from None
