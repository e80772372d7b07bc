"""The ingest bucket: what agents uploaded and nobody has taken over yet. It is not versioned: deleted is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.aws_errors import translated
from dualtone.domain.call_watch import StoredFile
from dualtone.domain.errors import MalformedInput, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_BYTES: Final = 64 * 1024 * 1024
"""Far more than any part: a minute of two streams has 1 MB. What is larger would only fill the function's memory."""

_BATCH: Final = 1000


class IngestStore:
    """Reads and deletes uploads."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        """Takes the client and the bucket's name."""
        self._client = client
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        """Reads an object.

        Raises:
            MalformedInput: If it is larger than anything that an agent writes.
            NotFound: If there is none.
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        with translated("reading an upload"):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with answer["Body"] as body:
                if answer["ContentLength"] > MOST_BYTES:
                    raise MalformedInput("an upload is too large")
                return body.read()

    def list(self, prefix: str) -> list[StoredFile]:
        """Lists what lies below a prefix, in the order of the names; of one call at most some thousand files.

        Raises:
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        found: list[StoredFile] = []
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix}
        while True:
            with translated("listing uploads"):
                answer = self._client.list_objects_v2(**request)
            for item in answer.get("Contents", []):
                arrived_ms = round(item["LastModified"].timestamp() * 1000)
                found.append(StoredFile(item["Key"].removeprefix(prefix), arrived_ms))
            if not answer.get("IsTruncated"):
                return found
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects, the last one last; one that is gone already is fine.

        Raises:
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        *others, last = keys
        with translated("deleting an upload"):
            for start in range(0, len(others), _BATCH):
                batch = others[start : start + _BATCH]
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
                if answer.get("Errors"):
                    raise Unavailable("deleting an upload: some objects are left")
            self._client.delete_object(Bucket=self._bucket, Key=last)
