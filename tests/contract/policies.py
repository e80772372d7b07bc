"""Reads policy documents in which an action, a principal or a statement may stand alone or in a list."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def listed(value: Any) -> list[Any]:
    """A value as a list: itself if it is one."""
    return value if isinstance(value, list) else [value]


def resources(template: Json, kind: str) -> dict[str, Json]:
    """Properties of the resources of one type, by logical id."""
    return {name: body.get("Properties", {}) for name, body in template["Resources"].items() if body["Type"] == kind}


def statements(policy: Json, effect: str) -> list[Json]:
    """The statements of a policy that have this effect."""
    return [statement for statement in listed(policy["Statement"]) if statement["Effect"] == effect]


def actions(statement: Json) -> list[str]:
    """The actions of a statement."""
    return [str(action) for action in listed(statement["Action"])]


def principals(statement: Json) -> set[str]:
    """The principals of a statement, each as text that is equal where the principal is."""
    principal = statement["Principal"]
    values = [principal] if isinstance(principal, str) else [v for group in principal.values() for v in listed(group)]
    return {value if isinstance(value, str) else json.dumps(value, sort_keys=True) for value in values}


def matches(statement: Json, action: str) -> bool:
    """Whether a statement's actions, wildcards included, cover this one."""
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in actions(statement))


def denied(policy: Json, action: str) -> Iterator[Json]:
    """The statements that deny this action to everyone, whatever their conditions."""
    return (one for one in statements(policy, "Deny") if matches(one, action) and principals(one) == {"*"})
