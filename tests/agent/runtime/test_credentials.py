"""Credentials: signed assertions in, a quarter of an hour of AWS out, renewed in time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from dualtone.domain import agent_assertion
from dualtone.domain.errors import PolicyViolation, Unavailable
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime import credentials
from sbc_agent.runtime.clock_offset import ClockSampler, TrueTime
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource
from sbc_agent.runtime.identity import AgentKey, Identity
from sbc_agent.runtime.revocation import Revocation
from tests.agent.runtime import web
from tests.agent.runtime.spooled import AGENT, Clock, CloudKey, Lines

CLOUD = CloudKey()
NOW = 1_800_000_000


def answer(clock: Clock, serial: int = 0, /, **changes: object) -> dict[str, object]:
    return {
        "access_key_id": f"ASIA{serial}",
        "secret_access_key": "secret",
        "session_token": "token",
        "expires_at": datetime.fromtimestamp(clock.now + 900, UTC).isoformat(),
        "ingest_key": CLOUD.identity().ingest_key,
    } | changes


def source(
    url: str, state_dir: Path, clock: Callable[[], float], lines: Lines | None = None
) -> tuple[TokenSource, AgentKey]:
    key = AgentKey(AgentKey.generate().private_key, AGENT)
    identity = dataclasses.replace(CLOUD.identity(), token_url=f"{url}/v1/token")
    log = (lines or Lines()).log
    made = TokenSource(
        api=CloudApi(),
        key=key,
        identity=identity,
        state_dir=state_dir,
        log=log,
        revocation=Revocation(state_dir, AGENT, log),
        clock=clock,
    )
    return made, key


def test_the_assertion_is_one_that_the_cloud_accepts(tmp_path: Path) -> None:
    """The token endpoint's own rule verifies what is posted, and no two have the same id."""
    clock = Clock(NOW)
    with web.serving(lambda *_: (200, answer(clock))) as server:
        tokens, key = source(server.url, tmp_path, clock)
        tokens.fetch()
        tokens.fetch()
    ids = set()
    for path, kind, body in server.requests:
        form = parse_qs(body)
        assert (path, kind) == ("/v1/token", "application/x-www-form-urlencoded")
        assert form["grant_type"] == [agent_assertion.GRANT_TYPE]
        (assertion,) = form["assertion"]
        assert agent_assertion.claimed_agent(assertion) == AGENT
        verified = agent_assertion.verify(
            assertion, key.public_pem(), agent=AGENT, audience=f"{server.url}/v1/token", now_s=NOW
        )
        ids.add(verified.jti)
    assert len(ids) == 2


def test_credentials_are_fetched_when_needed_and_renewed_in_time(tmp_path: Path) -> None:
    """Nothing is asked before the first use; then again only when less than five minutes are left."""
    clock, count = Clock(NOW), 0

    def issue(*_: str) -> web.Answer:
        nonlocal count
        count += 1
        return 200, answer(clock, count)

    with web.serving(issue) as server:
        held = AgentCredentials(source(server.url, tmp_path, clock)[0], clock=clock)
        assert server.requests == []
        used = []
        for seconds in (0, 599, 601, 1_100, 1_202):
            clock.now = NOW + seconds
            used.append(held.get_frozen_credentials().access_key)
    assert used == ["ASIA1", "ASIA1", "ASIA2", "ASIA2", "ASIA3"]


def test_a_short_outage_leaves_the_old_credentials_in_use(tmp_path: Path) -> None:
    """While the old ones still hold, a failed renewal is no failure; at their end it is."""
    clock, up = Clock(NOW), True
    with web.serving(lambda *_: (200, answer(clock)) if up else (503, {})) as server:
        held = AgentCredentials(source(server.url, tmp_path, clock)[0], clock=clock)
        held.get_frozen_credentials()
        up = False
        clock.now = NOW + 700
        assert held.get_frozen_credentials().access_key == "ASIA0"
        clock.now = NOW + 880
        with pytest.raises(Unavailable):
            held.get_frozen_credentials()


def test_a_revoked_agent_is_refused(tmp_path: Path) -> None:
    """The API's no is a policy's no: the uplink alarms and goes on asking."""
    clock = Clock(NOW)
    with web.serving(lambda *_: (401, {"title": "invalid_grant"})) as server, pytest.raises(PolicyViolation):
        source(server.url, tmp_path, clock)[0].fetch()


@pytest.mark.parametrize(
    "changes",
    [{"access_key_id": None}, {"session_token": ""}, {"expires_at": "soon"}, {"expires_at": "2030-01-01T00:00:00"}],
)
def test_an_answer_without_credentials_is_an_outage(tmp_path: Path, changes: dict[str, object]) -> None:
    """A misshapen answer is tried again later, like none."""
    clock = Clock(NOW)
    with web.serving(lambda *_: (200, answer(clock, **changes))) as server, pytest.raises(Unavailable):
        source(server.url, tmp_path, clock)[0].fetch()


def test_a_newer_ingest_key_is_kept(tmp_path: Path) -> None:
    """A key that the cloud signed is on disk for the next start, and whoever listens can use it at once."""
    clock, lines = Clock(NOW), Lines()
    heard: list[Identity] = []
    newer = CLOUD.ingest_key(arn="arn:aws:kms:eu-west-1:000000000000:key/newer")
    with web.serving(lambda *_: (200, answer(clock, ingest_key=newer))) as server:
        tokens, _ = source(server.url, tmp_path, clock, lines)
        tokens.subscribe(heard.append)
        tokens.fetch()
        tokens.fetch()
    assert Identity.load(tmp_path).current_ingest_key().key_arn.endswith("newer")
    assert [identity.current_ingest_key().key_arn[-5:] for identity in heard] == ["newer"], "told once"
    assert lines.named("ingest_key_kept")


