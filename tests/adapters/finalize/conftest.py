"""A cloud for each test, started cold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from infra.local.moto_fixes import mended
from tests.adapters.finalize.cloud import CREDENTIALS, Cloud, made_cloud, start_cold


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A fresh region with one tenant and one enrolled agent."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws(), mended():
        made = made_cloud()
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        start_cold()
        yield made
        start_cold()
