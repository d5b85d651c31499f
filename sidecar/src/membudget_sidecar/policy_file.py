"""A MemoryPolicy from a file: the controller's place when there is no cluster (R-S12).

Covers: reading YAML or JSON strictly, and noticing a change. Does not cover what the policy means
(`membudget_contract.compile`) nor keeping the last good one (`plan_keeper`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import yaml

from membudget_contract.errors import PolicyInvalid
from membudget_contract.policy import MemoryPolicy, parse_policy

MAX_BYTES: Final = 256 * 1024


class _StrictLoader(yaml.SafeLoader):
    """Refuses what people do not mean: a key twice, tags, and aliases, which make small files large."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node; an alias or a tag is refused."""
        if self.check_event(yaml.AliasEvent):
            raise PolicyInvalid("the file", "holds a YAML alias (*name); write the value out")
        event = cast("yaml.Event", self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        if getattr(event, "tag", None) is not None:
            raise PolicyInvalid("the file", "holds a YAML tag (!name); values need none")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """One mapping; a key that stands twice is refused."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key: Hashable = self.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
            if key in seen:
                raise PolicyInvalid(str(key), f"stands twice, again in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


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
    try:
        document: object = yaml.load(content, Loader=_StrictLoader)  # noqa: S506  a SafeLoader, made stricter
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, OverflowError) as error:
        # PyYAML lets errors of its constructors out: a date of month 99, a list as a key, 200 sexagesimal places.
        raise PolicyInvalid("the file", f"is no single YAML document: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise PolicyInvalid("the file", "does not hold one MemoryPolicy")
    return cast("dict[str, object]", document)
