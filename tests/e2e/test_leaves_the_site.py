"""P3: a call that is not to be recorded leaves the site in no form, shown by a packet capture of all that leaves.

The agent's only ways out are the ports of API and AWS of the local cloud; the capture holds every byte on them, in both
directions, what the cloud says to itself included. A call that is kept is in the same capture: what is looked for would
be found.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import call_match
from infra.local.client import ApiClient
from tests.e2e.conftest import Local, start_local, stop_local
from tests.e2e.talking import Talking
from tests.loopback import Loopback, told

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a raw packet socket needs root")

EXCLUDED = {
    "never": ("+442079460221", "+44207946022*"),
    "consent": ("+442079460331", "+44207946033*"),
    "on_demand": ("+442079460441", "+44207946044*"),
    "live_keep": ("+442079460551", "+44207946055*"),
}
REFUSED = "+442079460332"
KEPT = "+442079460661"
MEDIA_PORTS = (17_000, 17_199)
POLICY = {
    "rules": [
        {
            "id": record.replace("_", "-"),
            "match": {"lines": [pattern]},
            "record": record,
            "basis": "consent" if record == "consent" else "contract",
        }
        for record, (_, pattern) in EXCLUDED.items()
    ]
}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    running = start_local(
        tmp_path, "--hold-back", "1", "--streams", "40", "--media-ports", "{}-{}".format(*MEDIA_PORTS)
    )
    yield running
    assert stop_local(running) == 0


def test_calls_that_are_not_recorded_leave_the_site_in_no_form(local: Local, tmp_path: Path) -> None:
    """No part, no event, no token, no number, no id: of calls never recorded, without consent, refused, unwanted."""
    administrator = ApiClient(local.line["api"], local.line["tenants"][local.tenant]["administrator"])
    administrator.put("/v1/recording-policy", POLICY, if_match='"0"')
    state_dir = next(path.parent for path in tmp_path.rglob("identity.json"))
    _until((state_dir / "recording-policy.json").exists, 20)
    desk = ApiClient(local.line["agent_lan"], local.line["agent_lan_token"])
    trusted = local.line["agent_lan_certificate"]

    def live() -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = desk.request("GET", "/v1/calls", verify=trusted).json()["calls"]
        return calls

    ways_out = {_port(local.line["api"]), _port(local.line["aws_endpoint"])}
    sip = int(local.line["sip_udp"].rpartition(":")[2])
    with Loopback([MEDIA_PORTS, *((port, port) for port in (sip, *ways_out))]) as capture, ExitStack() as calls:
        lines = [*(line for line, _ in EXCLUDED.values()), REFUSED]
        excluded = [Talking(local, 12, callee=line, wait=False) for line in lines]
        for one in excluded:
            calls.enter_context(one)
        _until(lambda: len(live()) == len(excluded), 20)
        numbers = [call["call_id"] for call in live()]
        _until(lambda: len(list(Path(local.line["spool_dir"]).glob("*/part-*"))) >= 2, 20)
        assert not list(Path(local.line["spool_dir"]).glob("*/opening-*")), "nobody can open what waits"
        body = {"call": {"ucid": excluded[-1].ucid}, "decision": "discard", "cause": "consent"}
        refused = desk.request("POST", "/v1/decisions", json=body, verify=trusted).json()
        assert refused["outcome"] == "discarded", refused
        dialogs = [one.ended()["sip_call_id"] for one in excluded]
        with Talking(local, 3, callee=KEPT, wait=False) as talking:
            kept = talking.ended()
        recording = local.wait_recorded(kept["sip_call_id"])
        _until(lambda: _counted(administrator) == {"never": 1, "consent": 2, "on-demand": 1, "live-keep": 1}, 45)
    left = told(b"\n".join(data for flow, data in capture.tcp.items() if ways_out & set(flow)))
    live_key = base64.b64decode(json.loads((state_dir / "identity.json").read_bytes())["live_key"])
    spoken = _payloads(capture, lines)

    def tokens(ucid: str, dialog: str) -> list[str]:
        return [call_match.token(live_key, "ucid", ucid), call_match.token(live_key, "dialog", dialog)]

    assert recording["call_id"].encode() in left, "the capture would have shown it"
    for token in tokens(talking.ucid, kept["sip_call_id"]):
        assert token.encode() in left, "the capture would have shown it"
    for number, one, line, dialog in zip(numbers, excluded, lines, dialogs, strict=True):
        told_of_it = [number, one.ucid, dialog, line, *tokens(one.ucid, dialog)]
        told_of_it.append(call_match.token(live_key, "extension", line))
        assert [text for text in told_of_it if text.encode() in left] == []
    assert len(spoken) > 500
    assert not any(payload in left for payload in spoken)
    assert {flow[1] for flow in capture.udp if flow[1] in ways_out} == set()
    assert {path.parent.name for path in Path(local.line["spool_dir"]).glob("*/*")} <= {recording["call_id"]}


def _payloads(capture: Loopback, lines: list[str]) -> set[bytes]:
    """What was spoken in the calls whose INVITE names one of these lines, as its RTP packets carried it."""
    ports: set[int] = set()
    for flow, datagrams in capture.udp.items():
        for answer in (data for data in datagrams if data.startswith(b"SIP/2.0 200")):
            request = _request(capture, flow, answer)
            if any(line.encode() in request for line in lines):
                media = (text.split()[1] for text in answer.split(b"\r\n") if text.startswith(b"m=audio "))
                ports.update(map(int, media))
    heard = (datagrams for (_, port), datagrams in capture.udp.items() if port in ports)
    return {data[12:] for datagrams in heard for data in datagrams if len(data) > 60}


def _request(capture: Loopback, flow: tuple[int, int], answer: bytes) -> bytes:
    """The INVITE that was answered."""
    (named,) = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"call-id:")]
    requests = capture.udp.get((flow[1], flow[0]), [])
    return next((data for data in requests if data.startswith(b"INVITE") and named in data), b"")


def _counted(administrator: ApiClient) -> dict[str, int]:
    agents = administrator.get("/v1/agents")["agents"]
    return next((dict(one["health"]["not_recorded"]) for one in agents if one["health"] is not None), {})


def _port(url: str) -> int:
    port = urllib.parse.urlsplit(url).port
    assert port is not None
    return port


def _until(holds: Any, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come so in time"
        time.sleep(0.1)
