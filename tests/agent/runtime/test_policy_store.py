"""The policy in force on an agent: what is believed, what is kept, and that no older one comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dualtone.domain.ids import AgentId, TenantId
from dualtone.domain.recording_policy import RecordingPolicy
from dualtone.domain.signing import Envelope
from sbc_agent.media.seal import AgentKey
from sbc_agent.runtime.policy_store import POLICY_FILE, PolicyStore
from tests.agent.runtime.ruled import rule
from tests.agent.runtime.spooled import TENANT, Lines

CLOUD = AgentKey(AgentId("agt_01HZX3Q8W0ABCDEFGHJKMNPQRS"), ec.generate_private_key(ec.SECP256R1()))
IMPOSTOR = AgentKey(CLOUD.key_id, ec.generate_private_key(ec.SECP256R1()))


def signed(version: int, *, tenant: str = TENANT, key: AgentKey = CLOUD) -> dict[str, str]:
    return RecordingPolicy(tenant, version, 1, (rule("never", id=f"v{version}"),)).sealed_by(key).to_json()


def store(directory: Path, lines: Lines | None = None, tenant: TenantId = TENANT) -> PolicyStore:
    lines = lines or Lines()
    return PolicyStore(directory, tenant=tenant, signing_key_der=CLOUD.public_key_der, log=lines.log)


def events(lines: Lines) -> list[object]:
    return [line["event"] for line in lines.events()]


def in_force(found: PolicyStore) -> int:
    return 0 if found.policy is None else found.policy.version


def test_a_policy_survives_a_restart_without_an_uplink(tmp_path: Path) -> None:
    """It is kept as the cloud signed it, for this user alone, and verified again when it is read."""
    assert in_force(store(tmp_path)) == 0
    assert store(tmp_path).learn(signed(1))
    again = store(tmp_path)
    assert in_force(again) == 1
    assert again.policy is not None
    assert again.policy.rules[0].id == "v1"
    assert (tmp_path / POLICY_FILE).stat().st_mode & 0o777 == 0o600


def test_versions_only_grow(tmp_path: Path) -> None:
    """An older one is refused and told, the same one is no news, and none at all takes none away."""
    lines = Lines()
    found = store(tmp_path, lines)
    assert [found.learn(envelope) for envelope in (signed(5), signed(4), signed(5), None, signed(6))] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert events(lines) == ["policy_taken", "policy_refused", "policy_taken"]
    assert in_force(store(tmp_path)) == 6
    assert not store(tmp_path).learn(signed(5)), "nor after a restart"


BAD = {
    "another key": signed(9, key=IMPOSTOR),
    "another tenant": signed(9, tenant="globex"),
    "another kind": Envelope.sealed_by(CLOUD, "command", b"{}").to_json(),
    "no policy": Envelope.sealed_by(CLOUD, "recording-policy", b"{}").to_json(),
    "no envelope": {"kind": "recording-policy"},
    "no object": ["x"],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_signed_for_this_tenant_is_refused(tmp_path: Path, name: str) -> None:
    lines = Lines()
    found = store(tmp_path, lines)
    found.learn(signed(1))
    assert not found.learn(BAD[name])
    assert in_force(found) == 1
    assert events(lines)[-1] == "policy_refused"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", json.dumps(signed(2, key=IMPOSTOR)).encode(), b" " * (1 << 20)], ids=range(5)
)
def test_a_file_that_was_altered_is_not_obeyed(tmp_path: Path, data: bytes) -> None:
    """The built-in rule holds until the cloud tells the policy anew: every call is recorded."""
    (tmp_path / POLICY_FILE).write_bytes(data)
    lines = Lines()
    found = store(tmp_path, lines)
    assert in_force(found) == 0
    assert events(lines) == ["policy_refused"]
    assert found.learn(signed(1))


def test_a_disk_that_refuses_keeps_it_from_later_runs_only(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).mkdir()
    lines = Lines()
    found = store(tmp_path, lines)
    assert found.learn(signed(1))
    assert in_force(found) == 1
    assert events(lines) == ["policy_unread", "policy_not_kept", "policy_taken"]
