"""A cloud for each test, started cold, and a clock that tests set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from dualtone.adapters import clock
from infra.local.moto_fixes import mended
from tests.adapters.finalize.cloud import CREDENTIALS, Cloud, FakeClock, made_cloud, start_cold


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


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The functions' clock, which stands still until it is told otherwise; it begins where the sample calls do."""
    fake = FakeClock()
    monkeypatch.setattr(clock, "now_ms", fake)
    return fake
