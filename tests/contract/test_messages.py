"""Messages of past releases are still read: `golden_messages/<version>/` holds one frozen file per type.

A new field or type adds to the newest folder with the contract's minor version; a file that was released is never
edited to make this test pass.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import msgspec
import pytest

import membudget_contract
from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message
from membudget_contract.sidecar_api import ActionRequest, ConfigureRequest, StopEnforcement

GOLDEN = Path(__file__).parent / "golden_messages"

TYPES = {
    name: kind
    for found in pkgutil.iter_modules(membudget_contract.__path__)
    for name, kind in inspect.getmembers(
        importlib.import_module(f"{membudget_contract.__name__}.{found.name}"), inspect.isclass
    )
    if issubclass(kind, Message) and kind is not Message
}

STRICT = (ActionRequest, ConfigureRequest, StopEnforcement)
"""What a person types: a misspelt field must not be a silent default."""

FILES = sorted(GOLDEN.glob("*/*.json"))


def test_every_message_type_is_frozen_in_the_version_in_force() -> None:
    """R-P08: a type without a golden message could change unseen."""
    assert {path.stem for path in (GOLDEN / CONTRACT_VERSION).iterdir()} == set(TYPES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frozen_message_is_read_and_written_unchanged(path: Path) -> None:
    """R-P08: no field was renamed, dropped or given another kind."""
    frozen = path.read_bytes()
    message = msgspec.json.decode(frozen, type=TYPES[path.stem])
    assert msgspec.json.decode(msgspec.json.encode(message)) == msgspec.json.decode(frozen)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frozen_message_says_more_than_its_defaults(path: Path) -> None:
    """R-P08: a value equal to the default would not show that the field is read."""
    message = msgspec.json.decode(path.read_bytes(), type=TYPES[path.stem])
    defaults = {
        field.encode_name: field.default_factory() if callable(field.default_factory) else field.default
        for field in msgspec.structs.fields(message)
    }
    said: dict[str, object] = msgspec.to_builtins(message)
    assert {name for name, default in defaults.items() if said[name] == default} <= {"contract"}


@pytest.mark.parametrize("kind", [kind for kind in TYPES.values() if kind not in STRICT])
def test_a_field_of_a_later_release_is_ignored_on_the_wire(kind: type[Message]) -> None:
    """R-P08: an older reader serves a newer writer."""
    frozen = (GOLDEN / CONTRACT_VERSION / f"{kind.__name__}.json").read_bytes()
    newer = msgspec.json.encode(msgspec.json.decode(frozen) | {"addedLater": {"by": ["somebody"]}})
    assert msgspec.json.decode(newer, type=kind) == msgspec.json.decode(frozen, type=kind)


@pytest.mark.parametrize("kind", STRICT)
def test_a_misspelt_field_of_a_request_by_hand_is_refused(kind: type[Message]) -> None:
    """R-P05: `targetByts` would otherwise free nothing, or everything."""
    frozen = (GOLDEN / CONTRACT_VERSION / f"{kind.__name__}.json").read_bytes()
    misspelt = msgspec.json.encode(msgspec.json.decode(frozen) | {"targetByts": 1})
    with pytest.raises(msgspec.ValidationError, match="unknown field `targetByts`"):
        msgspec.json.decode(misspelt, type=kind)


def test_a_configure_request_says_how_long_it_holds() -> None:
    """R-P05: an override without an end would become the plan."""
    with pytest.raises(msgspec.ValidationError, match="missing required field `ttlSeconds`"):
        msgspec.json.decode(b'{"total": "120Mi"}', type=ConfigureRequest)
