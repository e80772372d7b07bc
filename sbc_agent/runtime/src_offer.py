"""What a session recording client offers: two labelled streams in SDP, and who speaks on them in recording metadata.

RFC 7866 section 7.1 (SDP: sendonly, ``a=label``), RFC 7865 (metadata version 1), and in it Oracle's mark of the calling
party, so that a recorder can tell caller from callee without guessing. Pure: ids, time and ports are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

BOUNDARY: Final = "dualtone-recording-session"
CONTENT_TYPE: Final = f"multipart/mixed;boundary={BOUNDARY}"
PCMA_PAYLOAD_TYPE: Final = 8
_METADATA_NAMESPACE: Final = "urn:ietf:params:xml:ns:recording:1"
_ORACLE_NAMESPACE: Final = "http://acmepacket.com/siprec/extensiondata"


@dataclass(frozen=True, slots=True)
class Party:
    """One side of the call.

    Attributes:
        aor: Address of record, a SIP or tel URI.
        name: Display name.
        calling: Whether this side began the call.
        label: SDP label of the stream that it sends.
        port: Local RTP port from which that stream comes.
        participant_id: Id of the participant, base64 of a UUID.
        stream_id: Id of the stream, base64 of a UUID.
    """

    aor: str
    name: str
    calling: bool
    label: str
    port: int
    participant_id: str
    stream_id: str


def address_of_record(text: str, host: str) -> str:
    """The AOR of a number or an address as typed: ``+4420...`` becomes ``sip:+4420...@host``, a URI stays as it is."""
    if text.partition(":")[0].lower() in {"sip", "sips", "tel"}:
        return text
    return f"sip:{text}" if "@" in text else f"sip:{text}@{host}"


def body(
    parties: Sequence[Party],
    *,
    address: str,
    session_id: str,
    sip_session_id: str,
    now_iso: str,
    ucid: str | None = None,
) -> bytes:
    """The multipart body of the INVITE: session description, then metadata.

    Args:
        parties: Who speaks, one m-line each, in this order.
        address: Local IPv4 address of the media.
        session_id: Id of the communication session, base64 of a UUID.
        sip_session_id: RFC 7989 session identifier, ``hex;remote=hex``.
        now_iso: The time of association, RFC 3339.
        ucid: Universal call id in hexadecimal, as a switch gives it; None for none.

    Returns:
        The body; its Content-Type is :data:`CONTENT_TYPE`.
    """
    parts = (
        ("Content-Type: application/sdp", session_description(parties, address)),
        (
            # REQ: RFC 7866 section 9.1: the metadata's disposition is recording-session.
            "Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session",
            metadata(parties, session_id=session_id, sip_session_id=sip_session_id, now_iso=now_iso, ucid=ucid),
        ),
    )
    pieces = [f"--{BOUNDARY}\r\n{headers}\r\n\r\n{content}\r\n" for headers, content in parts]
    return "".join([*pieces, f"--{BOUNDARY}--\r\n"]).encode()


def session_description(parties: Sequence[Party], address: str) -> str:
    """The offer: one sendonly PCMA stream for each party."""
    lines = ["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    for party in parties:
        lines += [
            f"m=audio {party.port} RTP/AVP {PCMA_PAYLOAD_TYPE}",
            f"a=rtpmap:{PCMA_PAYLOAD_TYPE} PCMA/8000",
            "a=ptime:20",
            "a=sendonly",  # REQ: RFC 7866 section 7.1.1: the SRC MUST send a=sendonly for what it records
            f"a=label:{party.label}",  # REQ: RFC 7866 section 7.1.1: each m-line MUST have a label
        ]
    return "\r\n".join([*lines, ""])


def metadata(
    parties: Sequence[Party], *, session_id: str, sip_session_id: str, now_iso: str, ucid: str | None = None
) -> str:
    """The metadata, in the order of the schema (RFC 7865 section 10); each party receives what the others send."""
    session = quoteattr(session_id)
    associated = f"<associate-time>{escape(now_iso)}</associate-time>"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<recording xmlns="{_METADATA_NAMESPACE}" xmlns:apkt="{_ORACLE_NAMESPACE}">',
        "  <datamode>complete</datamode>",
        f"  <session session_id={session}><sipSessionID>{escape(sip_session_id)}</sipSessionID>{_ucid(ucid)}</session>",
    ]
    for party in parties:
        lines += [
            f"  <participant participant_id={quoteattr(party.participant_id)}>",
            f"    <nameID aor={quoteattr(party.aor)}><name>{escape(party.name)}</name></nameID>",
            f"    <apkt:extensiondata>{_calling(party)}</apkt:extensiondata>",
            "  </participant>",
        ]
    lines += [
        f"  <stream stream_id={quoteattr(party.stream_id)} session_id={session}>"
        f"<label>{escape(party.label)}</label></stream>"
        for party in parties
    ]
    lines.append(f"  <sessionrecordingassoc session_id={session}>{associated}</sessionrecordingassoc>")
    lines += [
        f"  <participantsessionassoc participant_id={quoteattr(party.participant_id)} session_id={session}>"
        f"{associated}</participantsessionassoc>"
        for party in parties
    ]
    for party in parties:
        lines.append(f"  <participantstreamassoc participant_id={quoteattr(party.participant_id)}>")
        lines.append(f"    <send>{escape(party.stream_id)}</send>")
        lines += [f"    <recv>{escape(other.stream_id)}</recv>" for other in parties if other is not party]
        lines.append("  </participantstreamassoc>")
    return "\r\n".join([*lines, "</recording>", ""])


def _ucid(ucid: str | None) -> str:
    if ucid is None:
        return ""
    return f"<apkt:extensiondata><apkt:ucid>{escape(ucid)};encoding=hex</apkt:ucid></apkt:extensiondata>"


def _calling(party: Party) -> str:
    return f"<apkt:callingParty>{str(party.calling).lower()}</apkt:callingParty>"
