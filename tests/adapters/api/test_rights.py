"""Who may call what: a table that a compliance officer could read, tried on every route."""

from __future__ import annotations

import json
from typing import Any

import pytest

import app as frontend
from chalicelib.operation import Access
from dualtone.adapters import api_wiring, clock, wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.domain import ids
from dualtone.domain.ids import TenantId
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call, post_form, post_json
from tests.adapters.api.recordings import Made

# Route -> may an administrator, may an officer. A new route without a row fails the test below.
RIGHTS: dict[tuple[str, str], tuple[bool, bool]] = {
    ("GET", "/v1/recordings"): (True, True),
    ("POST", "/v1/recordings/search"): (False, True),
    ("GET", "/v1/recordings/{recording_id}"): (False, True),
    ("GET", "/v1/recordings/{recording_id}/linked"): (False, True),
    ("GET", "/v1/recordings/{recording_id}/audio"): (False, True),
    ("GET", "/v1/recordings/{recording_id}/evidence"): (False, True),
    ("GET", "/v1/calls"): (True, True),
    ("GET", "/v1/calls/{call_id}"): (True, True),
    ("POST", "/v1/calls/{call_id}/pause"): (False, True),
    ("POST", "/v1/calls/{call_id}/resume"): (False, True),
    ("POST", "/v1/pauses"): (False, True),
    ("POST", "/v1/resumes"): (False, True),
    ("POST", "/v1/calls/{call_id}/decision"): (False, True),
    ("POST", "/v1/decisions"): (False, True),
    ("GET", "/v1/recording-policy"): (True, True),
    ("PUT", "/v1/recording-policy"): (True, False),
    ("POST", "/v1/recording-policy/preview"): (True, True),
    ("GET", "/v1/agents"): (True, False),
    ("POST", "/v1/agents"): (True, False),
    ("POST", "/v1/agents/{agent_id}/revoke"): (True, False),
    ("POST", "/v1/payment-endpoints"): (True, False),
}

# Routes that need no person's token, and why nothing is lost by that.
OPEN = {
    ("GET", "/v1/health"): "says nothing of anyone",
    ("GET", "/v1/openapi.json"): "is checked in",
    ("POST", "/v1/agents/enrol"): "wants a one-time code",
    ("POST", "/v1/agents/key"): "wants an assertion signed by the agent's present key",
    ("POST", "/v1/token"): "wants a signed assertion",
    ("POST", "/v1/webhooks/payments/{endpoint_id}"): "wants a signature over the body",
}


def _somebody() -> str:
    """An agent that was invited, and that nobody needs."""
    agent = f"agt_{ids.ulid(clock.now_ms(), clock.random_bytes(ids.ULID_RANDOM_BYTES))}"
    entry = {"pk": "tenant#acme", "sk": f"agent#{agent}", "tenant": "acme", "agent_id": agent, "name": "Somebody"}
    wiring.dynamodb().put_item(TableName=wiring.settings().directory_table, Item=to_item({**entry, "state": "pending"}))
    return agent


def send(route: tuple[str, str], token: str | None, recording: Made) -> Answer:
    """A request that succeeds for whoever may send it."""
    method, resource = route
    parts: dict[str, Any] = {"token": token}
    if "{recording_id}" in resource:
        parts["path"] = {"recording_id": recording.recording_id}
    if resource == "/v1/calls":
        parts["query"] = {"sip_call_id": recording.sip_call_id}
    if "{agent_id}" in resource:
        parts["path"] = {"agent_id": _somebody()}
    if "{call_id}" in resource:
        parts["path"] = {"call_id": recording.call_id}
    if "{endpoint_id}" in resource:
        parts["path"] = {"endpoint_id": "pay_01JD0000000000000000000000"}
    if resource == "/v1/token":
        return post_form(resource, {"grant_type": "x", "assertion": "y"}, **parts)
    if method == "PUT":
        parts["headers"] = {"If-Match": f'"{version_in_force()}"', "Content-Type": "application/json"}
        return call(method, resource, body=json.dumps({"rules": []}).encode(), **parts)
    if method == "POST":
        return post_json(resource, BODIES.get(resource, {"name": "x"}), **parts)
    return call(method, resource, **parts)