@pytest.mark.parametrize(
    "envelope", [{}, CloudKey().ingest_key(), CLOUD.ingest_key(tenant="globex")], ids=["empty", "foreign", "tenant"]
)
def test_an_ingest_key_that_is_not_signed_for_us_is_alarmed_and_left(tmp_path: Path, envelope: dict[str, Any]) -> None:
    """Credentials are used all the same; the old key stays."""
    clock, lines = Clock(NOW), Lines()
    with web.serving(lambda *_: (200, answer(clock, ingest_key=envelope))) as server:
        tokens, _ = source(server.url, tmp_path, clock, lines)
        before = tokens.identity
        assert tokens.fetch()["access_key"] == "ASIA0"
    assert tokens.identity == before
    assert lines.named("ingest_key_refused")[0]["level"] == "error"
    assert list(tmp_path.iterdir()) == []


LIVE = {
    "events_queue_url": "https://sqs.eu-west-1.amazonaws.com/000000000000/events",
    "live_key": "A" * 43 + "=",
    "payment_endpoints": [{"endpoint_id": "pay_1", "secret": "whsec_" + "A" * 43 + "="}],
    "pause": {"lease_s": 60, "on_expiry": "resume"},
}


def test_what_pauses_need_is_kept_for_days_without_an_uplink(tmp_path: Path) -> None:
    """Live key, endpoints, events queue and defaults are in the identity file, for this user alone."""
    clock = Clock(NOW)
    heard: list[Identity] = []
    with web.serving(lambda *_: (200, answer(clock, **LIVE))) as server:
        tokens, _ = source(server.url, tmp_path, clock)
        tokens.subscribe(heard.append)
        tokens.fetch()
        tokens.fetch()
    assert [told.control for told in heard] == [tokens.identity.control]
    kept = Identity.load(tmp_path).control
    assert kept == tokens.identity.control
    assert (kept.events_queue_url, kept.live_key) == (LIVE["events_queue_url"], bytes(32))
    assert (kept.secret("pay_1"), kept.secret("pay_2")) == ("whsec_" + "A" * 43 + "=", None)
    assert (kept.lease_s, kept.on_expiry) == (60, "resume")
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600
    assert "A" * 43 not in repr(kept)


def test_a_cloud_that_says_nothing_of_pauses_leaves_what_is_known(tmp_path: Path) -> None:
    """An older cloud's answer has none of these members."""
    clock, told = Clock(NOW), [LIVE, {}]
    with web.serving(lambda *_: (200, answer(clock, **told.pop(0)))) as server:
        tokens, _ = source(server.url, tmp_path, clock)
        tokens.fetch()
        known = tokens.identity.control
        tokens.fetch()
    assert tokens.identity.control == known != ControlFacts()


@pytest.mark.parametrize(
    "changes",
    [
        {"live_key": "AAAA"},
        {"live_key": "?"},
        {"events_queue_url": 5},
        {"payment_endpoints": {}},
        {"payment_endpoints": [{"endpoint_id": "pay_1"}]},
        {"pause": {"lease_s": 0}},
        {"pause": {"on_expiry": "panic"}},
        {"pause": []},
    ],
    ids=str,
)
def test_misshapen_facts_are_alarmed_and_left(tmp_path: Path, changes: dict[str, object]) -> None:
    """Credentials are used all the same."""
    clock, lines = Clock(NOW), Lines()
    with web.serving(lambda *_: (200, answer(clock, **changes))) as server:
        tokens, _ = source(server.url, tmp_path, clock, lines)
        assert tokens.fetch()["access_key"] == "ASIA0"
    assert tokens.identity.control == ControlFacts()
    assert lines.named("control_facts_refused")[0]["level"] == "error"


@pytest.mark.parametrize("off_s", [3_600, -3_600], ids=["an hour ahead", "an hour behind"])
def test_assertions_carry_the_time_that_the_clock_says(tmp_path: Path, off_s: int) -> None:
    """True time, whatever the machine's wall clock says: the token endpoint accepts them."""
    agent = AgentClock(AgentClock.measured().offset_us + 1_000_000 * off_s)  # as measured from a wrong wall clock
    true_time = TrueTime(agent)

    def serve(path: str, _: str) -> web.Answer:
        return (200, {"now_ms": time.time_ns() // 1_000_000}) if path == "/v1/health" else (200, answer(Clock(NOW)))

    with web.serving(serve) as server:
        sampler = ClockSampler(
            api=CloudApi(), base=server.url, clock=agent, true_time=true_time, state_dir=tmp_path, log=Lines().log
        )
        sampler.start()
        tokens, key = source(server.url, tmp_path, sampler.now_s)
        tokens.fetch()
        sampler.close()
    (assertion,) = parse_qs(server.requests[-1][2])["assertion"]
    audience = f"{server.url}/v1/token"
    agent_assertion.verify(assertion, key.public_pem(), agent=AGENT, audience=audience, now_s=int(time.time()))


def test_the_session_knows_these_credentials_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment of the agent are not picked up."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    clock = Clock(NOW)
    with web.serving(lambda *_: (200, answer(clock))) as server:
        held = AgentCredentials(source(server.url, tmp_path, clock)[0], clock=clock)
        session = credentials.agent_session(held, "eu-west-1", Revocation(tmp_path, AGENT, Lines().log))
        found = session.get_credentials()
        assert found is not None
        assert found.get_frozen_credentials().access_key == "ASIA0"
        assert session.get_config_variable("region") == "eu-west-1"
