"""The ingest bucket: put an object exactly once, and say in Dualtone's own errors why not.

Each object is put with ``If-None-Match: *`` and its SHA-256 as the checksum that S3 verifies, so nothing is
overwritten and nothing arrives damaged. A name that is taken, by an earlier put whose answer was lost, is compared with
what we hold: the same bytes, or the same part cut otherwise, are as good as stored. Where the agent may put and nothing
else, as the template has it, the comparison is left to the finaliser, and the answer says so.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dualtone.domain import part
from dualtone.domain.errors import IntegrityError, MalformedInput, PolicyViolation, Unavailable
from sbc_agent.runtime.transfers import PRESENT, STORED, TAKEN

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_CONNECT_TIMEOUT_S: Final = 30  # also the time for each 128 KiB of a body: four uploads share 140 kbit/s
_READ_TIMEOUT_S: Final = 60
_LONG_POLL_READ_TIMEOUT_S: Final = 40
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 412
_SERVER_ERROR: Final = 500

# Answers below 500 after which the very same request can succeed.
_PASSING: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "ExpiredToken",
        "ExpiredTokenException",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
# Answers that concern the agent, its rights or the bucket, and so every object.
_REFUSALS: Final = frozenset({400, 401, 403, 404})
_OBJECT_FAULTS: Final = frozenset(
    {"BadDigest", "EntityTooLarge", "InvalidDigest", "KeyTooLongError", "XAmzContentSHA256Mismatch"}
)

_T = TypeVar("_T")


class ObjectStore(Protocol):
    """Where sealed files go."""

    def put(self, key: str, body: bytes, sha256: bytes) -> str:
        """Puts an object that must not be there yet.

        Args:
            key: Below the agent's prefix.
            body: Its bytes.
            sha256: Their digest, 32 bytes.

        Returns:
            ``stored``; ``present`` if the same object is there already; ``taken`` if something of this name is, and the
            agent may not look.

        Raises:
            Unavailable: Later, the same may succeed.
            PolicyViolation: The agent may not put there: revoked, or the bucket is gone.
            MalformedInput: This object is refused, others need not be.
            IntegrityError: Another object has this name.
        """


class IngestBucket:
    """The agent's prefix of the ingest bucket in S3.

    Args:
        client: An S3 client; see :func:`s3_client`.
        bucket: Its name.
        prefix: The start of every key, with the closing slash.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def put(self, key: str, body: bytes, sha256: bytes) -> str:
        """Puts an object; see :class:`ObjectStore`."""
        checksum = base64.b64encode(sha256).decode("ascii")

        def request() -> str:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + key, Body=body, IfNoneMatch="*", ChecksumSHA256=checksum
            )
            return STORED

        try:
            return translated(request)
        except _Taken:
            return self._compared(key, body, checksum)

    def _compared(self, key: str, body: bytes, checksum: str) -> str:
        """Compares the object that has the name with ours, as far as the agent may look; raises IntegrityError."""
        bucket, key = self._bucket, self._prefix + key
        try:
            head = self._client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            if head.get("ChecksumSHA256") == checksum:
                return PRESENT
            found = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            status = _status(error)
            if status == _FORBIDDEN:
                return TAKEN
            if status == _NOT_FOUND:
                raise Unavailable("the object that had the name is gone") from error
            raise _meaning(error) from error
        except BotoCoreError as error:
            raise Unavailable(type(error).__name__) from error
        if found != body and not _is_same_part(found, body):
            raise IntegrityError("another object has this name in the ingest bucket")
        return PRESENT


class _Taken(Exception):  # noqa: N818 - not an error: the object is there
    """The name is taken."""


def translated(request: Callable[[], _T]) -> _T:
    """Makes a request to AWS; its errors become Dualtone's (see :class:`ObjectStore`)."""
    try:
        return request()
    except ClientError as error:
        raise _meaning(error) from error
    except BotoCoreError as error:
        raise Unavailable(type(error).__name__) from error
    except RuntimeError as error:  # botocore's own way to say that fetched credentials are already over: a wrong clock
        raise Unavailable("the credentials ended before they were used: is this machine's clock right?") from error


def reason(error: Exception) -> str:
    """Why a request did not succeed, in one word that may be logged: the service's own code, or the error's class."""
    cause = error.__cause__
    if isinstance(cause, ClientError) and (code := _code(cause)) and not code.isdigit():
        return code
    return type(cause or error).__name__


def _is_same_part(one: bytes, other: bytes) -> bool:
    """Whether two files are the same part, whatever was cut out of each: its digest does not change by that."""
    try:
        return part.read(one).digest == part.read(other).digest
    except MalformedInput:
        return False


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _meaning(error: ClientError) -> Exception:
    status, code = _status(error), _code(error)
    if status == _PRECONDITION_FAILED:
        return _Taken()
    if code in _OBJECT_FAULTS:
        return MalformedInput(f"refused with {code}")
    if status >= _SERVER_ERROR or code in _PASSING or status not in _REFUSALS:
        return Unavailable(f"answered {status} {code}")
    return PolicyViolation(f"answered {status} {code}")


def s3_client(session: botocore.session.Session, *, threads: int, endpoint_url: str | None = None) -> S3Client:
    """An S3 client for many puts of about a megabyte.

    One attempt a call: the uplink's own back-off decides when to try again. Payloads are not hashed a second time for
    the signature over https, since their checksum is signed.

    Args:
        session: With credentials and region.
        threads: How many uploads use it at once; so many connections are kept open.
        endpoint_url: Another endpoint than AWS's own (AWS_ENDPOINT_URL is honoured as well).
    """
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=threads,
        tcp_keepalive=True,
        parameter_validation=False,  # a tenth of the cost of a put; what is sent is ours alone
        s3={"payload_signing_enabled": False},
    )
    return cast("S3Client", session.create_client("s3", config=config, endpoint_url=endpoint_url))


def sqs_client(session: botocore.session.Session, *, endpoint_url: str | None = None) -> SQSClient:
    """An SQS client for long polls; parameters as :func:`s3_client`."""
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_LONG_POLL_READ_TIMEOUT_S,
        max_pool_connections=2,
        tcp_keepalive=True,
    )
    return cast("SQSClient", session.create_client("sqs", config=config, endpoint_url=endpoint_url))
