"""The template as it is written and as CloudFormation will see it."""

from __future__ import annotations

from typing import Any

import pytest

from infra.template_checks import load, translate

Json = dict[str, Any]


@pytest.fixture(scope="session")
def template() -> Json:
    """template.yaml as it is written, short forms as long ones."""
    return load()


@pytest.fixture(scope="session")
def translated(template: Json) -> Json:
    """template.yaml as SAM translates it."""
    return translate(template)
