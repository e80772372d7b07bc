"""The template as it is written and as CloudFormation will see it."""

from __future__ import annotations

from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from infra.local.template import REGION, TEMPLATE
from infra.local.translate import translate

Json = dict[str, Any]


@pytest.fixture(scope="session")
def template() -> Json:
    """template.yaml as it is written, short forms as long ones."""
    document: Json = yaml_parse(TEMPLATE.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="session")
def translated() -> Json:
    """template.yaml as SAM translates it."""
    return translate(TEMPLATE, {"AWS::Region": REGION})
