"""Recordings of one call: copies are listed once and kept twice; ends and transfers are found from each other."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from dualtone.adapters import wiring
from dualtone.domain import call_session
from dualtone.domain.call_session import CallSession
from dualtone.domain.ids import AgentId
from dualtone.domain.recording_entry import Gap
from dualtone.usecases.commit_recording import Commit
from infra.local.cloud import LocalCloud
from tests.adapters.api import recordings
from tests.adapters.api.gateway import call, post_json
from tests.adapters.api.recordings import Made
from tests.call_samples import session as facts

ONE, OTHER = AgentId("agt_01JD0000000000000000000001"), AgentId("agt_01JD0000000000000000000002")
STARTED_MS = 1_767_225_600_000 - 3_000  # three seconds before a month ends


@pytest.fixture
def caller() -> str:
    """A number that no other test calls from."""
    return f"+4420{secrets.randbelow(10**8):08d}"


def dialog(name: str, caller: str, **more: Any) -> CallSession:
    """A dialog of the communication session of that name."""
    ids = {"sessions": [{"session_id": name, "sip_session_id": f"{name}@pbx.invalid"}], "groups": []}
    parties = [
        {"participant_id": "p1", "aor": f"sip:{caller}@pbx.invalid"},
        {"participant_id": "p2", "aor": "sip:2001@pbx.invalid"},
    ]
    own = {"sip_call_id": secrets.token_hex(8), "src": "192.0.2.20"}
    return call_session.from_facts(facts() | ids | own | {"participants": parties} | more)


def lost(from_ms: int, to_ms: int) -> tuple[Gap, ...]:
    """Both channels are silent while an agent did not run."""
    return tuple(Gap(channel, from_ms, to_ms, "restart") for channel in range(2))


def listed(cloud: LocalCloud, caller: str) -> list[tuple[str, str | None]]:
    """What the list of the two months and the search by number say: they must agree."""
    token = cloud.tenants["acme"].tokens["officer"]
    months = {"from": "2025-12-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
    rows = call("GET", "/v1/recordings", token=token, query=months | {"limit": "100"}).json["recordings"]
    rows = [row for row in rows if any(party["number"] == caller for party in row["participants"])]
    found = post_json("/v1/recordings/search", {"number": caller} | months, token=token).json["recordings"]
    assert sorted(row["recording_id"] for row in rows) == sorted(row["recording_id"] for row in found)
    return [(row["recording_id"], row["copy_of"]) for row in found]


def linked(cloud: LocalCloud, made: Made) -> list[dict[str, Any]]:
    answer = call(
        "GET",
        "/v1/recordings/{recording_id}/linked",
        token=cloud.tenants["acme"].tokens["officer"],
        path={"recording_id": made.recording_id},
    )
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json["recordings"]
    return found


def make(caller: str, agent: AgentId, session: CallSession, *, after_ms: int = 0, **more: Any) -> Made:
    return recordings.make(
        "acme", STARTED_MS + after_ms, caller=caller, callee="2001", agent=agent, session=session, **more
    )


def test_a_call_that_two_agents_recorded_is_listed_once(cloud: LocalCloud, caller: str) -> None:
    """The SBC forked it to both; each copy leads to the other."""
    name = secrets.token_hex(8)
    first = make(caller, ONE, dialog(name, caller))
    second = make(caller, OTHER, dialog(name, caller), after_ms=40)
    foremost, copy = sorted([first, second], key=lambda made: made.recording_id)
    assert listed(cloud, caller) == [(foremost.recording_id, None)]
    assert [(row["recording_id"], row["relation"]) for row in linked(cloud, foremost)] == [(copy.recording_id, "copy")]
    assert [(row["recording_id"], row["copy_of"]) for row in linked(cloud, copy)] == [(foremost.recording_id, None)]


@pytest.mark.parametrize("killed_first", [True, False])
def test_the_copy_that_lost_least_stands_for_the_call(cloud: LocalCloud, caller: str, *, killed_first: bool) -> None:
    """Whichever is committed first; and it is said what of the other's losses it has."""
    name = secrets.token_hex(8)
    killed: list[tuple[AgentId, dict[str, Any]]] = [(ONE, {"gaps": lost(1_000, 2_000)}), (OTHER, {"gaps": ()})]
    one, two = (
        make(caller, agent, dialog(name, caller), **more) for agent, more in (killed if killed_first else killed[::-1])
    )
    broken, whole = (one, two) if killed_first else (two, one)
    assert listed(cloud, caller) == [(whole.recording_id, None)]
    (copy,) = linked(cloud, broken)
    assert copy["completes"] == [{"from_ms": 1_000, "to_ms": 2_000}]
    assert linked(cloud, whole)[0]["completes"] == []


