"""The recording policy on a real agent: what is kept, what waits, and that nothing is left of what is neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.local import listening, proofs
from infra.local.client import ApiClient, ApiProblem
from infra.local.payment import PaymentSystem
from infra.local.unsealing import SealedCopies
from tests.e2e.conftest import Local, start_local, stop_local
from tests.e2e.talking import SPEECH, Talking, new_ucid

HOLD_BACK_S = 1.0
REGULATED, NEVER, CONSENT, LIVE_KEEP, FREE = (f"+44207946{number:04d}" for number in (111, 222, 333, 444, 555))
POLICY: dict[str, Any] = {
    "rules": [
        {
            "id": "dealers",
            "match": {"lines": [REGULATED]},
            "record": "always",
            "regulated": True,
            "basis": "legal_obligation",
        },
        {"id": "board", "match": {"lines": [NEVER]}, "record": "never", "basis": "legitimate_interests"},
        {"id": "hotline", "match": {"lines": [CONSENT]}, "record": "consent", "basis": "consent"},
        {"id": "night", "match": {"lines": [LIVE_KEEP]}, "record": "live_keep", "basis": "legitimate_interests"},
    ]
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud whose administrator has written a policy, which the agent has."""
    data_dir = tmp_path_factory.mktemp("ruled")
    running = start_local(data_dir, "--hold-back", str(HOLD_BACK_S))
    administrator = ApiClient(running.line["api"], running.line["tenants"][running.tenant]["administrator"])
    changed = administrator.put("/v1/recording-policy", POLICY, if_match='"0"')
    assert (changed["version"], changed["agents_told"]) == (1, 1)
    until(lambda: has_policy(data_dir), 20, "the agent did not fetch the policy")
    yield running
    assert stop_local(running) == 0


@pytest.fixture
def system(ruled: Local) -> PaymentSystem:
    """An announcement system: it signs as payment systems do."""
    return PaymentSystem(ruled.line["webhook_url"], ruled.line["webhook_secret"])


@pytest.fixture
def sealed(ruled: Local) -> Iterator[SealedCopies]:
    with SealedCopies(ruled.line) as copies:
        yield copies


def until(holds: Callable[[], bool], within_s: float, complaint: str) -> None:
    """Waits for a condition, not longer than a bound."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)


def has_policy(data_dir: Path) -> bool:
    return any(data_dir.rglob("recording-policy.json"))


def is_unknown(local: Local, sip_call_id: str) -> bool:
    """Whether the cloud has never heard of a call."""
    try:
        local.officer.get("/v1/calls", {"sip_call_id": sip_call_id})
    except ApiProblem as problem:
        return problem.status == HTTPStatus.NOT_FOUND
    return False


def spooled(local: Local) -> set[str]:
    """Calls of which the agent's disk holds anything."""
    return {path.name for path in Path(local.line["spool_dir"]).iterdir() if path.is_dir()}


def not_recorded(local: Local) -> dict[str, int]:
    """What the agent counts, by its last word."""
    administrator = ApiClient(local.line["api"], local.line["tenants"][local.tenant]["administrator"])
    (agent,) = [one for one in administrator.get("/v1/agents")["agents"] if one["health"] is not None]
    return dict(agent["health"]["not_recorded"])


