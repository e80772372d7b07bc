"""Uploads are replaced only as long as they are what was read: nothing newer is lost, nothing deleted comes back."""

from __future__ import annotations

import pytest

from dualtone.adapters.ingest_store import MOST_BYTES
from dualtone.adapters.uploaded_parts import UploadedParts
from dualtone.domain.errors import MalformedInput, NotFound
from tests.adapters.finalize.cloud import INGEST, Cloud

KEY = "acme/agt_01JD0000000000000000000000/01JD00000000000000000CA110/part-00-000000.dtp"


@pytest.fixture
def parts(cloud: Cloud) -> UploadedParts:
    cloud.s3.put_object(Bucket=INGEST, Key=KEY, Body=b"first")
    return UploadedParts(cloud.s3, INGEST)


def body(cloud: Cloud) -> bytes:
    return cloud.s3.get_object(Bucket=INGEST, Key=KEY)["Body"].read()


def test_what_was_read_is_replaced(cloud: Cloud, parts: UploadedParts) -> None:
    """Once: the tag is another then."""
    stored = parts.read(KEY)
    assert stored.data == b"first"
    assert parts.replace(KEY, b"second", stored.etag) is True
    assert parts.replace(KEY, b"third", stored.etag) is False
    assert body(cloud) == b"second"


def test_what_changed_meanwhile_stays(cloud: Cloud, parts: UploadedParts) -> None:
    """REQ: S3 User Guide, "Conditional writes": 412 PreconditionFailed."""
    stored = parts.read(KEY)
    cloud.s3.put_object(Bucket=INGEST, Key=KEY, Body=b"newer")
    assert parts.replace(KEY, b"second", stored.etag) is False
    assert body(cloud) == b"newer"


def test_what_was_deleted_meanwhile_does_not_come_back(cloud: Cloud, parts: UploadedParts) -> None:
    """REQ: S3 User Guide, "Conditional writes": 404 NoSuchKey."""
    stored = parts.read(KEY)
    cloud.s3.delete_object(Bucket=INGEST, Key=KEY)
    assert parts.replace(KEY, b"second", stored.etag) is False
    with pytest.raises(NotFound):
        parts.read(KEY)
    assert cloud.ingest_keys() == []


def test_all_names_below_a_prefix(cloud: Cloud, parts: UploadedParts) -> None:
    """Also of a call with more parts than one answer lists."""
    for number in range(1003):
        cloud.s3.put_object(Bucket=INGEST, Key=f"acme/x/{number:04d}", Body=b"")
    assert len(parts.names("acme/x/")) == 1003
    assert parts.names("acme/agt") == [KEY]
    assert parts.names("nobody/") == []


def test_what_no_agent_wrote_is_refused_unread(cloud: Cloud, parts: UploadedParts) -> None:
    """It would only fill the function's memory."""
    cloud.s3.put_object(Bucket=INGEST, Key=KEY, Body=bytes(MOST_BYTES + 1))
    with pytest.raises(MalformedInput):
        parts.read(KEY)


def test_a_bucket_that_refuses_is_told(cloud: Cloud, parts: UploadedParts) -> None:
    """It is neither another object nor none."""
    with pytest.raises(NotFound):
        UploadedParts(cloud.s3, "no-such-bucket").replace(KEY, b"second", "x")
