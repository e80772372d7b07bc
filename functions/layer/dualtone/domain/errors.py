"""The one family of errors, named by what the caller does about them."""

from __future__ import annotations


class DualtoneError(Exception):
    """Root of every error that Dualtone raises on purpose. Messages never hold personal data, keys or audio."""


class MalformedInput(DualtoneError):  # noqa: N818 - named for what happened, as h11 and RFC 3261 do
    """Bytes or values from outside that do not have the form they must have; the sender is at fault.

    Attributes:
        sip_status: The SIP status with which a request of that form is answered.
        http_status: The HTTP status with which a request of that form is answered.
    """

    def __init__(self, message: str, *, sip_status: int = 400, http_status: int = 400) -> None:
        super().__init__(message)
        self.sip_status = sip_status
        self.http_status = http_status


class IntegrityError(DualtoneError):
    """Something that was sealed, signed or hashed does not verify: never retried, always alarmed."""


class PolicyViolation(DualtoneError):  # noqa: N818 - a refusal, not a fault of the program
    """A rule forbids what was asked; asking again changes nothing."""


class NotFound(DualtoneError):  # noqa: N818 - the word of HTTP and of every store
    """No such thing, or none that this tenant may know of: the two are not told apart."""


class Unavailable(DualtoneError):  # noqa: N818 - the word of HTTP 503
    """A dependency did not answer or is throttled: the caller tries again later."""
