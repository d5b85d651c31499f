"""Writes the custom resource definition that the chart ships: files/memorypolicies.membudget.dev.yaml.

Run it with `make crd` after a change to the policy's types; tests/contract/test_crd.py fails until then. The file is
plain: `kubectl apply -f` takes it as it is. What stands in it is `membudget_contract.crd`'s.
"""  # noqa: INP001

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from membudget_contract.crd import NAME, custom_resource_definition

FILE: Final = Path(__file__).parent / "files" / f"{NAME}.yaml"
HEADER: Final = "# Generated from the types in contract/ by charts/membudget/render_crd.py (make crd). Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes values that stand in several places out in each: the API server and people read no YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Never an alias."""
        return True


def rendered() -> str:
    """The file's text."""
    definition = custom_resource_definition()
    return HEADER + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(rendered())
