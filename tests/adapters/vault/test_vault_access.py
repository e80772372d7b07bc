"""Sessions at the custodians: one per tenant, tagged, and never kept beyond their time."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from dualtone.adapters.vault_access import VaultAccess, kms_client_maker
from dualtone.domain.kek import KeyScope
from tests.adapters.vault.conftest import REGION, Aws
from tests.vault_samples import ACME, GLOBEX, RECORDING

ROLE = "arn:aws:iam::123456789012:role/vault-access"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def assumed(aws: Aws) -> list[dict[str, Any]]:
    """The parameters of every AssumeRole."""
    calls: list[dict[str, Any]] = []
    aws.sts.meta.events.register("provide-client-params.sts.AssumeRole", lambda params, **_: calls.append(dict(params)))
    return calls


def access_of(aws: Aws, clock: Clock) -> VaultAccess:
    return VaultAccess(aws.sts, ROLE, kms_client_maker(boto3.Session(region_name=REGION).client), clock)


def test_a_session_carries_its_tenant_as_a_tag(aws: Aws, assumed: list[dict[str, Any]]) -> None:
    """What the key policies compare with the EncryptionContext is the session's tag, and nothing else is in it."""
    access_of(aws, Clock()).custody(ACME)
    assert assumed == [
        {
            "RoleArn": ROLE,
            "RoleSessionName": "vault-acme",
            "DurationSeconds": 900,
            "Tags": [{"Key": "tenant", "Value": "acme"}],
        }
    ]


def test_tenants_never_share_a_session(aws: Aws, assumed: list[dict[str, Any]]) -> None:
    """Each tenant has its own credentials, kept while they are fresh."""
    access = access_of(aws, Clock())
    acme, globex = access.custody(ACME), access.custody(GLOBEX)
    assert acme is not globex
    assert access.custody(ACME) is acme
    assert access.custody(GLOBEX) is globex
    assert [call["Tags"][0]["Value"] for call in assumed] == ["acme", "globex"]


def test_a_session_is_renewed_before_it_ends(aws: Aws, assumed: list[dict[str, Any]]) -> None:
    """Credentials of fifteen minutes are used for fourteen."""
    clock = Clock()
    access = access_of(aws, clock)
    first = access.custody(ACME)
    clock.now_s += 839.9
    assert access.custody(ACME) is first
    clock.now_s += 0.1
    assert access.custody(ACME) is not first
    assert len(assumed) == 2


def test_the_session_reaches_kms(aws: Aws) -> None:
    """Its KMS client works with the assumed credentials."""
    kms = access_of(aws, Clock()).custody(ACME)
    context = KeyScope(ACME, RECORDING).context("A")
    plain, wrapped = kms.generate_data_key(aws.custodian_a, context)
    assert kms.decrypt(aws.custodian_a, wrapped, context) == plain
