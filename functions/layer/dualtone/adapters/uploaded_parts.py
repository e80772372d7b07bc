"""The ingest bucket, for cutting: an object is replaced only as long as it is the one that was read."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from dualtone.adapters.aws_errors import error_code, translated
from dualtone.adapters.ingest_store import MOST_BYTES
from dualtone.domain.errors import MalformedInput
from dualtone.usecases.cut_paused_spans import StoredPart

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# REQ: S3 User Guide, "Conditional writes": a PUT with If-Match answers 412 if the tag is another, 404 if the object is
# gone, and 409 if it is deleted while the PUT runs.
_ANOTHER: Final = frozenset({"PreconditionFailed", "NoSuchKey", "ConditionalRequestConflict"})


class UploadedParts:
    """Reads and replaces uploads."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        """Takes the client and the bucket's name."""
        self._client = client
        self._bucket = bucket

    def names(self, prefix: str) -> list[str]:
        """The keys of all objects below a prefix.

        Raises:
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        with translated("listing uploads"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, key: str) -> StoredPart:
        """Reads an object with its entity tag.

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
                return StoredPart(body.read(), answer["ETag"])

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Replaces an object.

        Args:
            key: Its name.
            data: What takes its place.
            etag: The tag with which it was read.

        Returns:
            False if it is another one by now, or gone: then nothing is written, and nothing comes back.

        Raises:
            PolicyViolation: If the bucket refuses.
            Unavailable: If S3 does not answer.
        """
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
        with translated("replacing an upload"):
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfMatch=etag, ChecksumSHA256=checksum)
            except ClientError as error:
                if error_code(error) in _ANOTHER:
                    return False
                raise
        return True
