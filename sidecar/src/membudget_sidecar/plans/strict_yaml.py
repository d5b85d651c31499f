"""YAML as people mean it: no key twice, no tags, no aliases.

Covers: one document of YAML or JSON to plain values. Does not cover reading files (`policy_file`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import yaml

from membudget_contract.errors import PolicyInvalid


def parse_yaml(content: bytes) -> object:
    """The one document.

    Raises:
        PolicyInvalid: it is none, or not meant so.
    """
    try:
        document: object = yaml.load(content, Loader=_StrictLoader)  # noqa: S506  a SafeLoader, made stricter
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, OverflowError) as error:
        # PyYAML lets errors of its constructors out: a date of month 99, a list as a key, 200 sexagesimal places.
        raise PolicyInvalid("the file", f"is no single YAML document: {' '.join(str(error).split())}") from None
    return document


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
