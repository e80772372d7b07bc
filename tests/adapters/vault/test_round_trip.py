"""A recording through the real adapters: sealed, stored, locked, opened by range, and refused to anyone else."""

from __future__ import annotations

import time
from dataclasses import replace

import boto3
import pytest

from dualtone.adapters.key_store import KeyStore
from dualtone.adapters.kms import Kms, KmsSigner, TrustedSigningKeys
from dualtone.adapters.vault_access import VaultAccess, kms_client_maker
from dualtone.adapters.vault_store import VaultStore
from dualtone.domain import signing, vault_manifest, vault_verifier
from dualtone.domain.errors import IntegrityError, NotFound, PolicyViolation
from dualtone.domain.kek import KeyScope
from dualtone.usecases import wrap_keys
from dualtone.usecases.open_recording import OpenRecording
from tests.adapters.vault.conftest import BUCKET, REGION, TABLE, Aws
from tests.vault_samples import ACME, GLOBEX, HEADER_PAGES, RECORDING, Row, pages_of, sealed

PAGES = pages_of(30, body_bytes=400, last_bytes=100)
FILE = HEADER_PAGES + b"".join(PAGES)
SEALED = sealed(PAGES)


@pytest.fixture
def row(aws: Aws) -> Row:
    """The recording as the finaliser leaves it: object, keys, signature."""
    kms, store, keys = Kms(aws.kms), VaultStore(aws.s3, BUCKET), KeyStore(aws.dynamodb, TABLE)
    version = store.put(SEALED.vault_key, SEALED.data, SEALED.sha256)
    item = wrap_keys.wrap(
        access(aws).custody(ACME),
        nodes=SEALED.nodes,
        scope=KeyScope(ACME, RECORDING),
        key_a=aws.custodian_a,
        key_b=aws.custodian_b,
        nonce=bytes(12),
        created_at_ms=0,
    )
    aws.dynamodb.transact_write_items(TransactItems=[keys.transact_put(ACME, RECORDING, 1, item)])
    envelope = signing.Envelope.sealed_by(KmsSigner(kms, aws.signing), vault_manifest.KIND, SEALED.manifest_payload)
    return Row(
        ACME, RECORDING, 1, 30_000, SEALED.vault_key, version, envelope.payload, envelope.signature, envelope.key_id
    )


def access(aws: Aws) -> VaultAccess:
    make = kms_client_maker(boto3.Session(region_name=REGION).client)
    return VaultAccess(aws.sts, "arn:aws:iam::123456789012:role/vault-access", make, time.monotonic)


def opener(aws: Aws) -> OpenRecording:
    return OpenRecording(
        VaultStore(aws.s3, BUCKET),
        KeyStore(aws.dynamodb, TABLE),
        access(aws),
        TrustedSigningKeys(Kms(aws.kms), frozenset({aws.signing})),
    )


def test_it_opens_by_range(aws: Aws, row: Row) -> None:
    """The whole file, and a few seconds of it by one ranged GET."""
    opening = opener(aws)
    assert opening.read(row, 0, len(FILE) - 1) == FILE
    ranges: list[str] = []
    aws.s3.meta.events.register(
        "provide-client-params.s3.GetObject", lambda params, **_: ranges.append(params["Range"])
    )
    offsets = opening.layout(row).page_offsets
    assert opening.read(row, offsets[10], offsets[13] - 1) == b"".join(PAGES[10:13])
    head = SEALED.manifest.header_size_bytes
    size = len(PAGES[0]) + 48
    assert ranges == [f"bytes={head + 10 * size}-{head + 13 * size - 1}"]


def test_it_verifies_with_the_public_key_alone(aws: Aws, row: Row) -> None:
    """What KMS signed, anyone can check."""
    vault_verifier.verify_object(
        VaultStore(aws.s3, BUCKET).get_range(row.vault_key, row.vault_version_id, 0, len(SEALED.data)),
        row.manifest,
        row.manifest_signature,
        Kms(aws.kms).public_key_der(aws.signing),
        tenant=ACME,
        recording=RECORDING,
    )


def test_another_tenant_finds_no_keys(aws: Aws, row: Row) -> None:
    """Neither by asking for the row, nor with the item copied under the other tenant's name."""
    with pytest.raises(IntegrityError, match="swapped"):
        opener(aws).read(replace(row, tenant=GLOBEX), 0, len(FILE) - 1)
    with pytest.raises(NotFound):
        KeyStore(aws.dynamodb, TABLE).load(GLOBEX, RECORDING, 1)
    item = KeyStore(aws.dynamodb, TABLE).load(ACME, RECORDING, 1)
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(access(aws).custody(GLOBEX), item, KeyScope(GLOBEX, RECORDING))


@pytest.mark.parametrize("custodian", ["A", "B"])
def test_either_custodian_alone_stops_it(aws: Aws, row: Row, custodian: str) -> None:
    """Whoever disables one key makes every recording unreadable; the head can still be read."""
    key = {"A": aws.custodian_a, "B": aws.custodian_b}[custodian]
    aws.kms.disable_key(KeyId=key.rpartition("/")[2])
    opening = opener(aws)
    assert opening.layout(row).total_bytes == len(FILE)
    with pytest.raises(PolicyViolation):
        opening.read(row, 0, len(FILE) - 1)


def test_an_overwritten_object_is_not_what_is_played(aws: Aws, row: Row) -> None:
    """A newer version under the same name changes nothing: the committed version is read."""
    aws.s3.put_object(Bucket=BUCKET, Key=row.vault_key, Body=b"forged")
    assert opener(aws).read(row, 0, len(FILE) - 1) == FILE
    aws.s3.delete_object(Bucket=BUCKET, Key=row.vault_key)
    assert opener(aws).read(row, 0, len(FILE) - 1) == FILE
