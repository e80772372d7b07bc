"""Figures for Prometheus: what a scrape gets, what the dashboard and the alerts ask for, and what no label holds."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from sbc_agent.media.messages import Alarm
from sbc_agent.protocol.counters import WireCounters
from sbc_agent.runtime import metrics
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.metrics_endpoint import MetricsEndpoint
from tests.agent.runtime.spooled import Lines
from tests.agent.runtime.test_status import REPORT

DOCS = Path(__file__).parents[3] / "sbc_agent" / "docs"
_NAME = re.compile(r"dualtone_agent_\w+")


def _report() -> dict[str, Any]:
    wire = WireCounters(requests=5)
    wire.refuse("no_room")
    media = dict.fromkeys(
        (
            "streams", "received", "stored", "duplicates", "reordered", "late", "foreign_source", "events_suppressed",
            "malformed", "dropped", "overflowed", "left_ring", "records", "bytes_sealed", "ticks", "tick_ms_max",
            "tick_ms_lately", "cpu_ms", "clock_steps",
        ),
        3,
    )  # fmt: skip
    return REPORT | {
        "media": media,
        "sip": wire.to_json(),
        "pids": {"sip": os.getpid()},
        "clock_offset_ms": -40,
        "clock_uncertainty_ms": 12,
        "desk_watchers": 2,
        "revoked": False,
        "not_recorded": {"private": 4},
        "canary": {"every_s": 3_600, "tried": 3, "failed": 1, "age_s": 120},
        "media_alarms": {"no_media": 2},
        "uplink": REPORT["uplink"] | {"last_success_s": 1_800_000_000},
        "events": {
            "waiting": 7,
            "leases_expired": 1,
            "answered": [
                {"action": "pause", "cause": "payment", "outcome": "acknowledged", "origin": "cloud", "count": 9}
            ],
        },
        "processes": metrics.processes({"sip": os.getpid(), "media": 2**22 + 1}),
    }


def _samples(report: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = metrics.exposition(report, "")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_every_figure_is_there_with_help_and_type() -> None:
    """Prometheus's own parser reads them; counters end in _total and gauges do not."""
    body, content_type = metrics.exposition(_report(), "")
    assert content_type.startswith("text/plain; version=")
    text = body.decode()
    for figure in metrics.FIGURES:
        name = metrics.PREFIX + figure.name
        assert (figure.kind == "counter") == name.endswith("_total")
        assert f"# HELP {name} {figure.about}\n# TYPE {name} {figure.kind}\n" in text
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), f"{name} has no sample"


def test_figures_are_in_base_units() -> None:
    """Seconds and bytes, whatever the report counts in."""
    found = _samples(_report())
    prefix = metrics.PREFIX
    assert found[prefix + "uptime_seconds", ()] == 90_061
    assert found[prefix + "clock_offset_seconds", ()] == pytest.approx(-0.04)
    assert found[prefix + "tick_seconds_max", ()] == pytest.approx(0.003)
    assert found[prefix + "packets_total", (("outcome", "dropped"),)] == 3
    assert found[prefix + "sip_events_total", (("kind", "requests"),)] == 5
    assert found[prefix + "sip_refused_total", (("reason", "no_room"),)] == 1
    assert found[prefix + "uplink_up", ()] == 0
    assert found[prefix + "calls_not_recorded_total", (("rule", "private"),)] == 4
    labels = (("action", "pause"), ("cause", "payment"), ("origin", "cloud"), ("outcome", "acknowledged"))
    assert found[prefix + "commands_total", labels] == 9


def test_what_is_not_known_has_no_sample() -> None:
    """While the media process does not answer, and before anything went up: silence, not zero."""
    report = _report() | {"media": {}, "clock_offset_ms": None, "uplink": REPORT["uplink"]}
    names = {name for name, _ in _samples(report)}
    absent = {"packets_received_total", "packets_total", "clock_offset_seconds", "uplink_last_success_seconds"}
    assert names.isdisjoint(metrics.PREFIX + name for name in absent)
    assert metrics.PREFIX + "calls_live" in names


def test_labels_are_of_fixed_vocabularies() -> None:
    """No label's name could hold a call, a number, a person, a desk or a host."""
    labels = {label for figure in metrics.FIGURES for label in figure.labels}
    assert labels == {
        "version", "rule", "outcome", "kind", "reason", "action", "cause", "origin", "event", "process",
    }  # fmt: skip


def test_a_process_has_memory_time_and_files() -> None:
    """This one's, from the kernel; one that is gone is left out."""
    found = metrics.processes({"sip": os.getpid(), "media": 2**22 + 1})
    assert found.keys() == {"sip"}
    assert found["sip"]["resident_bytes"] > 1 << 20
    assert found["sip"]["cpu_s"] > 0
    assert found["sip"]["open_files"] >= 3


def _expressions() -> Iterator[str]:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")
    for group in yaml.safe_load((DOCS / "prometheus-alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_exist() -> None:
    """Every name in every expression; and every label value that they choose by."""
    names = {metrics.PREFIX + figure.name for figure in metrics.FIGURES}
    asked = [set(_NAME.findall(expression)) for expression in _expressions()]
    assert set().union(*asked) <= names
    assert len(set().union(*asked)) > 20
    kinds = set(re.findall(r"``(\w+)`` \(", Alarm.__doc__ or ""))  # the vocabulary is written there
    (chosen, *_) = re.findall(r'kind=~"([\w|]+)"', "".join(_expressions()))
    assert set(chosen.split("|")) <= kinds


def test_the_dashboards_panels_do_not_overlap() -> None:
    """Each has its own place on a grid 24 wide, and an id of its own."""
    panels = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_a_scrape_over_http() -> None:
    """GET /metrics, also as OpenMetrics where it is asked for; nothing else is served."""

    async def report() -> dict[str, Any]:
        return _report()

    async def scenario() -> None:
        endpoint = MetricsEndpoint(Endpoint("127.0.0.1", 0), report, Lines().log)
        url = await endpoint.start()
        assert url is not None
        assert url.endswith("/metrics")
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                assert (response.status, response.content_type) == (200, "text/plain")
                assert "dualtone_agent_process_open_fds" in await response.text()
            async with session.get(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
                assert response.content_type == "application/openmetrics-text"
                assert list(openmetrics.text_string_to_metric_families(await response.text()))  # type: ignore[no-untyped-call]
            async with session.get(url.replace("/metrics", "/v1/calls")) as response:
                assert response.status == 404
            taken = MetricsEndpoint(Endpoint("127.0.0.1", int(url.split(":")[2].split("/")[0])), report, Lines().log)
            assert await taken.start() is None
            await taken.close()
        await endpoint.close()

    asyncio.run(scenario())
