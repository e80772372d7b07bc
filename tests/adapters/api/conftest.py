"""The template's resources in mended moto, and recordings in them; one cloud for all tests of the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.attribute_values import from_item
from dualtone.domain.agent_events import CallEvent
from infra.local.cloud import LocalCloud
from tests.adapters.api import recordings
from tests.adapters.api.live_agent import LiveAgent
from tests.adapters.api.recordings import Made
from tests.call_samples import session

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
def agent(cloud: LocalCloud) -> LiveAgent:
    """An agent of Acme's that takes part in what happens."""
    return LiveAgent(cloud, "acme", "London SBC 0")


@pytest.fixture(scope="package")
def recording(cloud: LocalCloud, agent: LiveAgent) -> Made:
    """A recording of Acme's, an hour old, whose call its agent still reports."""
    made = recordings.make("acme", clock.now_ms() - 3_600_000, seconds=5)
    agent.report(agent.call(1, call=made.call_id, matches=[]))
    return made


@pytest.fixture
def names() -> dict[str, str]:
    """What the switch calls a call: another one in each test, since an order for it may wait for a minute."""
    number = time.time_ns()
    return {
        "call_id": f"cs-{number}@pbx.invalid",
        "ucid": f"{number:016X}",
        "extension": f"+44{number % 10**10:010d}",
        "external_id": f"trunk-{number}",
    }


@pytest.fixture
def live(agent: LiveAgent, names: dict[str, str]) -> CallEvent:
    """A call of Acme's that lasts."""
    said = session()
    said["sessions"][0]["sip_session_id"] = names["call_id"]
    said["participants"][0]["aor"] = f"sip:{names['extension']}@pbx.invalid"
    said["extensions"] = {"ucid": f"00FA08{names['ucid']};encoding=hex", "trunk": names["external_id"]}
    event = agent.call(clock.now_ms(), facts=said)
    agent.report(event)
    agent.commands()
    return event


class Turns:
    """Time as the API waits by it: it passes at once, and whoever has a turn acts meanwhile.

    Attributes:
        waited_ms: How much was waited for.
        actors: Who acts in every step.
        acting: Whether somebody does at this moment.
    """

    def __init__(self) -> None:
        self.waited_ms = 0
        self.acting = False
        self.actors: list[Callable[[], None]] = []

    def wait(self, duration_ms: int) -> None:
        """One step."""
        self.waited_ms += duration_ms
        for act in self.actors:
            self.acting = True
            try:
                act()
            finally:
                self.acting = False


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """No test sleeps."""
    turns, began_ms = Turns(), clock.now_ms()
    monkeypatch.setattr(clock.Patience, "now_ms", lambda _self: began_ms + turns.waited_ms)
    monkeypatch.setattr(clock.Patience, "wait_ms", lambda _self, duration_ms: turns.wait(duration_ms))
    return turns


@pytest.fixture
def trail(cloud: LocalCloud) -> AuditTrail:
    return AuditTrail()
