"""A MemoryPolicy from a file: the controller's place when there is no cluster (R-S12).

Covers: reading the file, and noticing a change. Does not cover YAML (`strict_yaml`), what the policy means
(`membudget_contract.compile`) nor keeping the last good one (`plan_keeper`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy import MemoryPolicy, parse_policy

MAX_BYTES: Final = 256 * 1024


class PolicyFile:
    """One file; `changed` compares what the kernel says of it, so that an editor's rename is noticed too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """True when the file differs from the one last loaded; a missing file is a change once."""
        return self._stamp() != self._seen

    def load(self) -> MemoryPolicy:
        """The policy.

        Raises:
            PolicyInvalid: the file is missing, no YAML, or no policy; names the field.
        """
        self._seen = self._stamp()
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise PolicyInvalid("the file", f"{self.path} cannot be read: {error.strerror}") from None
        if len(content) > MAX_BYTES:
            raise PolicyInvalid("the file", f"{self.path} has more than {MAX_BYTES} bytes")
        return parse_policy(_parsed(content))

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0, 0)
        # Every write changes ctime, also one by a tool that puts the old mtime back.
        return (status.st_ctime_ns, status.st_size, status.st_ino)


def _parsed(content: bytes) -> Mapping[str, object]:
    from membudget_sidecar.plans.strict_yaml import parse_yaml  # PyYAML is 1 MB resident, and orders are no YAML

    document = parse_yaml(content)
    if not isinstance(document, dict):
        raise PolicyInvalid("the file", "does not hold one MemoryPolicy")
    return cast("dict[str, object]", document)
