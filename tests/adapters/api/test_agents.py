"""Agents: invited, enrolled once, and given a quarter of an hour at a time, below their own prefix."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from dualtone.adapters import api_wiring, clock, wiring
from dualtone.adapters.attribute_values import from_item, to_item
from dualtone.domain import agent_assertion, agent_revocation, canonical
from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.identity import AgentKey
from tests.adapters.api import agents
from tests.adapters.api.agents import ask, assertion, enrol, invite, new_key, public_pem, rotation
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call, post_form, post_json


@dataclass(frozen=True, slots=True)
class Enrolled:
    key: ec.EllipticCurvePrivateKey
    agent_id: str
    identity: dict[str, Any]

    def assertion(self, **changes: Any) -> str:
        return assertion(self.key, self.agent_id, self.identity["token_url"], **changes)


@pytest.fixture(scope="module")
def enrolled(administrator: str) -> Enrolled:
    key, invitation = new_key(), invite(administrator)
    answer = enrol(invitation["code"], key, name="sbc-1.lon")
    assert answer.status == 201
    return Enrolled(key, invitation["agent_id"], answer.json)


@pytest.fixture
def assumed() -> Iterator[list[dict[str, Any]]]:
    """Parameters of each AssumeRole, as they go to AWS."""
    calls: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        calls.append(dict(params))

    events = wiring.sts().meta.events
    events.register("provide-client-params.sts.AssumeRole", note)
    yield calls
    events.unregister("provide-client-params.sts.AssumeRole", note)


def signing_key_der() -> bytes:
    return api_wiring.signing_public_key()


def test_a_code_carries_the_fingerprint_of_our_signing_key(administrator: str) -> None:
    """So that the machine can tell us from an impostor; only the code's hash is stored."""
    invitation = invite(administrator)
    prefix, secret, fingerprint = invitation["code"].split("-")
    expected = base64.b32encode(hashlib.sha256(signing_key_der()).digest()).decode()[:16]
    assert (prefix, len(secret), fingerprint) == ("DT1", 26, expected)
    pages = wiring.dynamodb().get_paginator("scan").paginate(TableName=wiring.settings().directory_table)
    stored = repr([page["Items"] for page in pages])
    assert secret not in stored
    assert hashlib.sha256(invitation["code"].encode()).hexdigest() in stored


def test_enrolment_tells_the_agent_all_it_needs(enrolled: Enrolled) -> None:
    """Where, under which prefix, and by which key to believe us from now on."""
    identity, settings = enrolled.identity, wiring.settings()
    assert identity["agent_id"] == enrolled.agent_id
    assert (identity["tenant"], identity["prefix"]) == ("acme", f"acme/{enrolled.agent_id}/")
    assert identity["ingest_bucket"] == settings.ingest_bucket
    assert identity["token_url"] == f"{settings.public_url}/v1/token"
    assert (identity["region"], identity["signing_key_id"]) == ("eu-west-1", settings.signing_key)
    pinned = load_pem_public_key(identity["signing_public_key"].encode())
    assert pinned.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == signing_key_der()
    attributes = wiring.sqs().get_queue_attributes(QueueUrl=identity["command_queue_url"], AttributeNames=["All"])
    assert attributes["Attributes"]["QueueArn"].endswith(f":dualtone-commands-{enrolled.agent_id}")
    agent = wiring.directory().agent(TenantId("acme"), AgentId(enrolled.agent_id))
    assert agent.active_key() == agents.public_pem(enrolled.key).strip()


def test_the_ingest_key_is_signed_for_the_tenant(enrolled: Enrolled) -> None:
    """RSA-4096, named by its ARN, believed by the pinned key alone."""
    payload = Envelope.from_json(enrolled.identity["ingest_key"]).verified(signing_key_der(), "ingest-key")
    named = canonical.decode(payload)
    assert (named["tenant"], named["key_arn"]) == ("acme", wiring.settings().ingest_key)
    key = load_der_public_key(base64.b64decode(named["public_key_der"]))
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 4096


