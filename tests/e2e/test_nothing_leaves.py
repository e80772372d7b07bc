"""A packet capture of the agent's uplink: a call that is not to be recorded leaves the site in no form."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.local.client import ApiClient
from tests.e2e.capture import Capture, may_capture
from tests.e2e.conftest import BIN, Local, start_local, stop_local
from tests.e2e.talking import Talking

pytestmark = pytest.mark.skipif(not may_capture(), reason="needs the right to open packet sockets (CAP_NET_RAW)")

NEVER, CONSENT, RECORDED = (f"+44207946{number:04d}" for number in (222, 333, 555))
CALLER = "+442079460101"
POLICY = {
    "rules": [
        {"id": "board", "match": {"lines": [NEVER]}, "record": "never", "basis": "legitimate_interests"},
        {"id": "hotline", "match": {"lines": [CONSENT]}, "record": "consent", "basis": "consent"},
    ]
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud whose agent has a policy."""
    running = start_local(tmp_path_factory.mktemp("capture"), "--hold-back", "1")
    administrator = ApiClient(running.line["api"], running.line["tenants"][running.tenant]["administrator"])
    administrator.put("/v1/recording-policy", POLICY, if_match='"0"')
    until(lambda: any(_site(running).rglob("recording-policy.json")), "the agent did not fetch the policy")
    yield running
    assert stop_local(running) == 0


def _site(local: Local) -> Path:
    return Path(local.line["spool_dir"]).parent


def until(holds: Callable[[], bool], complaint: str, within_s: float = 30) -> None:
    """Waits for a condition, not longer than a bound."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)


def counted(local: Local, rule: str) -> int:
    """How many calls of a rule the agent left unrecorded."""
    command = [str(BIN / "dualtone-agent"), "status", "--json", "--config", str(_site(local) / "agent.toml")]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)
    return int(report["not_recorded"].get(rule, 0))


def captured(local: Local, callee: str, seconds: float, ended: Callable[[str], object]) -> tuple[Capture, str, str]:
    """Captures a call from before it begins until it has come to its end, and the agent has polled once more.

    Returns:
        The capture, the call's UCID and its Call-ID.
    """
    ports = [urlsplit(local.line[name]).port or 80 for name in ("api", "aws_endpoint")]
    with Capture(ports) as capture, Talking(local, seconds, callee=callee, wait=False) as talking:
        call_id: str = talking.ended()["sip_call_id"]
        ended(call_id)
        until(lambda: b"ReceiveMessage" in capture.said, "the capture saw nothing of the agent: it would prove nothing")
    return capture, talking.ucid, call_id


@pytest.mark.parametrize(("rule", "callee"), [("board", NEVER), ("hotline", CONSENT)], ids=["never", "no consent"])
def test_a_call_that_is_not_recorded_leaves_the_site_in_no_form(ruled: Local, rule: str, callee: str) -> None:
    """Beyond polling and its health the agent says nothing: no upload, no report of a call, no number, no name."""
    before = counted(ruled, rule)
    capture, ucid, sip_call_id = captured(
        ruled, callee, 5, lambda _: until(lambda: counted(ruled, rule) == before + 1, "the call was not counted")
    )
    said = capture.said
    assert not [request for request in capture.requests if request.startswith("PUT /")]
    assert {event["type"] for event in capture.events} <= {"health"}
    assert not [event for event in capture.events if event["live"]]
    for secret in (callee, callee[1:], CALLER[1:], ucid, sip_call_id):
        assert secret.encode() not in said


def test_the_same_capture_shows_a_call_that_is_recorded(ruled: Local) -> None:
    """What the test above does not find is there to be found: uploads, and reports that name the call."""
    capture, _ucid, _call_id = captured(ruled, RECORDED, 5, ruled.wait_recorded)
    uploads = [request for request in capture.requests if request.startswith("PUT /")]
    assert any("manifest" in request for request in uploads), uploads
    assert any(".dtp" in request for request in uploads)
    assert "call" in {event["type"] for event in capture.events}
