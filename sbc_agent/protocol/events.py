"""What the server tells the shell. Frozen facts; times are those of the call that led to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NewType

from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.sdes import CryptoLine
from sbc_agent.protocol.sdp import Codec

SessionId = NewType("SessionId", int)

RECEIVED: Final = 0
SENT: Final = 1

EndReason = Literal["bye", "shutdown", "error", "cancelled"]


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send these octets: as a datagram to `fallback`; on a stream over `flow`, or a new connection to `fallback`."""

    data: bytes = field(repr=False)  # it may hold a key of ours
    flow: Flow
    fallback: HostPort


@dataclass(frozen=True, slots=True)
class CloseFlow:
    """Close a connection: what comes on it cannot be read, or nothing came for too long."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class SessionOffered:
    """A recording session is offered, or offers more streams: answer by `SipServer.answer` or `refuse`.

    Attributes:
        session: the session.
        initial: whether it is new.
        needs_ports: the m-lines, by index, that are to be recorded and have no port yet.
        sip_call_id: the Call-ID of the dialog.
    """

    session: SessionId
    initial: bool
    needs_ports: tuple[int, ...]
    sip_call_id: str


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as negotiated now.

    Attributes:
        index: place of the m-line, from 0.
        label: its label.
        port: our RTP port.
        active: whether what arrives is kept.
        codecs: what its payload types mean.
        crypto: the keys with which the peer sends SRTP; None for plain RTP, and while the keys are not known.
    """

    index: int
    label: str
    port: int
    active: bool
    codecs: tuple[Codec, ...]
    crypto: CryptoLine | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """A session was answered, or its streams or metadata have changed; the first one starts the recording.

    Attributes:
        session: the session.
        at: the time, in seconds of the server's clock.
        streams: all streams that ever had a port.
        facts: the SESSION record: who, what call, flags.
        headers: headers that no standard defines (`X-...`, `P-...`) as the peer's requests last had them, by name in
            lower case: a policy may ask for one. They are in memory alone: a restart forgets them.
    """

    session: SessionId
    at: float
    streams: tuple[StreamState, ...]
    facts: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class DigitPressed:
    """A party pressed a key, says an INFO request; nobody says which party. It is never written or shown.

    Attributes:
        session: the session.
        at: the time, in seconds of the server's clock.
        digit: one of 0-9, *, #, A-D.
    """

    session: SessionId
    at: float
    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageRecorded:
    """A message of an answered session for the signalling record, as it was on the wire but for secrets.

    Keys of SRTP and pressed keys are blanked, octet by octet (`blanking.py`).
    """

    session: SessionId
    at: float
    direction: Literal[0, 1]
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session is over; one that was never answered ends as `cancelled`."""

    session: SessionId
    at: float
    reason: EndReason
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfferRefused:
    """An INVITE, or an offer in a session, was refused without asking the shell: someone should know why.

    Attributes:
        sip_call_id: the Call-ID.
        status: what it was answered with.
        reason: a word for it: a flag, or `not-siprec`, `extension`, `encoding`, `draining`.
    """

    sip_call_id: str
    status: int
    reason: str


Event = (
    SendMessage
    | CloseFlow
    | SessionOffered
    | SessionUpdated
    | DigitPressed
    | MessageRecorded
    | SessionEnded
    | OfferRefused
)
