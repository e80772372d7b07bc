"""The recording policy by API: versions that nobody overwrites unseen, refusals that say what to write, agents told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from chalicelib.policy_requests import EXAMPLE
from dualtone.adapters import wiring
from dualtone.domain import recording_policy
from dualtone.domain.errors import Unavailable
from dualtone.domain.signing import Envelope
from infra.local.cloud import LocalCloud
from infra.local.onboarding import PLANS
from tests.adapters.api.agents import ask
from tests.adapters.api.conftest import AuditTrail
from tests.adapters.api.gateway import Answer, call, post_json
from tests.adapters.api.live_agent import LiveAgent
from tests.adapters.api.test_rights import version_in_force

POLICY = "/v1/recording-policy"
NEVER = {"id": "board", "match": {"lines": ["2900"]}, "record": "never", "basis": "legitimate_interests"}


def put(token: str, body: object, version: int | str | None) -> Answer:
    headers = {"Content-Type": "application/json"}
    if version is not None:
        headers["If-Match"] = f'"{version}"' if isinstance(version, int) else version
    return call("PUT", POLICY, token=token, body=json.dumps(body).encode(), headers=headers)


def kind(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["type"].rpartition(":")[2]


@pytest.fixture
def nobodys(cloud: LocalCloud) -> Iterator[str]:
    """An administrator of a tenant without a policy."""
    yield cloud.tenants["globex"].tokens["administrator"]
    forget_policy("globex")


def forget_policy(tenant: str) -> None:
    """Leaves a tenant without a policy, for the next test."""
    table = wiring.settings().directory_table
    for sk in ("recording-policy", *(f"recording-policy-v#{number:010d}" for number in range(1, 4))):
        wiring.dynamodb().delete_item(TableName=table, Key={"pk": {"S": f"tenant#{tenant}"}, "sk": {"S": sk}})


def test_without_a_policy_every_call_is_recorded(stranger: str) -> None:
    """Version 0 has no rules, and the preview says so."""
    answer = call("GET", POLICY, token=stranger)
    assert answer.json == {"version": 0, "issued_at": None, "changed_by": None, "rules": [], "groups": {}}
    assert answer.headers["ETag"] == '"0"'
    found = post_json(f"{POLICY}/preview", {"call": {"parties": [{"number": "2001"}]}}, token=stranger).json
    assert (found["now"]["rule"], found["now"]["record"], found["now"]["waits"]) == ("default", "always", False)


def test_what_an_administrator_writes_is_read_and_kept(administrator: str, officer: str, agent: LiveAgent) -> None:
    """A new version is in force at once, earlier ones stay readable, and each agent is told."""
    version = version_in_force()
    agent.commands()
    agent.refreshed.clear()
    changed = put(administrator, EXAMPLE, version)
    assert (changed.status, changed.json["version"], changed.json["rules"]) == (200, version + 1, 3)
    assert changed.headers["ETag"] == f'"{version + 1}"'
    read = call("GET", POLICY, token=officer).json
    assert [rule["id"] for rule in read["rules"]] == ["dealing-room", "hotline", "board"]
    assert read["groups"] == {"dealers": ["21??"]}
    assert read["changed_by"].startswith("person:")
    agent.commands()
    assert len(agent.refreshed) == 1
    assert changed.json["agents_told"] >= 1

    assert put(administrator, {"rules": [NEVER]}, version + 1).json["version"] == version + 2
    earlier = call("GET", POLICY, query={"version": str(version + 1)}, token=officer).json
    assert earlier == read
    assert [rule["id"] for rule in call("GET", POLICY, token=officer).json["rules"]] == ["board"]
    assert kind(call("GET", POLICY, query={"version": "999"}, token=officer)) == (404, "not-found")


def test_nobody_overwrites_a_version_unseen(administrator: str) -> None:
    """A change names the version that was read: without one 428, with another 412, and nothing is changed."""
    version = version_in_force()
    assert kind(put(administrator, EXAMPLE, None)) == (428, "version-required")
    assert kind(put(administrator, EXAMPLE, version + 1)) == (412, "version-changed")
    assert kind(put(administrator, EXAMPLE, version - 1)) == (412, "version-changed")
    assert kind(put(administrator, EXAMPLE, "*")) == (412, "version-changed")
    assert version_in_force() == version


def test_the_first_policy_is_the_first_only_once(nobodys: str) -> None:
    """Two administrators who both saw that there was none do not both write the first."""
    assert put(nobodys, {"rules": []}, 0).json["version"] == 1
    assert kind(put(nobodys, EXAMPLE, 0)) == (412, "version-changed")


DEALERS = EXAMPLE["rules"][0]
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a regulated rule below another",
        {"rules": [NEVER, DEALERS], "groups": EXAMPLE["groups"]},
        "body",
        "rule `dealing-room` is regulated: move it above `board`",
    ),
    (
        "a regulated rule that does not record",
        {"rules": [DEALERS | {"record": "never"}]},
        "rules.0",
        "rule `dealing-room`: a regulated rule records every call: write `record` = always",
    ),
    ("no such group", {"rules": [DEALERS]}, "body", "group `dealers` is not defined: add it under `groups`"),
    ("one id for two rules", {"rules": [NEVER, NEVER]}, "body", "give each rule one of its own"),
    ("no such word", {"rules": [NEVER, NEVER | {"id": "x", "record": "no"}]}, "rules.1", "rule `x`: `record`: write"),
    ("a group of a host", {"rules": [], "groups": {"g": ["sip:+441632960001"]}, "x": 1}, "x", "Extra inputs"),
    ("a rule that is no rule", {"rules": [7]}, "rules.0", "write"),
    ("too many rules", {"rules": [NEVER | {"id": f"r{n}"} for n in range(201)]}, "rules", "at most 200"),
]


@pytest.mark.parametrize(
    ("body", "parameter", "detail"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_not_right_is_refused_in_words(
    administrator: str, trail: AuditTrail, body: object, parameter: str, detail: str
) -> None:
    """422 with the rule and what to write; no number comes back, and nothing is changed."""
    version = version_in_force()
    answer = put(administrator, body, version)
    assert kind(answer) == (422, "invalid-parameters")
    assert any(error["parameter"] == parameter and detail in error["detail"] for error in answer.json["errors"])
    assert b"441632960001" not in answer.body
    assert version_in_force() == version
    (event,) = trail.new()
    assert (event["what"], event["outcome"]) == ("recording-policy:change", "refused")


def test_a_change_and_its_event_are_one(administrator: str, trail: AuditTrail) -> None:
    """Who changed the policy to which version is on record in the transaction that does it."""
    put(administrator, EXAMPLE, version_in_force())
    (event,) = trail.new()
    assert (event["what"], event["outcome"], event["which"]) == (
        "recording-policy:change",
        "granted",
        f"recording-policy#{version_in_force()}",
    )
    assert event["details"] == {"version": version_in_force(), "rules": 3}


DEALER, BOARD, DESK, CUSTOMER = ({"number": number} for number in ("sip:2150@pbx", "2900", "2001", "+44 1632 960001"))
TUESDAY, SUNDAY = "2026-11-24T10:00:00Z", "2026-11-29T10:00:00Z"
HOTLINE = {"parties": [DESK, CUSTOMER], "queues": ["Hotline"]}
PREVIEWS: list[tuple[str, dict[str, Any], tuple[str, bool, str]]] = [
    ("a dealer", {"parties": [DEALER, CUSTOMER]}, ("dealing-room", False, "dealing-room")),
    ("the board", {"parties": [BOARD, CUSTOMER], "queues": ["x"]}, ("board", False, "board")),
    ("the hotline on a weekday", HOTLINE | {"at": TUESDAY}, ("hotline", False, "hotline")),
    ("the hotline on a Sunday", HOTLINE | {"at": SUNDAY}, ("default", False, "default")),
    ("a caller alone", {"parties": [CUSTOMER | {"role": "caller"}], "queues": ["x"]}, ("default", True, "default")),
]


@pytest.mark.parametrize(("facts", "expected"), [case[1:] for case in PREVIEWS], ids=[case[0] for case in PREVIEWS])
def test_the_preview_says_which_rule_decides(
    officer: str, facts: dict[str, Any], expected: tuple[str, bool, str]
) -> None:
    """By a draft that is not in force, and without writing anything."""
    version = version_in_force()
    found = post_json(f"{POLICY}/preview", {"call": facts, "policy": EXAMPLE}, token=officer).json
    assert (found["now"]["rule"], found["provisional"], found["settled"]["rule"]) == expected
    assert version_in_force() == version


def test_an_agent_gets_the_signed_policy_with_its_credentials(
    cloud: LocalCloud, administrator: str, agent: LiveAgent
) -> None:
    """The answer of the token endpoint, and that of enrolment, carry the version in force under the pinned key."""
    put(administrator, EXAMPLE, version_in_force())
    fresh = LiveAgent(cloud, "acme", "London SBC 9")
    pinned = load_pem_public_key(fresh.identity["signing_public_key"].encode())
    key = pinned.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    enrolled = Envelope.from_json(fresh.identity["recording_policy"])
    policy = recording_policy.verified(enrolled, key)
    assert (policy.tenant, policy.version) == ("acme", version_in_force())
    assert [rule.id for rule in policy.rules] == ["dealing-room", "hotline", "board"]
    assert policy.lines == next(plan.lines for plan in PLANS if plan.tenant == "acme")
    issued = ask(fresh.assertion()).json
    assert issued["recording_policy"] == fresh.identity["recording_policy"]
    assert LiveAgent(cloud, "globex", "SBC").identity["recording_policy"] is None


def test_a_queue_that_refuses_keeps_no_policy_back(administrator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is in force though nobody could be told: agents fetch it with their next credentials."""

    def unreachable(*_args: object) -> None:
        raise Unavailable("no queue answers")

    monkeypatch.setattr("dualtone.adapters.command_queue.CommandQueue.send", unreachable)
    changed = put(administrator, EXAMPLE, version_in_force())
    assert (changed.status, changed.json["agents_told"]) == (200, 0)


def test_another_tenant_reads_its_own(administrator: str, stranger: str) -> None:
    """No rule of one tenant shows in another's policy."""
    put(administrator, EXAMPLE, version_in_force())
    assert call("GET", POLICY, token=stranger).json["rules"] == []
