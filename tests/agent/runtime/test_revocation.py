"""A revoked agent learns of it on either way, sends nothing any more, and refuses new calls; its spool stays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.agent_revocation import Revoked
from dualtone.domain.errors import DualtoneError, PolicyViolation
from dualtone.domain.ids import AgentId
from sbc_agent.runtime.admission import Admission, Capacity
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource, agent_session
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.ingest_bucket import sqs_client, translated
from sbc_agent.runtime.revocation import FILE_NAME, Revocation
from tests.agent.runtime import web
from tests.agent.runtime.spooled import AGENT, TENANT, Lines
from tests.agent.runtime.test_command_queue import CLOUD, Agent

NOW = 1_800_000_000.0
OTHER = AgentId("agt_" + "2" * 26)
REVOKED = {"type": "urn:dualtone:problem:agent-revoked", "title": "This agent was revoked", "status": 403}
GRANT_REFUSED = {"type": "urn:dualtone:problem:grant-refused", "title": "The grant was not accepted", "status": 400}
DENIED = b'{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"explicit deny"}'


def test_it_is_for_good_and_outlives_a_restart(tmp_path: Path) -> None:
    """One alarm, whoever tells it again; the next run knows, and an agent of another id is not meant."""
    lines, told = Lines(), list[str]()
    first = Revocation(tmp_path, AGENT, lines.log)
    first.subscribe(lambda: told.append("first"))
    first.require_none()
    first.learn()
    first.learn()
    first.subscribe(lambda: told.append("late"))
    assert (first.is_revoked, told, len(lines.named("revoked"))) == (True, ["first", "late"], 1)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    again = Revocation(tmp_path, AGENT, lines.log)
    with pytest.raises(PolicyViolation, match="revoked"):
        again.require_none()
    assert not Revocation(tmp_path, OTHER, lines.log).is_revoked


def test_a_disk_that_refuses_costs_a_restart_its_knowledge_alone(tmp_path: Path) -> None:
    """This run stops all the same."""
    lines = Lines()
    here = Revocation(tmp_path / "gone", AGENT, lines.log)
    here.learn()
    assert here.is_revoked
    assert len(lines.named("revocation_not_kept")) == 1


@dataclasses.dataclass
class Cloud:
    """A token endpoint and a queue on loopback, which answer as a test says."""

    url: str
    state_dir: Path
    now: float = NOW
    lines: Lines = dataclasses.field(default_factory=Lines)

    def __post_init__(self) -> None:
        self.revocation = Revocation(self.state_dir, AGENT, self.lines.log)
        self.source = TokenSource(
            api=CloudApi(),
            key=AgentKey(AgentKey.generate().private_key, AGENT),
            identity=dataclasses.replace(CLOUD.identity(), token_url=f"{self.url}/v1/token"),
            state_dir=self.state_dir,
            log=self.lines.log,
            revocation=self.revocation,
            clock=lambda: self.now,
        )
        credentials = AgentCredentials(self.source, clock=lambda: self.now)
        session = agent_session(credentials, "eu-west-1", self.revocation, clock=lambda: self.now)
        self._sqs = sqs_client(session, endpoint_url=self.url)

    def poll(self) -> object:
        """A request for commands."""
        return translated(lambda: self._sqs.receive_message(QueueUrl=f"{self.url}/1/commands"))


def _token(now: float) -> dict[str, Any]:
    ends = datetime.fromtimestamp(now + 900, UTC).isoformat()
    return {"access_key_id": "A", "secret_access_key": "s", "session_token": "t", "expires_at": ends}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[dict[str, web.Answer]], tuple[Cloud, web.Web]]]:
    """Starts a cloud that answers paths by a table, which a test may change."""
    with_answers: dict[str, web.Answer] = {}
    with web.serving(lambda path, _: with_answers[path]) as server:

        def start(answers: dict[str, web.Answer]) -> tuple[Cloud, web.Web]:
            with_answers.update(answers)
            return Cloud(server.url, tmp_path), server

        yield start


Serve = Callable[[dict[str, web.Answer]], tuple[Cloud, web.Web]]


def test_the_token_endpoint_tells_it(serve: Serve) -> None:
    """A refusal of that type is one, and nothing is asked after it."""
    cloud, server = serve({"/v1/token": (403, REVOKED)})
    with pytest.raises(PolicyViolation):
        cloud.source.fetch()
    assert cloud.revocation.is_revoked
    for ask in (cloud.source.fetch, cloud.poll):
        with pytest.raises(PolicyViolation, match="revoked"):
            ask()
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [(400, GRANT_REFUSED), (403, {"type": "about:blank"}), (403, b"no"), (500, REVOKED)])
def test_another_refusal_is_no_revocation(serve: Serve, answer: web.Answer) -> None:
    """A clock that is wrong, a proxy, a cloud in trouble: calls are recorded on."""
    cloud, _ = serve({"/v1/token": answer})
    with pytest.raises(DualtoneError):
        cloud.source.fetch()
    assert not cloud.revocation.is_revoked


def test_what_aws_denies_makes_it_ask_at_once(serve: Serve) -> None:
    """The explicit deny on its tag: at the next request the token endpoint says why. Time is the test's."""
    table: dict[str, web.Answer] = {"/v1/token": (200, _token(NOW)), "/1/commands": (403, DENIED), "/": (403, DENIED)}
    cloud, server = serve(table)
    with pytest.raises(PolicyViolation):
        cloud.poll()
    asked = [path for path, _, _ in server.requests].count("/v1/token")
    cloud.now += 1.0
    serve({"/v1/token": (403, REVOKED)})
    with pytest.raises(PolicyViolation):
        cloud.poll()
    assert ([path for path, _, _ in server.requests].count("/v1/token"), asked) == (2, 1)
    assert cloud.revocation.is_revoked


def test_a_deny_for_another_reason_floods_no_token_endpoint(serve: Serve) -> None:
    """Asked again after half a minute, not at every request."""
    table: dict[str, web.Answer] = {"/v1/token": (200, _token(NOW)), "/1/commands": (403, DENIED), "/": (403, DENIED)}
    cloud, server = serve(table)
    for _ in range(20):
        cloud.now += 1.0
        with pytest.raises(PolicyViolation):
            cloud.poll()
    assert [path for path, _, _ in server.requests].count("/v1/token") == 2
    assert not cloud.revocation.is_revoked


def _word(agent: str = AGENT) -> str:
    word = Revoked(id="0" * 26, tenant=TENANT, agent=agent, issued_at_ms=int(NOW * 1000))
    return json.dumps(word.sealed_by(CLOUD).to_json())


def test_the_word_in_the_queue_is_believed_by_its_signature(tmp_path: Path) -> None:
    """For this agent and signed by the pinned key; another agent's, or one that was changed, is an alarm."""
    agent = Agent(tmp_path)
    assert agent.commands.act(_word(OTHER)) == "rejected"
    assert agent.commands.act(_word().replace('"signature": "', '"signature": "A')) == "rejected"
    assert agent.revoked == []
    assert agent.commands.act(_word()) == "revoked"
    assert agent.revoked == [AGENT]


def test_new_calls_are_refused_from_then_on(tmp_path: Path) -> None:
    """With the reason in a word, whatever room there is; those in progress are not asked about."""
    revocation = Revocation(tmp_path, AGENT, Lines().log)
    admission = Admission(Capacity(), lambda: 0)
    revocation.subscribe(lambda: admission.close("revoked"))
    assert admission.refusal(0.0) is None
    revocation.learn()
    assert admission.refusal(0.0) == "revoked"
