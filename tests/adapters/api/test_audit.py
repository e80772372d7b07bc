"""Every route leaves its event, with the six fields of PCI DSS 4.0.1 requirement 10.2.2 and nothing personal."""

from __future__ import annotations

import json

import app as frontend
from chalicelib.operation import Access
from dualtone.adapters import clock
from infra.local.cloud import LocalCloud
from tests.adapters.api.agents import ask, assertion, enrol, invite, new_key, rotation
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import call, post_json
from tests.adapters.api.payments import ROUTE as PAYMENTS
from tests.adapters.api.payments import STARTED, PaymentSystem
from tests.adapters.api.recordings import CALLEE, CALLER, Made
from tests.adapters.api.test_rights import RIGHTS, send

OTHERS = {"/v1/agents/enrol": "agent", "/v1/agents/key": "agent", "/v1/token": "agent", PAYMENTS: "endpoint"}


def test_every_route_that_tells_of_someone_leaves_one_event(
    cloud: LocalCloud, recording: Made, trail: AuditTrail
) -> None:
    """Granted: one event each, with all six fields; public documents alone leave none."""
    tokens = cloud.tenants["acme"].tokens
    seen = {}
    for route, (administrator, _officer) in RIGHTS.items():
        before = clock.now_ms()
        send(route, tokens["administrator" if administrator else "officer"], recording)
        seen[route], *more = sorted(trail.new(), key=lambda event: "command" in event["details"])
        # What is given to an agent is on record before it leaves, and once more when its outcome is known.
        assert len(more) == (route[1].endswith(("pause", "resume", "pauses", "resumes", "decision", "decisions")))
        assert before <= seen[route]["when"] <= clock.now_ms()
    key, invitation = new_key(), invite(tokens["administrator"])
    trail.new()
    identity = enrol(invitation["code"], key).json
    (seen["POST", "/v1/agents/enrol"],) = trail.new()
    assert ask(assertion(key, invitation["agent_id"], identity["token_url"])).status == 200
    (seen["POST", "/v1/token"],) = trail.new()
    audience = identity["token_url"].replace("/v1/token", "/v1/agents/key")
    assert post_json("/v1/agents/key", rotation(key, invitation["agent_id"], audience, new_key())).status == 200
    (seen["POST", "/v1/agents/key"],) = trail.new()
    payments = PaymentSystem.created(tokens["administrator"])
    trail.new()
    assert payments.report(STARTED, {"external_id": "nobody's"}).status == 202
    seen["POST", PAYMENTS], _command = sorted(trail.new(), key=lambda event: "command" in event["details"])

    audited = {(one.method, one.path): one for one in frontend.app.operations if one.access is not Access.PUBLIC}
    assert seen.keys() == audited.keys()
    for route, event in seen.items():
        assert event["what"] == audited[route].verb
        assert event["outcome"] == "granted"
        assert event["tenant"] == "acme"
        assert event["origin"] == "192.0.2.7"
        assert event["request_id"] == "c0ffee00-0000-4000-8000-000000000000"
        kind, _, whoever = event["who"].partition(":")
        assert (kind, bool(whoever)) == (OTHERS.get(route[1], "person"), True)
    assert seen["GET", "/v1/recordings/{recording_id}"]["which"] == recording.recording_id
    assert seen["GET", "/v1/calls"]["which"] == recording.call_id
    assert seen["POST", "/v1/agents/enrol"]["which"] == invitation["agent_id"]


def test_public_documents_leave_none(cloud: LocalCloud, trail: AuditTrail) -> None:
    """They are the same for everyone and say nothing of anyone."""
    assert call("GET", "/v1/health").json["status"] == "ok"
    assert call("GET", "/v1/openapi.json").status == 200
    assert trail.new() == []


def test_events_hold_no_personal_data(cloud: LocalCloud, recording: Made, trail: AuditTrail) -> None:
    """No number, no name, no Call-ID, no token, no code, whatever was asked and however it ended."""
    officer = cloud.tenants["acme"].tokens["officer"]
    for route in RIGHTS:
        send(route, officer, recording)
    call("GET", "/v1/calls", query={"sip_call_id": "Alice+442079460123"}, token=officer)
    call("GET", "/v1/recordings/{recording_id}", path={"recording_id": CALLER}, token=officer)
    call("GET", "/v1/recordings", token="Alice+442079460123")
    text = json.dumps(trail.new())
    for secret in (CALLER, CALLER[1:], CALLEE, "Alice", recording.sip_call_id, officer, officer.split(".")[2]):
        assert secret not in text


def test_a_list_says_how_much_was_shown(cloud: LocalCloud, recording: Made, trail: AuditTrail) -> None:
    """The period and the number of rows."""
    call("GET", "/v1/recordings", query={"limit": "1"}, token=cloud.tenants["acme"].tokens["officer"])
    (event,) = trail.new()
    assert event["details"]["rows"] == 1
    assert event["details"]["from_ms"] < event["details"]["to_ms"]
