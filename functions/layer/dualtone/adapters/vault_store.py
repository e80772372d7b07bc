"""The vault bucket: sealed objects, each version of them named, checked on the way in and locked once committed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dualtone.adapters.aws_errors import translated
from dualtone.domain.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONTENT_TYPE: Final = "application/octet-stream"
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class VaultStore:
    """Objects of the vault. A key without a version id is never read: what is opened is what was committed."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, data: bytes, sha256: str) -> str:
        """Stores an object, unlocked.

        Args:
            key: Its name, which carries the attempt's id.
            data: The object.
            sha256: SHA-256 of it in hexadecimal; S3 refuses other bytes.

        Returns:
            The version id.

        Raises:
            IntegrityError: If other bytes arrived.
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        with translated("storing a sealed object"):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode("ascii"),
                ContentType=_CONTENT_TYPE,
            )
        if "VersionId" not in answer:
            raise IntegrityError("the vault bucket is not versioned")
        return answer["VersionId"]

    def get_range(self, key: str, version_id: str, start: int, end: int) -> bytes:
        """Reads bytes ``start`` to ``end`` of an object's version, ``end`` not included; at least one byte.

        Raises:
            IntegrityError: If the object does not have that many bytes.
            NotFound: If there is no such version.
            Unavailable: If S3 does not answer.
        """
        if not 0 <= start < end:
            raise ValueError("a range of the vault has at least one byte")
        with translated("reading a sealed object"):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=key, VersionId=version_id, Range=f"bytes={start}-{end - 1}"
            )
            with answer["Body"] as body:
                data = body.read()
        if len(data) != end - start:
            raise IntegrityError("the sealed object is shorter than its head says")
        return data

    def lock(self, key: str, version_id: str, until_ms: int) -> None:
        """Locks a version in compliance mode, where no one can shorten or lift it. Locking again only ever extends.

        Args:
            key: The object's name.
            version_id: Its version.
            until_ms: Unix time before which it cannot be deleted; rounded up to the second.

        Raises:
            NotFound: If there is no such version.
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        until = _EPOCH + timedelta(seconds=-(-until_ms // 1000))
        with translated("locking a sealed object"):
            head = self._client.head_object(Bucket=self._bucket, Key=key, VersionId=version_id)
            locked_until = head.get("ObjectLockRetainUntilDate")
            if head.get("ObjectLockMode") == "COMPLIANCE" and locked_until is not None and locked_until >= until:
                return
            self._client.put_object_retention(
                Bucket=self._bucket,
                Key=key,
                VersionId=version_id,
                Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until},
            )

    def versions(self, key: str) -> list[str]:
        """The version ids that an object of exactly this name has; more than one if a PUT was answered too late."""
        with translated("listing a sealed object's versions"):
            answer = self._client.list_object_versions(Bucket=self._bucket, Prefix=key)
        return [version["VersionId"] for version in answer.get("Versions", []) if version["Key"] == key]

    def delete_version(self, key: str, version_id: str) -> None:
        """Deletes a version that was never committed; one that is already gone is fine.

        Raises:
            PolicyViolation: If it is locked.
            Unavailable: If S3 does not answer.
        """
        try:
            with translated("deleting a sealed object"):
                self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version_id)
        except NotFound:
            return