def version_in_force() -> int:
    """Of Acme's recording policy."""
    stored = api_wiring.recording_policies().current(TenantId("acme"))
    return 0 if stored is None else stored.policy.version


BODIES: dict[str, dict[str, Any]] = {
    "/v1/recordings/search": {"number": "+4420"},
    "/v1/calls/{call_id}/pause": {},
    "/v1/calls/{call_id}/resume": {},
    "/v1/pauses": {"call": {"external_id": "nobody's"}},
    "/v1/resumes": {"call": {"external_id": "nobody's"}},
    "/v1/calls/{call_id}/decision": {"decision": "keep", "cause": "on_demand"},
    "/v1/decisions": {"call": {"external_id": "nobody's"}, "decision": "discard", "cause": "consent"},
    "/v1/recording-policy/preview": {"call": {}},
}


def test_every_route_has_its_row() -> None:
    """Either a verb and two columns, or a reason to be open."""
    routes = {(operation.method, operation.path): operation for operation in frontend.app.operations}
    assert routes.keys() == RIGHTS.keys() | OPEN.keys()
    assert {route for route, operation in routes.items() if operation.access is Access.PERSON} == RIGHTS.keys()


def test_no_route_bypasses_the_edge() -> None:
    """Whatever Chalice serves was declared as an operation."""
    served = {(method, path) for path, methods in frontend.app.routes.items() for method in methods}
    assert {route for route in served if route[1] in {path for _, path in RIGHTS} | {path for _, path in OPEN}} == (
        RIGHTS.keys() | OPEN.keys()
    )


@pytest.mark.parametrize("role", ["administrator", "officer"])
@pytest.mark.parametrize("route", RIGHTS, ids=" ".join)
def test_a_role_may_do_what_the_table_says(
    cloud: LocalCloud, recording: Made, trail: AuditTrail, route: tuple[str, str], role: str
) -> None:
    """And nothing else; the answer and the event agree."""
    allowed = RIGHTS[route][role == "officer"]
    answer = send(route, cloud.tenants["acme"].tokens[role], recording)
    assert answer.status in ((200, 201, 202) if allowed else (403,))
    events = trail.new()
    assert {(event["tenant"], event["outcome"]) for event in events} == {("acme", "granted" if allowed else "refused")}


@pytest.mark.parametrize("route", RIGHTS, ids=" ".join)
def test_a_person_without_a_role_may_do_nothing(cloud: LocalCloud, recording: Made, route: tuple[str, str]) -> None:
    """Default deny: a valid token of the right tenant is not enough."""
    pool, client = cloud.stack.ref("UserPool"), cloud.tenants["acme"].client_id
    cognito = cloud.client("cognito-idp")
    if not cognito.list_users(UserPoolId=pool, Filter='username = "nobody"')["Users"]:
        cognito.admin_create_user(UserPoolId=pool, Username="nobody", MessageAction="SUPPRESS")
        cognito.admin_set_user_password(UserPoolId=pool, Username="nobody", Password="aA1!aA1!aA1!aA1!", Permanent=True)
        cognito.admin_add_user_to_group(UserPoolId=pool, Username="nobody", GroupName="tenant:acme")
    token = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=client,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "nobody", "PASSWORD": "aA1!aA1!aA1!aA1!"},
    )["AuthenticationResult"]["AccessToken"]
    assert send(route, token, recording).status == 403


@pytest.mark.parametrize("route", RIGHTS, ids=" ".join)
@pytest.mark.parametrize("token", [None, "", "a.b.c", "not a token"])
def test_without_a_valid_token_nothing_is_said(recording: Made, route: tuple[str, str], token: str | None) -> None:
    """401 with a challenge (REQ: RFC 9110 section 15.5.2), before anything else about the request is looked at."""
    answer = send(route, token, recording)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", OPEN, ids=" ".join)
def test_open_routes_ask_for_no_token(recording: Made, route: tuple[str, str]) -> None:
    """They judge by what is in the body, or answer everyone the same."""
    assert send(route, None, recording).status in (200, 404, 422)
