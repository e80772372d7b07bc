"""Responses to requests. Pure; standard: RFC 3261 sections 8.2.6, 12.1.1 and 18.2."""

from collections.abc import Iterable
from typing import Final

from sbc_agent.protocol import via as vias
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.grammar import split
from sbc_agent.protocol.message import Request, Response, response

REASONS: Final = {
    100: "Trying",
    200: "OK",
    400: "Bad Request",
    405: "Method Not Allowed",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Internal Error",
    503: "Service Unavailable",
    505: "Version Not Supported",
    513: "Message Too Large",
}

ALLOW: Final = ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO")
ACCEPT: Final = ("Accept", "application/sdp, application/rs-metadata, application/rs-metadata+xml, multipart/mixed")


def build(
    asked: Request,
    status: int,
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    flow: Flow,
) -> Response:
    """A response to a request.

    Args:
        asked: the request.
        status: the status code; its reason phrase is the standard's.
        to_tag: added to To if that has none; "" adds nothing.
        headers: further headers.
        body: a body, whose Content-Type is among `headers`.
        flow: where the request came from, noted in the top Via.

    Returns:
        The response.

    Raises:
        MalformedInput: the request's Via cannot be read.
    """
    copied = [("Via", value) for value in _noted_vias(asked, flow)]
    copied += [("Record-Route", value) for value in asked.all("record-route") if status != 100]  # noqa: PLR2004 - Trying
    copied.append(("From", asked.required("from")))
    copied.append(("To", with_tag(asked.required("to"), "" if status == 100 else to_tag)))  # noqa: PLR2004 - Trying
    copied.append(("Call-ID", asked.required("call-id")))
    copied.append(("CSeq", asked.required("cseq")))
    if status == 100 and (timestamp := asked.header("timestamp")):  # noqa: PLR2004 - REQ: RFC 3261 section 8.2.6.1
        copied.append(("Timestamp", timestamp))
    return response(status, REASONS[status], [*copied, *headers], body)


def destination(asked: Request, flow: Flow) -> HostPort:
    """Where a response goes if not over the request's connection.

    REQ: RFC 3261 section 18.2.2 and RFC 3581 section 4: the source address, at the port of rport, else of sent-by.
    `maddr` is not followed: it would let a stranger point our answers at anyone.

    Raises:
        MalformedInput: the request's Via cannot be read.
    """
    top = split(asked.required("via"), ",")[0]
    return flow.remote[0], vias.parse(vias.received_from(top, *flow.remote)).response_port()


def with_tag(to: str, tag: str) -> str:
    """A To value with a tag added if it has none."""
    has_tag = any(piece.lower().startswith("tag=") for piece in split(to, ";")[1:])
    return to if has_tag or not tag else f"{to};tag={tag}"


def _noted_vias(asked: Request, flow: Flow) -> list[str]:
    """All Via values as received, the source address noted in the first (section 18.2.1)."""
    first, *others = asked.all("via")
    top, *rest = split(first, ",")
    return [", ".join([vias.received_from(top, *flow.remote), *rest]), *others]
