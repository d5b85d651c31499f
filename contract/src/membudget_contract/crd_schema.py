"""From msgspec types to the structural schema of Kubernetes.

Covers: properties, bounds, enums, patterns worded for people, and descriptions that end in range, default and
example. What a type cannot say (rules across fields, list types, defaults) comes in as `additions` by path. A type
that has no place in a policy, as a float, is an error here. Does not know which types (`crd`) nor which rules
(`crd_rules`).

A path is as in `thresholds.soft.percent`, with `[]` for the items of a list: `collections[].name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import inspect

from membudget_contract.quantities import QUANTITY_PATTERN, Amount

Schema = dict[str, Any]

_LAST: Final = ("x-kubernetes-validations", "required", "properties", "additionalProperties", "items")
"""Keywords that stand after the short ones, so that a reader of the file meets what holds for a field first."""
_PERCENT_PATTERN: Final = "([1-9][0-9]?|100)%"
_AMOUNT: Final[Schema] = {
    "type": "string",
    "maxLength": 40,
    "x-kubernetes-validations": [
        {
            # The API server caps a quantity at 2^63 - 1 instead of refusing it.
            "rule": f"self.matches(r'^{_PERCENT_PATTERN}$') || (self.matches(r'^({QUANTITY_PATTERN})$') "
            "&& isQuantity(self) && quantity(self).isLessThan(quantity('8Ei')))",
            "message": "must be bytes like 150Mi, 1.5Gi or 150M, or a percent from 1% to 100%",
        }
    ],
}


def structural_schema(
    part: type[msgspec.Struct], *, additions: Mapping[str, Schema], default_texts: Mapping[str, str]
) -> Schema:
    """The schema of a struct and of everything in it.

    Args:
        part: the type.
        additions: by path, what to set besides; lists of rules are appended.
        default_texts: by path, what holds where the field is left out, for the description.

    Raises:
        TypeError: a field's type has no place in a structural schema.
    """
    return _Translation(additions, default_texts).of(inspect.type_info(part), "")


class _Translation:
    """One walk through the types."""

    def __init__(self, additions: Mapping[str, Schema], default_texts: Mapping[str, str]) -> None:
        self._additions = additions
        self._default_texts = default_texts

    def of(self, annotated: inspect.Type, path: str) -> Schema:
        """The schema of one type, with its description in front."""
        info, meta = _bare(annotated)
        schema = self._structure(info, path)
        rules = [*schema.pop("x-kubernetes-validations", []), *_pattern_rules(info, meta)]
        added = dict(self._additions.get(path, {}))
        rules += added.pop("x-kubernetes-validations", [])
        described = {"description": self._description(info, meta, path)} if "description" in meta else {}
        whole = {**described, **schema, **added, **({"x-kubernetes-validations": rules} if rules else {})}
        return dict(sorted(whole.items(), key=lambda item: _LAST.index(item[0]) if item[0] in _LAST else -1))

    def _structure(self, info: inspect.Type, path: str) -> Schema:
        match info:
            case inspect.StructType():
                return self._object(info, path)
            case inspect.DictType():
                values = self.of(info.value_type, f"{path}{{}}")
                bound = _given(maxProperties=info.max_length)
                return {"type": "object", **bound, "additionalProperties": values}
            case inspect.VarTupleType():
                return {
                    "type": "array",
                    **_given(maxItems=info.max_length),
                    "items": self.of(info.item_type, f"{path}[]"),
                }
            case inspect.TupleType():
                return self._fixed_list(info, path)
            case _:
                return _scalar(info, path)

    def _object(self, info: inspect.StructType, path: str) -> Schema:
        prefix = f"{path}." if path else ""
        properties = {field.encode_name: self.of(field.type, prefix + field.encode_name) for field in info.fields}
        for field in info.fields:
            if isinstance(field.default, str | int):
                properties[field.encode_name].setdefault("default", msgspec.to_builtins(field.default))
        required = [field.encode_name for field in info.fields if field.required]
        return {"type": "object", **({"required": required} if required else {}), "properties": properties}

    def _fixed_list(self, info: inspect.TupleType, path: str) -> Schema:
        items = [self.of(item, f"{path}[]") for item in info.item_types]
        if any(item != items[0] for item in items):
            raise TypeError(f"{path}: items of a list have one schema")
        return {"type": "array", "minItems": len(items), "maxItems": len(items), "items": items[0]}

    def _description(self, info: inspect.Type, meta: Schema, path: str) -> str:
        """What it does, then its range, its default and an example: what `kubectl explain` shows."""
        parts = [meta["description"]]
        if isinstance(info, inspect.IntType) and info.ge is not None and info.le is not None:
            parts.append(f"From {info.ge} to {info.le}.")
        if path in self._default_texts:
            parts.append(f"Default: {self._default_texts[path]}.")
        if examples := meta.get("examples"):
            parts.append(f"Example: {_shown_examples(examples)}.")
        return " ".join(parts)


def _bare(annotated: inspect.Type) -> tuple[inspect.Type, Schema]:
    """The type without `| None`, and its metadata, of which the outermost word holds."""
    if isinstance(annotated, inspect.Metadata):
        info, inner = _bare(annotated.type)
        for words in cast("tuple[Schema | None, ...]", (annotated.extra_json_schema, annotated.extra)):
            inner |= words or {}
        return info, inner
    if isinstance(annotated, inspect.UnionType):
        (present,) = (option for option in annotated.types if not isinstance(option, inspect.NoneType))
        return _bare(present)
    return annotated, {}


def _scalar(info: inspect.Type, path: str) -> Schema:
    match info:
        case inspect.EnumType():
            return {"type": "string", "enum": [str(member.value) for member in info.cls]}
        case inspect.IntType():
            return {"type": "integer", **_given(minimum=info.ge, maximum=info.le)}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.StrType():
            return {"type": "string", **_given(minLength=info.min_length, maxLength=info.max_length)}
        case inspect.DateTimeType():
            return {"type": "string", "format": "date-time"}
        case inspect.CustomType() if info.cls is Amount:
            return dict(_AMOUNT)
        case _:
            raise TypeError(f"{path}: {info} has no place in a structural schema")


def _pattern_rules(info: inspect.Type, meta: Schema) -> Iterable[Schema]:
    """A pattern becomes a rule, whose refusal is a sentence; a `pattern` of the schema would show the expression."""
    if isinstance(info, inspect.StrType) and info.pattern is not None:
        yield {"rule": f"self.matches(r'{info.pattern}')", "message": f"must be {meta['allowed']}"}
    if isinstance(info, inspect.DictType):
        key, words = _bare(info.key_type)
        pattern = cast("inspect.StrType", key).pattern
        fits = f"key.size() <= {cast('inspect.StrType', key).max_length} && key.matches(r'{pattern}')"
        yield {"rule": f"self.all(key, {fits})", "message": f"each name must be {words['allowed']}"}


def _given(**bounds: int | None) -> Schema:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _shown_examples(examples: list[object]) -> str:
    """As they would stand in YAML, which reads JSON."""
    texts = [example if isinstance(example, str) else msgspec.json.encode(example).decode() for example in examples]
    return " or ".join(texts)
