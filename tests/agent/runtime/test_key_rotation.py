"""The agent's next key: in time, by itself, and whole after a crash or a lost answer. Time is the test's."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from dualtone.domain import agent_assertion, canonical
from dualtone.domain.errors import IntegrityError, PolicyViolation
from dualtone.domain.ids import AgentId
from dualtone.domain.signing import Envelope
from sbc_agent.runtime import key_rotation
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.credentials import TokenSource
from sbc_agent.runtime.identity import AgentKey
from sbc_agent.runtime.key_rotation import NEXT_FILE, KeyRotation
from sbc_agent.runtime.revocation import Revocation
from tests.agent.runtime import web
from tests.agent.runtime.spooled import AGENT, CloudKey, Lines

NOW = 1_800_000_000.0
DAY_S = 86_400
REFUSED = {"type": "urn:dualtone:problem:grant-refused", "title": "The grant was not accepted", "status": 400}


@dataclass
class Cloud:
    """Knows one key of the agent, gives credentials to it alone, and takes its next one by the rules of the endpoint.

    Attributes:
        known: The key that it knows, PEM.
        loses: Whether answers about keys are lost on their way.
        revoked: Whether the agent is revoked, as it tells whoever signs with the key that it knows.
        down: Whether it takes no key at the moment.
        retired: Keys that it knew before.
    """

    known: str
    url: str = ""
    loses: bool = False
    down: bool = False
    revoked: bool = False
    retired: list[str] = field(default_factory=list)

    def answer(self, path: str, body: str) -> web.Answer:
        if path == "/v1/token":
            (signed,) = parse_qs(body)["assertion"]
            try:
                self._verified(signed, path)
            except IntegrityError:
                return 400, REFUSED
            if self.revoked:
                return 403, REFUSED | {"type": "urn:dualtone:problem:agent-revoked"}
            ends = datetime.fromtimestamp(NOW + 900, UTC).isoformat()
            return 200, {"access_key_id": "A", "secret_access_key": "s", "session_token": "t", "expires_at": ends}
        if self.down:
            return 503, {}
        request = json.loads(body)
        verified = self._verified(request["assertion"], path)
        der = agent_assertion.public_key(request["public_key"])
        next_der = der.public_bytes(agent_assertion._DER, agent_assertion._SPKI)
        assert verified.next_key_sha256
        proof = Envelope.from_json(request["proof"]).verified(next_der, "agent-key")
        assert canonical.decode(proof) == {"agent": AGENT, "jti": verified.jti}
        self.retired.append(self.known)
        self.known = request["public_key"]
        return (502, {}) if self.loses else (200, {"agent_id": AGENT})

    def _verified(self, signed: str, path: str) -> agent_assertion.Assertion:
        return agent_assertion.verify(
            signed, self.known, agent=AgentId(AGENT), audience=self.url + path, now_s=int(NOW)
        )


@dataclass
class Run:
    """One run of an agent over a state directory."""

    cloud: Cloud
    state_dir: Path
    every_days: int = 90
    lines: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        self.key = AgentKey.load(self.state_dir, AGENT)
        log = self.lines.log
        identity = CloudKey().identity(token_url=f"{self.cloud.url}/v1/token")
        self.source = TokenSource(
            api=CloudApi(),
            key=self.key,
            identity=identity,
            state_dir=self.state_dir,
            log=log,
            revocation=Revocation(self.state_dir, AGENT, log),
            clock=lambda: NOW,
            rotation=KeyRotation(
                api=CloudApi(),
                key=self.key,
                token_url=identity.token_url,
                state_dir=self.state_dir,
                every_days=self.every_days,
                log=log,
                clock=lambda: NOW,
            ),
        )

    @property
    def on_disk(self) -> str:
        return AgentKey.load(self.state_dir).public_pem()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A cloud that knows the key which lies in the state directory and is a hundred days old."""
    key = AgentKey.generate()
    key.save(tmp_path)
    _age(tmp_path, 100)
    made = Cloud(key.public_pem())
    with web.serving(made.answer) as server:
        made.url = server.url
        yield made


def _age(state_dir: Path, days: int) -> None:
    os.utime(state_dir / "agent.key", (NOW - days * DAY_S,) * 2)


def test_an_old_key_gives_way_to_the_next(cloud: Cloud, tmp_path: Path) -> None:
    """In memory and on disk, for the agent alone; the key id stays; the next token needs nothing more."""
    run, before = Run(cloud, tmp_path), cloud.known
    run.source.fetch()
    assert cloud.retired == [before]
    assert run.key.public_pem() == run.on_disk == cloud.known != before
    assert run.key.key_id == AGENT
    assert (tmp_path / "agent.key").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / NEXT_FILE).exists()
    assert len(run.lines.named("agent_key_rotated")) == 1
    _age(tmp_path, 1)
    run.source.fetch()
    assert len(cloud.retired) == 1


