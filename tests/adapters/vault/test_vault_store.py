"""The vault bucket: checked on the way in, read by version and range, locked for good."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from dualtone.adapters.vault_store import VaultStore
from dualtone.domain.errors import IntegrityError, NotFound, PolicyViolation
from tests.adapters.vault.conftest import BUCKET, Aws

KEY = "acme/rec_x/0001/attempt.dtv"
DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
TOMORROW = datetime.now(UTC) + timedelta(days=1)
TOMORROW_MS = int(TOMORROW.timestamp() * 1000)
DAY_MS = 86_400_000


def retention(aws: Aws, version: str) -> tuple[str, datetime]:
    head = aws.s3.head_object(Bucket=BUCKET, Key=KEY, VersionId=version)
    return head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]


def test_what_was_put_is_read_by_range(aws: Aws) -> None:
    """Ranges are half-open, and of the version that is named."""
    store = VaultStore(aws.s3, BUCKET)
    version = store.put(KEY, DATA, SHA256)
    newer = store.put(KEY, DATA[::-1], hashlib.sha256(DATA[::-1]).hexdigest())
    assert store.get_range(KEY, version, 0, len(DATA)) == DATA
    assert store.get_range(KEY, version, 10, 11) == DATA[10:11]
    assert store.get_range(KEY, newer, 10, 300) == DATA[::-1][10:300]
    assert sorted(store.versions(KEY)) == sorted([version, newer])
    assert store.versions("acme/rec_x") == []


def test_other_bytes_than_announced_are_refused(aws: Aws) -> None:
    """S3 compares the SHA-256 and stores nothing that differs."""
    store = VaultStore(aws.s3, BUCKET)
    with pytest.raises(IntegrityError, match="BadDigest"):
        store.put(KEY, DATA + b"\0", SHA256)
    assert store.versions(KEY) == []


def test_a_bucket_without_versions_is_no_vault(aws: Aws) -> None:
    """Without version ids nothing could be locked: the wrong bucket is noticed at once."""
    aws.s3.create_bucket(Bucket="plain", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    with pytest.raises(IntegrityError, match="versioned"):
        VaultStore(aws.s3, "plain").put(KEY, DATA, SHA256)


@pytest.mark.parametrize(("start", "end"), [(0, len(DATA) + 1), (len(DATA), len(DATA) + 1), (len(DATA) + 5, 99_999)])
def test_a_range_beyond_the_end(aws: Aws, start: int, end: int) -> None:
    """An object that is shorter than its head says was truncated."""
    store = VaultStore(aws.s3, BUCKET)
    version = store.put(KEY, DATA, SHA256)
    with pytest.raises(IntegrityError):
        store.get_range(KEY, version, start, end)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 4), (-1, 3)])
def test_a_range_of_nothing(aws: Aws, start: int, end: int) -> None:
    """An empty range is the caller's mistake: S3 would answer the whole object."""
    with pytest.raises(ValueError, match="at least one byte"):
        VaultStore(aws.s3, BUCKET).get_range(KEY, "v", start, end)


def test_what_is_not_there(aws: Aws) -> None:
    """No object, no version."""
    store = VaultStore(aws.s3, BUCKET)
    with pytest.raises(NotFound):
        store.get_range(KEY, "00000000-0000-0000-0000-000000000000", 0, 1)
    version = store.put(KEY, DATA, SHA256)
    store.delete_version(KEY, version)
    with pytest.raises(NotFound):
        store.get_range(KEY, version, 0, 1)
    with pytest.raises(NotFound):
        store.lock(KEY, version, TOMORROW_MS)
    store.delete_version(KEY, version)


def test_a_locked_version_cannot_be_deleted(aws: Aws) -> None:
    """Compliance mode, from the moment that it was committed."""
    store = VaultStore(aws.s3, BUCKET)
    version = store.put(KEY, DATA, SHA256)
    store.lock(KEY, version, TOMORROW_MS)
    mode, until = retention(aws, version)
    assert mode == "COMPLIANCE"
    assert TOMORROW <= until < TOMORROW + timedelta(seconds=1)
    with pytest.raises(PolicyViolation):
        store.delete_version(KEY, version)
    assert store.get_range(KEY, version, 0, len(DATA)) == DATA


def test_locking_again_only_extends(aws: Aws) -> None:
    """The same lock twice is one lock; a shorter one changes nothing; a longer one extends."""
    store = VaultStore(aws.s3, BUCKET)
    version = store.put(KEY, DATA, SHA256)
    store.lock(KEY, version, TOMORROW_MS)
    locked = retention(aws, version)
    store.lock(KEY, version, TOMORROW_MS)
    store.lock(KEY, version, TOMORROW_MS - DAY_MS // 2)
    assert retention(aws, version) == locked
    store.lock(KEY, version, TOMORROW_MS + DAY_MS)
    assert retention(aws, version) == ("COMPLIANCE", locked[1] + timedelta(days=1))