def test_a_copy_that_is_cut_short_stands_behind(cloud: LocalCloud, caller: str) -> None:
    """Its agent was killed in mid-call and never came back."""
    name = secrets.token_hex(8)
    make(caller, ONE, dialog(name, caller), seconds=1)
    whole = make(caller, OTHER, dialog(name, caller), seconds=6)
    assert listed(cloud, caller) == [(whole.recording_id, None)]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param({}, {}, id="one SBC, one agent: parts of a call"),
        pytest.param({"end": "near", "src": "192.0.2.1"}, {"end": "far"}, id="the two ends of a telephone"),
        pytest.param({"src": "192.0.2.1"}, {"participants": []}, id="other parties"),
    ],
)
def test_what_is_no_copy_is_listed_beside(
    cloud: LocalCloud, caller: str, one: dict[str, Any], two: dict[str, Any]
) -> None:
    """Only linked: nothing that somebody may look for is hidden."""
    name = secrets.token_hex(8)
    if two == {"participants": []}:
        two = {"participants": [{"participant_id": "p9", "aor": "sip:9@pbx.invalid"}]}
    first = make(caller, ONE, dialog(name, caller, **one))
    second = make(caller, ONE, dialog(name, caller, **two))
    assert len(listed(cloud, caller)) == 2
    assert [row["relation"] for row in linked(cloud, first)] == ["same_call"]
    assert linked(cloud, first)[0]["recording_id"] == second.recording_id


def test_what_follows_a_transfer_belongs_to_the_call(cloud: LocalCloud, caller: str) -> None:
    """Another dialog of one group, later."""
    group = {"groups": [secrets.token_hex(8)]}
    first = make(caller, ONE, dialog(secrets.token_hex(8), caller, **group))
    second = make(caller, ONE, dialog(secrets.token_hex(8), caller, **group), after_ms=60_000)
    assert [row["recording_id"] for row in linked(cloud, second)] == [first.recording_id]


def test_other_calls_are_not_linked(cloud: LocalCloud, caller: str) -> None:
    """The same parties at the same time, of another communication session."""
    first = make(caller, ONE, dialog(secrets.token_hex(8), caller))
    make(caller, OTHER, dialog(secrets.token_hex(8), caller))
    assert linked(cloud, first) == []
    assert len(listed(cloud, caller)) == 2


def test_two_commits_in_one_moment_do_not_overlook_each_other(cloud: LocalCloud, caller: str) -> None:
    """The second is refused, since it was linked when the first was not there yet."""
    name = secrets.token_hex(8)
    session = dialog(name, caller)
    index, links = wiring.recording_index(), wiring.recording_links()
    commits: list[Commit] = []

    def held_back(commit: Commit) -> bool:
        commits.append(commit)
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index, "commit", held_back)
        make(caller, ONE, session)
        make(caller, OTHER, session)
    assert [index.commit(commit) for commit in commits] == [True, False]
    assert all(
        len(links.linked(commits[0].entry.tenant, token, STARTED_MS)) == 1 for token in commits[0].linkage.tokens
    )
