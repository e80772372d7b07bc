"""The template's resources in mended moto, and recordings in them; one cloud for all tests of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.attribute_values import from_item
from infra.local.cloud import LocalCloud
from tests.adapters.api import recordings
from tests.adapters.api.recordings import Made

DAY_MS = 86_400_000


class AuditTrail:
    """Reads the audit outbox from where it stood, and keeps it short: what was read is removed."""

    def __init__(self) -> None:
        self.new()

    def new(self) -> list[dict[str, Any]]:
        """Events since the last look, the oldest first."""
        table, dynamodb = wiring.settings().audit_table, wiring.dynamodb()
        pages = dynamodb.get_paginator("scan").paginate(TableName=table)
        items = [item for page in pages for item in page["Items"]]
        for item in items:
            dynamodb.delete_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})
        return sorted(map(from_item, items), key=lambda event: event["sk"])


@pytest.fixture(scope="package")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(driven=False) as running:
        yield running


@pytest.fixture(scope="package")
def officer(cloud: LocalCloud) -> str:
    """Access token of Acme's officer."""
    return cloud.tenants["acme"].tokens["officer"]


@pytest.fixture(scope="package")
def administrator(cloud: LocalCloud) -> str:
    """Access token of Acme's administrator."""
    return cloud.tenants["acme"].tokens["administrator"]


@pytest.fixture(scope="package")
def stranger(cloud: LocalCloud) -> str:
    """Access token of another tenant's officer."""
    return cloud.tenants["globex"].tokens["officer"]


@pytest.fixture(scope="package")
def recording(cloud: LocalCloud) -> Made:
    """A recording of Acme's, an hour old."""
    return recordings.make("acme", clock.now_ms() - 3_600_000, seconds=5)


@pytest.fixture
def trail(cloud: LocalCloud) -> AuditTrail:
    return AuditTrail()
