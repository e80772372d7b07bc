"""What AWS's errors mean to the caller."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from dualtone.adapters.aws_errors import error_code, translated
from dualtone.domain.errors import DualtoneError, IntegrityError, NotFound, PolicyViolation, Unavailable


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "secret detail"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Operation",
    )


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ThrottlingException", Unavailable),
        ("SlowDown", Unavailable),
        ("ProvisionedThroughputExceededException", Unavailable),
        ("InvalidCiphertextException", IntegrityError),
        ("IncorrectKeyException", IntegrityError),
        ("BadDigest", IntegrityError),
        ("NotFoundException", NotFound),
        ("NoSuchVersion", NotFound),
        ("AccessDenied", PolicyViolation),
        ("AccessDeniedException", PolicyViolation),
        ("DisabledException", PolicyViolation),
        ("KMSInvalidStateException", PolicyViolation),
    ],
)
def test_error_codes(code: str, meaning: type[DualtoneError]) -> None:
    """Each code has one meaning; the message names action and code, never AWS's own words."""
    with pytest.raises(meaning) as caught, translated("doing something"):
        raise client_error(code)
    assert str(caught.value) == f"doing something: {code}"


def test_a_server_error_of_any_name_is_unavailable() -> None:
    """Whatever fails with 5xx may work later."""
    with pytest.raises(Unavailable), translated("doing something"):
        raise client_error("Whatever", 503)


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://x"),
        ConnectTimeoutError(endpoint_url="http://x"),
        ReadTimeoutError(endpoint_url="http://x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_is_unavailable(error: Exception) -> None:
    """No connection, no answer in time."""
    with pytest.raises(Unavailable), translated("doing something"):
        raise error


@pytest.mark.parametrize(
    "error", [client_error("ValidationException"), ParamValidationError(report="x"), KeyError("x")]
)
def test_mistakes_of_the_program_pass_through(error: Exception) -> None:
    """What no retry and no operator can mend is a bug, and is seen as one."""
    with pytest.raises(type(error)), translated("doing something"):
        raise error


def test_the_code_of_an_error() -> None:
    """Callers that expect a certain refusal compare its code."""
    assert error_code(client_error("TransactionCanceledException")) == "TransactionCanceledException"