def test_a_code_is_good_once_and_every_refusal_looks_the_same(
    administrator: str, enrolled: Enrolled, trail: AuditTrail
) -> None:
    """Used, expired, unknown, malformed: one answer, different events."""
    used, expired = invite(administrator), invite(administrator)
    assert enrol(used["code"].lower(), new_key()).status == 201
    code = {"pk": f"enrol#{hashlib.sha256(expired['code'].encode()).hexdigest()}", "sk": "code"}
    wiring.dynamodb().update_item(
        TableName=wiring.settings().directory_table,
        Key=to_item(code),
        UpdateExpression="SET expires_at_ms = :now",
        ExpressionAttributeValues=to_item({":now": clock.now_ms()}),
    )
    trail.new()
    unknown = used["code"][:-20] + ("A" if used["code"][-20] != "A" else "B") + used["code"][-19:]
    answers = [enrol(text, new_key()) for text in (used["code"], expired["code"], unknown, "DT1-nonsense")]
    assert {answer.status for answer in answers} == {403}
    assert all(answer.without_instance() == answers[0].without_instance() for answer in answers)
    events = trail.new()
    assert sorted(event["details"]["reason"] for event in events) == [
        "no such code",
        "no such code",
        "the code has expired",
        "the code is used",
    ]
    assert sorted(event["tenant"] for event in events) == ["-", "-", "acme", "acme"]


def test_of_two_machines_with_one_code_one_is_enrolled(administrator: str) -> None:
    """At the same moment: one transaction wins, the others are told what everyone is told."""
    invitation, keys = invite(administrator), [new_key() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda key: enrol(invitation["code"], key), keys))
    assert sorted(answer.status for answer in answers) == [201, 403, 403, 403]
    winner = next(key for key, answer in zip(keys, answers, strict=True) if answer.status == 201)
    agent = wiring.directory().agent(TenantId("acme"), AgentId(invitation["agent_id"]))
    assert agent.active_key() == agents.public_pem(winner).strip()


@pytest.mark.parametrize("key", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "é"])
def test_an_enrolment_without_a_key_is_refused_and_spends_nothing(administrator: str, key: str) -> None:
    """422, and the code is still good."""
    invitation = invite(administrator)
    body = {"code": invitation["code"], "public_key": key}
    assert post_json("/v1/agents/enrol", body).status == 422
    assert enrol(invitation["code"], new_key()).status == 201


def test_a_key_on_another_curve_is_refused(administrator: str) -> None:
    """P-256 is what everything else is signed with."""
    invitation = invite(administrator)
    answer = enrol(invitation["code"], ec.generate_private_key(ec.SECP384R1()))
    assert answer.status == 422


