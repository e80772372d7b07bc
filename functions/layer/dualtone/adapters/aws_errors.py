"""What AWS's error codes mean to the caller: one table for every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore import exceptions as botocore_exceptions
from botocore.exceptions import ClientError

from dualtone.domain.errors import DualtoneError, IntegrityError, NotFound, PolicyViolation, Unavailable

_SERVER_ERROR: Final = 500

_NO_ANSWER: Final = (
    botocore_exceptions.ConnectionError,
    botocore_exceptions.HTTPClientError,
    botocore_exceptions.IncompleteReadError,
)

_BY_CODE: Final[dict[str, type[DualtoneError]]] = {
    # Sealed or hashed bytes that are not those that were sealed or hashed.
    "BadDigest": IntegrityError,
    "IncorrectKeyException": IntegrityError,
    "InvalidCiphertextException": IntegrityError,
    "InvalidDigest": IntegrityError,
    "InvalidRange": IntegrityError,
    "XAmzContentChecksumMismatch": IntegrityError,
    "XAmzContentSHA256Mismatch": IntegrityError,
    # Nothing of that name. A delete marker answers 405 to a GET of its version.
    "404": NotFound,
    "AWS.SimpleQueueService.NonExistentQueue": NotFound,
    "MethodNotAllowed": NotFound,
    "NoSuchBucket": NotFound,
    "NoSuchKey": NotFound,
    "NoSuchVersion": NotFound,
    "NotFoundException": NotFound,
    "QueueDoesNotExist": NotFound,
    "ResourceNotFoundException": NotFound,
    # A policy, a lock or a key's state says no, and will say it again.
    "403": PolicyViolation,
    "AccessDenied": PolicyViolation,
    "AccessDeniedException": PolicyViolation,
    "DisabledException": PolicyViolation,
    "KMSInvalidStateException": PolicyViolation,
    "ObjectLocked": PolicyViolation,
    # Later.
    "DependencyTimeoutException": Unavailable,
    "InternalError": Unavailable,
    "InternalServerError": Unavailable,
    "KeyUnavailableException": Unavailable,
    "KMSInternalException": Unavailable,
    "LimitExceededException": Unavailable,
    "OperationAborted": Unavailable,
    "ProvisionedThroughputExceededException": Unavailable,
    "RequestLimitExceeded": Unavailable,
    "RequestTimeout": Unavailable,
    "ServiceUnavailable": Unavailable,
    "SlowDown": Unavailable,
    "Throttling": Unavailable,
    "ThrottlingException": Unavailable,
    "TooManyRequestsException": Unavailable,
    "TransactionInProgressException": Unavailable,
}


def error_code(error: ClientError) -> str:
    """The code of an AWS error, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turns AWS's errors into ours; one that no row of the table knows, such as a ValidationException, passes through.

    Args:
        action: What is being done, for the message: no ids, no contents, for example ``unwrapping a share``.

    Raises:
        IntegrityError: AWS found that bytes are not what they should be.
        NotFound: There is no such thing.
        PolicyViolation: AWS refused.
        Unavailable: AWS did not answer, or asked for patience.
    """
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        meaning = _BY_CODE.get(code)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if meaning is None and status >= _SERVER_ERROR:
            meaning = Unavailable
        if meaning is None:
            raise
        raise meaning(f"{action}: {code}") from error
    except _NO_ANSWER as error:
        raise Unavailable(f"{action}: {type(error).__name__}") from error