@pytest.mark.parametrize(("days", "every_days"), [(89, 90), (100, 0), (-5, 90)])
def test_a_key_that_is_young_or_stays_for_ever_is_left_alone(
    cloud: Cloud, tmp_path: Path, days: int, every_days: int
) -> None:
    """Also one of a clock that has stepped back."""
    _age(tmp_path, days)
    Run(cloud, tmp_path, every_days).source.fetch()
    assert cloud.retired == []


def test_a_cloud_that_takes_no_key_is_asked_again_with_the_same(cloud: Cloud, tmp_path: Path) -> None:
    """Credentials are had all the same; no second key is drawn."""
    cloud.down = True
    run = Run(cloud, tmp_path)
    run.source.fetch()
    waiting = (tmp_path / NEXT_FILE).read_bytes()
    run.source.fetch()
    assert (tmp_path / NEXT_FILE).read_bytes() == waiting
    assert (tmp_path / NEXT_FILE).stat().st_mode & 0o777 == 0o600
    cloud.down = False
    run.source.fetch()
    assert AgentKey.load(tmp_path).private_pem() == waiting
    assert run.on_disk == cloud.known


def test_an_answer_that_is_lost_is_found_out_at_the_next_token(cloud: Cloud, tmp_path: Path) -> None:
    """By this run, and by one after a crash: the cloud knows the next key, the agent has both."""
    cloud.loses = True
    Run(cloud, tmp_path).source.fetch()
    assert cloud.known != AgentKey.load(tmp_path).public_pem()
    again = Run(replace(cloud, loses=False), tmp_path)
    again.source.fetch()
    assert again.key.public_pem() == again.on_disk == cloud.known
    assert not (tmp_path / NEXT_FILE).exists()


def test_an_agent_whose_keys_are_both_refused_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    """Nothing is thrown away: people decide."""
    AgentKey.generate().save(tmp_path, NEXT_FILE)
    cloud.known = AgentKey.generate().public_pem()
    with pytest.raises(PolicyViolation):
        Run(cloud, tmp_path).source.fetch()
    assert (tmp_path / NEXT_FILE).exists()


class Killed(BaseException):
    """The process ends here: nothing catches it."""


def _around(do: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """A step, and the end of the process just before or just after it."""

    def step(*arguments: Any, **named: Any) -> None:
        if not before:
            do(*arguments, **named)
        raise Killed

    return step


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("where", "step"),
    [
        (AgentKey, "save"),
        (CloudApi, "post_json"),
        (AgentKey, "become"),
        (Path, "rename"),
        (key_rotation, "sync_directory"),
    ],
)
def test_a_kill_at_any_step_costs_no_key(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, step: str, *, before: bool
) -> None:
    """The next run has credentials at its first token, and at its second the one key that the cloud knows."""
    run = Run(cloud, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(where, step, _around(getattr(where, step), before=before))
        with pytest.raises(Killed):
            run.source.fetch()
    again = Run(cloud, tmp_path)
    for _ in range(2):
        again.source.fetch()
    assert again.key.public_pem() == again.on_disk == cloud.known
    assert len(cloud.retired) == 1
    assert not (tmp_path / NEXT_FILE).exists()


def test_a_disk_that_refuses_the_next_key_its_place_costs_no_credentials(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm; this run signs with the key that the cloud knows, and puts its file in place when the disk lets it."""
    rename = Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path.name == NEXT_FILE:
            raise OSError(errno.EIO, "no")
        return rename(path, to)

    run = Run(cloud, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        for _ in range(2):
            run.source.fetch()
        assert run.key.public_pem() == cloud.known != run.on_disk
        Run(cloud, tmp_path).source.fetch()
    assert run.lines.named("agent_key_not_kept")
    run.source.fetch()
    assert run.key.public_pem() == run.on_disk == cloud.known
    assert len(cloud.retired) == 1


def test_a_revocation_is_learnt_by_the_next_key_too(cloud: Cloud, tmp_path: Path) -> None:
    """The answer about the next key was lost, and then the agent was revoked: the cloud says so to that key alone."""
    cloud.loses = True
    run = Run(cloud, tmp_path)
    run.source.fetch()
    cloud.revoked = True
    with pytest.raises(PolicyViolation):
        run.source.fetch()
    assert Revocation(tmp_path, AGENT, Lines().log).is_revoked