def assert_whole(local: Local, recording: dict[str, Any], call: dict[str, Any]) -> None:
    """A call is there from its answer to its end, and both sides are what was spoken."""
    assert abs(recording["duration_ms"] - call["duration_ms"]) <= 400, (recording["duration_ms"], call)
    assert recording["gaps"] == []
    played = listening.decode_opus(local.officer.audio(recording["recording_id"]))
    for channel, side in enumerate(("alice", "bob")):
        samples = listening.read_wav(SPEECH / f"{side}.wav")
        spoken = np.tile(samples, -(-played.shape[0] // samples.size))[: played.shape[0]]
        assert proofs.likeness(spoken, played[:, channel], []) >= 0.85


def test_of_a_call_that_is_never_recorded_a_count_is_left(ruled: Local, sealed: SealedCopies) -> None:
    """No file, no upload, no event: not while it lasts and not afterwards."""
    before, counted = spooled(ruled), not_recorded(ruled).get("board", 0)
    with Talking(ruled, 4, callee=NEVER, wait=False) as talking:
        call = talking.ended()
    until(lambda: not_recorded(ruled).get("board", 0) == counted + 1, 45, "the call was not counted")
    assert is_unknown(ruled, call["sip_call_id"])
    assert spooled(ruled) <= before
    assert sealed.calls("spool") <= before
    assert sealed.calls("ingest") <= before


def test_a_consent_that_came_before_the_call_keeps_it(ruled: Local, system: PaymentSystem) -> None:
    """The caller pressed 1 in the queue; the announcement system says so before anybody answers."""
    ucid = new_ucid()
    given = system.report("consent.given", {"ucid": ucid})
    assert (given.status, given.body["outcome"]) == (202, "requested"), given.body
    with Talking(ruled, 5, ucid, callee=CONSENT) as talking:
        call = talking.ended()
    recording = ruled.wait_recorded(call["sip_call_id"])
    assert (recording["policy_rule"], recording["policy_version"]) == ("hotline", 1)
    assert (recording["policy"]["how"], recording["policy"]["basis"]) == ("webhook", "consent")
    assert [(choice["choice"], choice["how"]) for choice in recording["choices"]] == [("accept", "webhook")]
    assert recording["lines"] == ["+442079460101", CONSENT]
    assert_whole(ruled, recording, call)


def test_without_consent_nothing_is_kept(ruled: Local, sealed: SealedCopies) -> None:
    """Nobody pressed anything: the call's key is gone with its end, and nothing of it ever left the site."""
    counted = not_recorded(ruled).get("hotline", 0)
    uploaded = sealed.calls("ingest")
    with Talking(ruled, 4, callee=CONSENT, wait=False) as talking:
        call = talking.ended()
    until(lambda: not_recorded(ruled).get("hotline", 0) == counted + 1, 45, "the call was not counted")
    assert is_unknown(ruled, call["sip_call_id"])
    assert sealed.calls("ingest") <= uploaded
    assert not list(Path(ruled.line["spool_dir"]).glob("*/opening-*")), "a key that opens something lies on the disk"


def test_a_call_that_is_kept_late_is_there_from_its_start(ruled: Local) -> None:
    """Somebody asks for it after five seconds, far beyond the hold-back: the whole call is recorded."""
    with Talking(ruled, 9, callee=LIVE_KEEP, wait=False) as talking:
        time.sleep(5)
        assert ruled.officer.get("/v1/calls")["calls"] == [], "a call that waits is nobody's to see"
        kept = ruled.officer.post(
            "/v1/decisions", {"call": {"ucid": talking.ucid}, "decision": "keep", "cause": "on_demand"}
        )
        assert kept["outcome"] == "kept", kept
        (live,) = ruled.officer.get("/v1/calls")["calls"]
        assert (live["call_id"], live["policy"]["rule"]) == (kept["calls"][0]["call_id"], "night")
        call = talking.ended()
    recording = ruled.wait_recorded(call["sip_call_id"])
    assert (recording["policy_rule"], recording["policy"]["how"]) == ("night", "api")
    assert [choice["choice"] for choice in recording["choices"]] == ["keep"]
    assert_whole(ruled, recording, call)


def test_a_regulated_line_heeds_no_refusal(ruled: Local, system: PaymentSystem) -> None:
    """Neither one before the call nor one in it; both stay with the recording, beside its basis."""
    ucid = new_ucid()
    assert system.report("consent.refused", {"ucid": ucid}).status == 202
    with Talking(ruled, 6, ucid, callee=REGULATED) as talking:
        refused = ruled.officer.post(
            f"/v1/calls/{talking.call_id}/decision", {"decision": "discard", "cause": "consent"}
        )
        assert refused["outcome"] == "ignored", refused
        call = talking.ended()
    recording = ruled.wait_recorded(call["sip_call_id"])
    assert (recording["policy_rule"], recording["policy"]["basis"]) == ("dealers", "legal_obligation")
    assert [choice["choice"] for choice in recording["choices"]] == ["decline", "decline"]
    assert_whole(ruled, recording, call)


def test_a_refusal_in_the_call_stops_it(ruled: Local) -> None:
    """What was kept before stays; from the refusal on nothing is, and the call's entry says who refused."""
    with Talking(ruled, 9, callee=FREE) as talking:
        time.sleep(4)
        refused_at = time.time()
        answer = ruled.officer.post(
            "/v1/decisions", {"call": {"ucid": talking.ucid}, "decision": "discard", "cause": "consent"}
        )
        assert answer["outcome"] == "stopped", answer
        entry = ruled.officer.get(f"/v1/calls/{talking.call_id}")
        assert [(choice["choice"], choice["outcome"]) for choice in entry["choices"]] == [("decline", "stopped")]
        call = talking.ended()
    recording = ruled.wait_recorded(call["sip_call_id"])
    assert (recording["policy_rule"], recording["choices"][0]["choice"]) == ("default", "decline")
    began_s = proofs.moment(recording["started_at"])
    silent = [gap for gap in recording["gaps"] if gap["cause"] == "consent"]
    assert {gap["channel"] for gap in silent} == {0, 1}
    for gap in silent:
        assert 1000 * (refused_at - began_s) - 400 <= gap["from_ms"] <= 1000 * (refused_at - began_s) + 1500
        assert gap["to_ms"] >= recording["duration_ms"] - 40
    played = listening.decode_opus(ruled.officer.audio(recording["recording_id"]))
    assert proofs.peak(played, max(gap["from_ms"] for gap in silent), recording["duration_ms"]) <= proofs.MAX_GAP_PEAK
