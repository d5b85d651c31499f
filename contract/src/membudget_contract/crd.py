"""The CustomResourceDefinition of MemoryPolicy, built from the types that read one (R-P01).

Covers: names, the columns of `kubectl get`, and the whole definition as plain values. Pure. Does not write YAML:
charts/membudget/render_crd.py does, and a test compares. Neighbours: `policy` and `policy_status` are the types,
`crd_schema` translates them, `crd_rules` adds what types cannot say.
"""

from __future__ import annotations

from typing import Any, Final

from membudget_contract.crd_rules import STATUS_ADDITIONS, default_texts, spec_additions
from membudget_contract.crd_schema import structural_schema
from membudget_contract.policy import API_VERSION, KIND, PolicySpec
from membudget_contract.policy_status import PolicyStatus

GROUP, _, VERSION = API_VERSION.partition("/")
PLURAL: Final = "memorypolicies"
NAME: Final = f"{PLURAL}.{GROUP}"

_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "Mode",
        "type": "string",
        "jsonPath": ".spec.mode",
        "description": "Enforce, or Observe: nothing is done.",
    },
    {"name": "Profile", "type": "string", "jsonPath": ".spec.profile", "description": "The base that is refined."},
    {"name": "Total", "type": "string", "jsonPath": ".spec.budget.total", "description": "Empty: the profile's."},
    {"name": "Matched", "type": "integer", "jsonPath": ".status.matchedPods", "description": "Pods that follow it."},
    {
        "name": "Programmed",
        "type": "integer",
        "jsonPath": ".status.programmedPods",
        "description": "Of these, pods that acknowledged the policy as it is now.",
    },
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "True when every one of them reports its memory under the budget.",
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.status!="True")].reason',
        "priority": 1,
        "description": "Of the first condition that does not hold; empty when all do.",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def custom_resource_definition() -> dict[str, Any]:
    """The definition, in the order in which a person reads it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mempol"],
                "categories": ["membudget"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    spec = structural_schema(PolicySpec, additions=spec_additions(), default_texts=default_texts())
    status = structural_schema(PolicyStatus, additions=STATUS_ADDITIONS, default_texts={})
    return {
        "description": "A memory budget for the retrieval pods of its namespace, and what is done when it is nearly "
        "used up. Every matching pod follows it live, without a restart.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"Always {API_VERSION}.", "type": "string"},
            "kind": {"description": f"Always {KIND}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": {"description": "What is wanted. What is left out is as the profile has it.", **spec},
            "status": {"description": "What became of it; written by the controller.", **status},
        },
    }
