"""What a message carries: its session description and its recording metadata. Pure; standard: RFC 7866 section 9.

Part order is free and types are spelled in many ways (INTEROP): a part is recognised by Content-Type, then by
Content-Disposition, then by how it begins. A multipart body whose delimiters are lost is searched for both and flagged.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import content_type, multipart
from sbc_agent.protocol.message import Request, Response

FLAG_MULTIPART_MALFORMED: Final = "multipart-malformed"

_SNIFFED_BYTES: Final = 2_048
_METADATA_ROOT: Final = re.compile(rb"<(?:[\w.-]+:)?recording(?:_metadata)?[\s>/]")
_SDP_BLOCK: Final = re.compile(rb"(?:\A|\n)(v=0\r?\n(?:[a-z]=[^\r\n]*(?:\r?\n|\Z))*)")
_METADATA_BLOCK: Final = re.compile(rb"(?:<\?xml|<(?:[\w.-]+:)?recording(?:_metadata)?[\s>])")


@dataclass(frozen=True, slots=True)
class MessageBody:
    """The two things a recording session speaks of; `flags` says what was wrong."""

    sdp: bytes | None = field(default=None, repr=False)  # it may hold keys
    metadata: bytes | None = field(default=None, repr=False)
    flags: tuple[str, ...] = ()


def read(message: Request | Response) -> MessageBody:
    """Find the session description and the metadata.

    Args:
        message: any message.

    Returns:
        What was found; other parts (`application/gtd`, ...) stay in the message as received.
    """
    if not message.body.strip():
        return MessageBody()
    kind = _content_type(message.header("content-type") or "")
    if not kind.value.startswith("multipart/"):
        return _sort([(kind.value, message.header("content-disposition") or "", message.body)])
    try:
        parts = multipart.parse(message.body, kind.parameters.get("boundary", ""))
    except MalformedInput:
        return _search(message.body)
    found = _sort(
        [
            (
                _content_type(part.header("content-type") or "").value,
                part.header("content-disposition") or "",
                part.body,
            )
            for part in parts
        ]
    )
    return found if found.sdp or found.metadata else _search(message.body)


def _content_type(text: str) -> content_type.Parameterised:
    try:
        return content_type.parse(text)
    except MalformedInput:
        return content_type.Parameterised("")


def _sort(parts: list[tuple[str, str, bytes]]) -> MessageBody:
    """The first session description and the first metadata among parts of (type, disposition, octets)."""
    sdp = metadata = None
    for kind, disposition, data in parts:
        if sdp is None and (kind == "application/sdp" or (not kind and data.lstrip().startswith(b"v=0"))):
            sdp = data
        elif metadata is None and _is_metadata(kind, disposition, data):
            metadata = data
    return MessageBody(sdp, metadata)


def _is_metadata(kind: str, disposition: str, data: bytes) -> bool:
    if kind.startswith("application/rs-metadata"):
        return not kind.startswith("application/rs-metadata-request")
    if disposition.strip().lower().startswith("recording-session"):
        return kind != "application/sdp"
    return kind != "application/gtd" and _METADATA_ROOT.search(data[:_SNIFFED_BYTES]) is not None


def _search(body: bytes) -> MessageBody:
    """Both things by how they begin, where the parts cannot be told apart."""
    sdp = _SDP_BLOCK.search(body)
    metadata = _METADATA_BLOCK.search(body)
    return MessageBody(
        sdp[1] if sdp else None, body[metadata.start() :] if metadata else None, (FLAG_MULTIPART_MALFORMED,)
    )
