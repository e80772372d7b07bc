"""The description is the one that is checked in, is valid, and says what the app does."""

from __future__ import annotations

import json
from pathlib import Path

from openapi_spec_validator import validate

import app as frontend
from dualtone import __version__
from infra.local.cloud import LocalCloud
from tests.adapters.api.gateway import DESCRIPTION, call

CHECKED_IN = Path(__file__).parents[3] / "frontend_api" / "openapi.json"


def test_what_is_served_is_what_is_checked_in(cloud: LocalCloud) -> None:
    """`make definition` writes it anew."""
    assert call("GET", "/v1/openapi.json").json == json.loads(CHECKED_IN.read_text(encoding="utf-8"))


def test_it_is_valid_openapi_3_1() -> None:
    """As judged by openapi-spec-validator."""
    validate(DESCRIPTION)
    assert DESCRIPTION["openapi"] == "3.1.0"


def test_it_describes_every_route_and_no_other() -> None:
    """With a name, a summary, a verb, and every answer that the edge gives."""
    described = {(method.upper(), path) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in frontend.app.operations}
    for methods in DESCRIPTION["paths"].values():
        for operation in methods.values():
            assert {"operationId", "summary", "x-verb"} <= operation.keys()
            assert "500" in operation["responses"]


def test_every_shape_is_used_and_every_field_typed() -> None:
    """No component is left over, none is missing."""
    text = json.dumps(DESCRIPTION)
    for name in DESCRIPTION["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text


def test_the_version_is_the_products() -> None:
    """One version for layer, agent and API."""
    pyproject = (CHECKED_IN.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{__version__}"\n' in pyproject