def test_credentials_reach_the_agents_own_prefix_and_queue_only(
    enrolled: Enrolled, assumed: list[dict[str, Any]]
) -> None:
    """Fifteen minutes; tags for the role's policy; a session policy that says the same again."""
    answer = ask(enrolled.assertion())
    assert answer.status == 200
    assert answer.json["ingest_key"] == enrolled.identity["ingest_key"]
    assert answer.json["expires_at"].endswith("Z")
    (request,) = assumed
    assert request["RoleArn"] == wiring.settings().agent_role_arn
    assert request["DurationSeconds"] == 900
    assert {tag["Key"]: tag["Value"] for tag in request["Tags"]} == {"tenant": "acme", "agent": enrolled.agent_id}
    put, commands, report = json.loads(request["Policy"])["Statement"]
    bucket = wiring.settings().ingest_bucket
    assert (put["Action"], put["Resource"]) == ("s3:PutObject", f"arn:aws:s3:::{bucket}/acme/{enrolled.agent_id}/*")
    queue = wiring.sqs().get_queue_attributes(
        QueueUrl=enrolled.identity["command_queue_url"], AttributeNames=["QueueArn"]
    )["Attributes"]["QueueArn"]
    assert commands["Resource"] == queue
    assert set(commands["Action"]) == {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"}
    events = wiring.sqs().get_queue_attributes(QueueUrl=answer.json["events_queue_url"], AttributeNames=["QueueArn"])
    assert (report["Action"], report["Resource"]) == ("sqs:SendMessage", events["Attributes"]["QueueArn"])


def test_an_assertion_is_good_once(enrolled: Enrolled, assumed: list[dict[str, Any]]) -> None:
    """A replay gets nothing, not even a session that nobody is told about."""
    signed = enrolled.assertion()
    assert ask(signed).status == 200
    assert ask(signed).status == 400
    assert len(assumed) == 1


NOW = clock.now_ms() // 1000
FORGERIES: list[tuple[str, dict[str, Any]]] = [
    ("for another service", {"aud": "https://elsewhere.example/v1/token"}),
    ("for a longer address", {"aud": "{token_url}/"}),
    ("for nobody", {"aud": None}),
    ("ended", {"iat": NOW - 400, "exp": NOW - 100}),
    ("lives too long", {"exp": NOW + 4000}),
    ("issued long ago, lives too long", {"iat": NOW - 4000}),
    ("from the future", {"iat": NOW + 200, "exp": NOW + 280}),
    ("not before later", {"nbf": NOW + 200}),
    ("without end", {"exp": None}),
    ("end is text", {"exp": "soon"}),
    ("end is a fraction", {"exp": NOW + 100.5}),
    ("without id", {"jti": None}),
    ("empty id", {"jti": ""}),
    ("endless id", {"jti": "x" * 200}),
    ("another subject", {"sub": "agt_01JD0000000000000000000000"}),
    ("without subject", {"sub": None}),
    ("another issuer", {"iss": "agt_01JD0000000000000000000000"}),
    ("no agent", {"iss": "acme", "sub": "acme"}),
    ("issuer is a list", {"iss": ["agt_01JD0000000000000000000000"]}),
]


@pytest.mark.parametrize("changes", [row[1] for row in FORGERIES], ids=[row[0] for row in FORGERIES])
def test_an_assertion_that_is_not_as_it_must_be_is_refused(
    enrolled: Enrolled, assumed: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    """REQ: RFC 7523 section 3.1: `invalid_grant`; which claim was wrong is not said."""
    filled = {
        name: value.format(token_url=enrolled.identity["token_url"]) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    signed = raw_assertion(enrolled, filled)
    answer = ask(signed)
    assert answer.status == 400
    assert answer.json["error"] == "invalid_grant"
    assert answer.json["detail"] == "the assertion was not accepted"
    assert assumed == []


def raw_assertion(enrolled: Enrolled, changes: dict[str, Any]) -> str:
    """PyJWT refuses to write some wrong types: sign the bytes ourselves."""
    now = clock.now_ms() // 1000
    agent = enrolled.agent_id
    claims = {
        "iss": agent,
        "sub": agent,
        "aud": enrolled.identity["token_url"],
        "iat": now,
        "exp": now + 240,
        "jti": "j",
    }
    claims |= {"jti": f"{now}-{json.dumps(changes)}"[:100]} | changes
    claims = {name: value for name, value in claims.items() if value is not None}

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    signed = f"{part(json.dumps({'alg': 'ES256', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(enrolled.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_the_forgeries_differ_from_a_good_assertion_in_that_alone(enrolled: Enrolled) -> None:
    """The control: without a change it is accepted."""
    assert ask(raw_assertion(enrolled, {})).status == 200
    assert ask(raw_assertion(enrolled, {"aud": ["https://x", enrolled.identity["token_url"]]})).status == 200


def test_only_the_enrolled_key_signs_for_an_agent(administrator: str, enrolled: Enrolled) -> None:
    """Another agent's key, no signature, a MAC keyed with the public key, garbage: refused alike."""
    other_key, other = new_key(), invite(administrator)
    assert enrol(other["code"], other_key).status == 201
    url, agent = enrolled.identity["token_url"], enrolled.agent_id
    attempts = [
        assertion(other_key, agent, url),
        assertion("", agent, url, algorithm="none"),
        assertion(hashlib.sha256(agents.public_pem(enrolled.key).encode()).digest(), agent, url, algorithm="HS256"),
        assertion(enrolled.key, "agt_01JD0000000000000000000007", url),
        "a.b.c",
        "",
        enrolled.assertion()[:-4] + "AAAA",
    ]
    answers = [ask(signed) for signed in attempts]
    assert [answer.status for answer in answers] == [400] * len(attempts)
    assert all(answer.without_instance() == answers[0].without_instance() for answer in answers)


def test_a_pending_and_a_revoked_agent_get_nothing(administrator: str, trail: AuditTrail) -> None:
    """The refusal of a revoked agent stands in its tenant's log, under the name that it has proved."""
    key, invitation = new_key(), invite(administrator)
    identity = enrol(invitation["code"], key).json
    _revoke(invitation["agent_id"], administrator)
    trail.new()
    assert ask(assertion(key, invitation["agent_id"], identity["token_url"])).status == 403
    (event,) = trail.new()
    assert (event["tenant"], event["outcome"]) == ("acme", "refused")
    assert event["who"] == f"agent:{invitation['agent_id']}"
    assert event["details"]["reason"] == "the agent is revoked"
    pending = invite(administrator)
    assert ask(assertion(key, pending["agent_id"], identity["token_url"])).status == 400


def test_another_grant_is_not_served(enrolled: Enrolled) -> None:
    """RFC 7523's grant and no other; unknown parameters are ignored."""
    signed = enrolled.assertion()
    assert post_form("/v1/token", {"grant_type": "client_credentials", "assertion": signed}).status == 422
    fields = {"grant_type": agents.GRANT, "assertion": signed, "scope": "whatever"}
    assert post_form("/v1/token", fields).status == 200


def test_spent_assertions_are_remembered_as_hashes_until_they_end(enrolled: Enrolled) -> None:
    """DynamoDB's TTL removes them when they could not be used any more."""
    assert ask(enrolled.assertion(jti="a-telling-id")).status == 200
    digest = hashlib.sha256(b"a-telling-id").hexdigest()
    item = wiring.dynamodb().get_item(
        TableName=wiring.settings().directory_table,
        Key=to_item({"pk": f"jti#{enrolled.agent_id}#{digest}", "sk": "jti"}),
    )["Item"]
    assert 0 < from_item(item)["expires_at_s"] - clock.now_ms() // 1000 <= 300


def test_a_command_queue_refuses_what_comes_without_tls(enrolled: Enrolled) -> None:
    """Like every queue of the template."""
    answer = wiring.sqs().get_queue_attributes(
        QueueUrl=enrolled.identity["command_queue_url"], AttributeNames=["Policy", "QueueArn"]
    )
    (statement,) = json.loads(answer["Attributes"]["Policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Resource"] == answer["Attributes"]["QueueArn"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# -- revocation -------------------------------------------------------------------------------------------------------


DENY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


@pytest.fixture
def doomed(administrator: str) -> Enrolled:
    key, invitation = new_key(), invite(administrator, "Doomed")
    answer = enrol(invitation["code"], key)
    assert answer.status == 201
    return Enrolled(key, invitation["agent_id"], answer.json)


def _revoke(agent_id: str, token: str) -> Answer:
    return call("POST", "/v1/agents/{agent_id}/revoke", path={"agent_id": agent_id}, token=token)


def test_a_revoked_agent_is_refused_and_told(doomed: Enrolled, administrator: str, trail: AuditTrail) -> None:
    """No credentials from the next request on; only who signs with its key learns why; its queue holds our word."""
    assert ask(doomed.assertion()).status == 200
    answer = _revoke(doomed.agent_id, administrator)
    assert (answer.status, answer.json) == (200, {"agent_id": doomed.agent_id, "name": "Doomed", "state": "revoked"})
    refused = ask(doomed.assertion())
    assert (refused.status, refused.json["type"]) == (403, "urn:dualtone:problem:agent-revoked")
    forged = ask(assertion(new_key(), doomed.agent_id, doomed.identity["token_url"]))
    assert (forged.status, forged.json["type"]) == (400, "urn:dualtone:problem:grant-refused")
    received = wiring.sqs().receive_message(QueueUrl=doomed.identity["command_queue_url"])["Messages"]
    word = agent_revocation.verified(Envelope.from_json(json.loads(received[0]["Body"])), signing_key_der())
    assert (word.agent, word.tenant) == (doomed.agent_id, doomed.identity["tenant"])
    events = [event for event in trail.new() if event.get("which") == doomed.agent_id]
    assert [event["what"] for event in events if event["outcome"] == "granted"].count("agents:revoke") == 1


def test_a_revoked_agents_sessions_are_denied_by_their_tag(doomed: Enrolled, administrator: str) -> None:
    """An inline policy of the agents' role, within its boundary; those that deny nobody any more are removed."""
    iam, role = wiring.iam(), wiring.settings().agent_role_arn.rpartition("/")[2]
    old = f"revoked-{clock.now_ms() // 1000 - 3_700:010d}-{doomed.agent_id}"
    iam.put_role_policy(RoleName=role, PolicyName=old, PolicyDocument=json.dumps(DENY))
    _revoke(doomed.agent_id, administrator)
    _revoke(doomed.agent_id, administrator)
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    (name,) = [name for name in names if name.endswith(doomed.agent_id)]
    document = boto3.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    (statement,) = document["Statement"]
    assert (statement["Effect"], statement["Action"], statement["Resource"]) == ("Deny", "*", "*")
    assert statement["Condition"] == {"StringEquals": {"aws:PrincipalTag/agent": doomed.agent_id}}


def test_who_may_revoke_which_agent(doomed: Enrolled, administrator: str, officer: str) -> None:
    """An administrator of its tenant; another id, malformed or unknown, is not found; twice is once."""
    assert _revoke(doomed.agent_id, officer).status == 403
    assert ask(doomed.assertion()).status == 200
    for unknown in ("agt_" + "0" * 26, "nonsense"):
        assert _revoke(unknown, administrator).status == 404
    assert [_revoke(doomed.agent_id, administrator).status for _ in range(2)] == [200, 200]


def test_an_invited_agent_that_is_revoked_never_enrols(administrator: str) -> None:
    """Its code is spent for nothing."""
    invitation = invite(administrator)
    assert _revoke(invitation["agent_id"], administrator).status == 200
    assert enrol(invitation["code"], new_key()).status == 403


# -- the next key -----------------------------------------------------------------------------------------------------


def _rotation(enrolled: Enrolled, new: ec.EllipticCurvePrivateKey, **changes: Any) -> dict[str, Any]:
    audience = enrolled.identity["token_url"].replace("/v1/token", "/v1/agents/key")
    return rotation(enrolled.key, enrolled.agent_id, audience, new, **changes)


def test_an_agent_rotates_its_key(doomed: Enrolled) -> None:
    """From then on the next key alone gets credentials; what the earlier one signed is still believed."""
    new = new_key()
    answer = post_json("/v1/agents/key", _rotation(doomed, new))
    assert (answer.status, answer.json) == (200, {"agent_id": doomed.agent_id})
    assert ask(doomed.assertion()).status == 400
    assert ask(assertion(new, doomed.agent_id, doomed.identity["token_url"])).status == 200
    agent = wiring.directory().agent(TenantId("acme"), AgentId(doomed.agent_id))
    message = Envelope.sealed_by(AgentKey(doomed.key, doomed.agent_id), "manifest", b"{}")
    assert message.verified(agent_assertion.verifying_keys(agent), "manifest") == b"{}"
    third = new_key()
    second = Enrolled(new, doomed.agent_id, doomed.identity)
    assert post_json("/v1/agents/key", _rotation(second, third)).status == 200
    agent = wiring.directory().agent(TenantId("acme"), AgentId(doomed.agent_id))
    assert [pem.strip() for pem in agent.retired_keys_pem] == [public_pem(key).strip() for key in (new, doomed.key)]


def test_a_next_key_that_is_not_announced_or_not_held_is_refused(doomed: Enrolled) -> None:
    """Another key's hash, no hash, an assertion for the token endpoint, a proof of another key, one used twice."""
    new, other = new_key(), new_key()
    good = _rotation(doomed, new)
    for request in (
        _rotation(doomed, new, next_key_sha256="0" * 64),
        _rotation(doomed, new, next_key_sha256=None),
        _rotation(doomed, new, aud=doomed.identity["token_url"]),
        good | {"proof": _rotation(doomed, other)["proof"]},
        good | {"assertion": assertion(other, doomed.agent_id, "x")},
        good | {"proof": {}},
    ):
        refused = post_json("/v1/agents/key", request)
        assert (refused.status, refused.json["type"]) == (400, "urn:dualtone:problem:grant-refused")
    assert post_json("/v1/agents/key", good | {"public_key": "none"}).status == 422
    assert ask(doomed.assertion()).status == 200
    assert post_json("/v1/agents/key", good).status == 200
    assert post_json("/v1/agents/key", good).status == 400


def test_a_revoked_agent_rotates_nothing(doomed: Enrolled, administrator: str) -> None:
    """Its key is nobody's any more."""
    _revoke(doomed.agent_id, administrator)
    assert post_json("/v1/agents/key", _rotation(doomed, new_key())).status == 400
