"""AWS requests signed by true time: a machine with a wrong clock is refused by AWS when it signs by its own.

REQ: AWS Signature Version 4: a request whose time is more than five minutes (SQS) or fifteen (S3) off is refused.
botocore signs by the wall clock and corrects nothing. The signers below are botocore's own; only the time is another.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import botocore.session
from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

_NOW_S: Final = "dualtone_now_s"
_SIGNER: Final = "dualtone-v4"
_S3_SIGNER: Final = "dualtone-s3v4"


class TimedSigV4Auth(SigV4Auth):
    """Signature Version 4 by the clock of the request's session."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        _set_time(request)
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # the stubs leave it out


class TimedS3SigV4Auth(S3SigV4Auth):
    """The same in S3's dialect."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        _set_time(request)
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # the stubs leave it out


AUTH_TYPE_MAPS[_SIGNER] = TimedSigV4Auth
AUTH_TYPE_MAPS[_S3_SIGNER] = TimedS3SigV4Auth


def sign_by(session: botocore.session.Session, clock: Callable[[], float]) -> None:
    """Makes all clients of a session sign by a clock.

    Args:
        session: The session; clients that it made before are not changed.
        clock: Unix time in seconds.
    """

    def choose(signing_name: str, context: dict[str, Any], **_: object) -> str:
        context[_NOW_S] = clock()
        return _S3_SIGNER if signing_name == "s3" else _SIGNER

    session.get_component("event_emitter").register_first("choose-signer", choose)


def _set_time(request: AWSRequest) -> None:
    now = datetime.fromtimestamp(request.context[_NOW_S], UTC)
    request.context["timestamp"] = now.strftime(SIGV4_TIMESTAMP)
