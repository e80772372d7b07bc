"""Enrolment: one code, one key, and both sides know whom they speak to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dualtone.domain import enrolment_code
from dualtone.domain.errors import IntegrityError, MalformedInput, PolicyViolation, Unavailable
from sbc_agent.runtime.cloud_api import CloudApi, Refused
from sbc_agent.runtime.enrolment import EnrolmentCode, enrol
from sbc_agent.runtime.identity import AgentKey, Identity
from tests.agent.runtime import web
from tests.agent.runtime.spooled import AGENT, CloudKey

CLOUD = CloudKey()
CODE = enrolment_code.make(b"s" * 16, CLOUD.der)


def run(url: str, state_dir: Path, code: str = CODE, *, replace: bool = False) -> Identity:
    return enrol(
        CloudApi(), base=url, code=EnrolmentCode.parse(code), name="rec-1", state_dir=state_dir, replace=replace
    )


def test_a_code_makes_an_agent(tmp_path: Path) -> None:
    """The public half of a key made here goes up with the code; key and identity stay, for this user alone."""
    state = tmp_path / "state"
    with web.serving(lambda *_: (200, CLOUD.enrolment())) as server:
        identity = run(server.url, state, code=f"  {CODE.lower()}\n")
    ((path, _, body),) = server.requests
    sent = json.loads(body)
    assert path == "/v1/agents/enrol"
    assert (sent["code"], sent["name"]) == (CODE, "rec-1")
    assert "PRIVATE" not in body
    key = AgentKey.load(state, AGENT)
    assert load_pem_public_key(sent["public_key"].encode()) == key.private_key.public_key()
    assert Identity.load(state) == identity
    assert identity.api == server.url
    assert [(state / name).stat().st_mode & 0o777 for name in ("agent.key", "identity.json")] == [0o600, 0o600]
    assert state.stat().st_mode & 0o777 == 0o700


def test_another_cloud_than_the_codes_is_found_out(tmp_path: Path) -> None:
    """A server that answers in the cloud's place cannot have its key, and nothing is kept of what it said."""
    impostor = CloudKey()
    refused = pytest.raises(IntegrityError, match="not the one that issued the code")
    with web.serving(lambda *_: (200, impostor.enrolment())) as server, refused:
        run(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_ingest_key_of_another_signer_is_found_out(tmp_path: Path) -> None:
    """The ingest key must be signed by the very key that the code names."""
    answer = CLOUD.enrolment(ingest_key=CloudKey().ingest_key())
    with web.serving(lambda *_: (200, answer)) as server, pytest.raises(IntegrityError, match="does not verify"):
        run(server.url, tmp_path)


def test_an_ingest_key_of_another_tenant_is_found_out(tmp_path: Path) -> None:
    """And it must be this tenant's."""
    answer = CLOUD.enrolment(ingest_key=CLOUD.ingest_key(tenant="globex"))
    with web.serving(lambda *_: (200, answer)) as server, pytest.raises(IntegrityError, match="another tenant"):
        run(server.url, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"agent_id": "x"},
        {"tenant": ""},
        {"prefix": "globex/x/"},
        {"signing_public_key": "x"},
        {"ingest_key": None},
        {"ingest_key": {"kind": "ingest-key"}},
        {"token_url": 5},
    ],
)
def test_an_answer_of_another_form_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """What is missing or misshapen is named and nothing is written."""
    with web.serving(lambda *_: (200, CLOUD.enrolment(**changes))) as server, pytest.raises(MalformedInput):
        run(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_used_code_is_told_as_the_api_tells_it(tmp_path: Path) -> None:
    """The API's own words reach the user."""
    refused = pytest.raises(Refused, match="unknown, used or expired")
    with web.serving(lambda *_: (403, {"detail": "unknown, used or expired"})) as server, refused:
        run(server.url, tmp_path)


def test_no_answer_leaves_nothing_behind(tmp_path: Path) -> None:
    """An agent is enrolled wholly or not at all."""
    with pytest.raises(Unavailable):
        run("http://127.0.0.1:1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_enrolled_agent_is_not_enrolled_again_by_accident(tmp_path: Path) -> None:
    """Only --replace gives up an identity; then key and identity are new."""
    with web.serving(lambda *_: (200, CLOUD.enrolment())) as server:
        run(server.url, tmp_path)
        before = (tmp_path / "agent.key").read_bytes()
        with pytest.raises(PolicyViolation, match="--replace"):
            run(server.url, tmp_path)
        assert (tmp_path / "agent.key").read_bytes() == before
        run(server.url, tmp_path, replace=True)
        assert (tmp_path / "agent.key").read_bytes() != before


@pytest.mark.parametrize(
    "text", ["", "DT1-ABC", CODE[:-1], CODE + "A", CODE.replace("DT1", "DT2"), "1" * 47], ids=range(6)
)
def test_a_mistyped_code_is_told_without_repeating_it(text: str) -> None:
    """The message says what a code looks like and does not show the code."""
    with pytest.raises(MalformedInput, match="copy it whole") as caught:
        EnrolmentCode.parse(text)
    assert not text or text not in str(caught.value)
