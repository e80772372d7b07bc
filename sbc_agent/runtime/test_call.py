"""A test call: a session recording client that speaks two WAV files at a recorder, in real time.

It is an SBC's recording leg in miniature (RFC 7866): INVITE with session description and metadata, both sides as PCMA
in phase, one packet each every 20 ms by a monotonic clock without drift, and BYE when the last packet's time is over.
Calls run side by side in one event loop; a hundred of them make a load test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from sbc_agent.runtime import speech, src_offer
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.src_dialog import Answered, Ended, Refused, TimedOut, Transport
from sbc_agent.runtime.src_link import CallFailed, SrcLink
from sbc_agent.runtime.src_offer import Party
from sbc_agent.runtime.system_errors import plain

Role = Literal["caller", "callee"]

_SUCCESS: Final = range(200, 300)
_PACKET_S: Final = speech.PACKET_MS / 1000
_UUID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a test call.

    Attributes:
        role: ``caller`` or ``callee``.
        number: Phone number or URI.
        name: Display name.
        samples: What it says: A-law at 8 kHz, uint8[n].
    """

    role: Role
    number: str
    name: str
    samples: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What was sent of a side: its label, the recorder's RTP port (0: refused), packets sent, packets not taken."""

    role: Role
    label: str
    port: int
    packets: int
    refused: int


@dataclass(frozen=True, slots=True)
class CallResult:
    """A call that was placed.

    Attributes:
        sip_call_id: Call-ID of the recording session.
        sip_session_id: Session identifier of the recorded call, as in the metadata.
        transport: ``udp``, ``tcp`` or ``tls``.
        started_at: When the INVITE was sent, RFC 3339 in UTC.
        answered_ms: From INVITE to 200.
        media_started_at: When the first packets were sent.
        ended_at: When BYE was sent or received.
        duration_ms: Length of the audio sent.
        packets: Packets sent, by side, the caller first.
        late_ms_max: How late this program itself sent a packet, at worst.
        ended_by: ``us``, or ``recorder`` if that hung up first.
        bye_status: How our BYE was answered.
        streams: The sides one by one.
    """

    sip_call_id: str
    sip_session_id: str
    transport: str
    started_at: str
    answered_ms: int
    media_started_at: str
    ended_at: str
    duration_ms: int
    packets: list[int]
    late_ms_max: int
    ended_by: str
    bye_status: int
    streams: list[StreamResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self)


async def place(
    target: Endpoint,
    transport: Transport,
    sides: Sequence[Side],
    *,
    ucid: str | None = None,
    trust: ssl.SSLContext | None = None,
    call_id: str | None = None,
) -> CallResult:
    """Places one call and waits for its end.

    Args:
        target: The recorder; its host may be a name.
        transport: ``udp``, ``tcp`` or ``tls``, for SIP.
        sides: Who speaks; all for the same number of samples.
        ucid: Universal call id of the recorded call, in hexadecimal; None for none.
        trust: By what the recorder proves itself on TLS; None trusts the system's authorities.
        call_id: Call-ID of the recording session; None makes one.

    Returns:
        What was sent and how it was answered.

    Raises:
        CallFailed: If it was refused, timed out, or was lost.
    """
    target = await resolved(target)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        media = [stack.enter_context(_media_socket(target)) for _ in sides]
        host = media[0].getsockname()[0]
        parties = [
            Party(
                aor=src_offer.address_of_record(side.number, host),
                name=side.name,
                calling=side.role == "caller",
                label=str(index + 1),
                port=channel.getsockname()[1],
                participant_id=_uuid(),
                stream_id=_uuid(),
            )
            for index, (side, channel) in enumerate(zip(sides, media, strict=True))
        ]
        sip_session_id = f"{secrets.token_hex(_UUID_BYTES)};remote={secrets.token_hex(_UUID_BYTES)}"
        offer = src_offer.body(
            parties, address=host, session_id=_uuid(), sip_session_id=sip_session_id, now_iso=_now(), ucid=ucid
        )
        call_id = call_id or f"{secrets.token_hex(_UUID_BYTES)}@{host}"
        link = await SrcLink.open(target, transport, host, call_id=call_id, offer=offer, trust=trust)
        try:
            started_at, started = _now(), loop.time()
            link.act(link.dialog.invite)
            answered = await _answer(link)
            answered_ms = round(1000 * (loop.time() - started))
            ports = await _ports(link, answered, parties)
            for channel, port, stream in zip(media, ports, answered.streams, strict=True):
                if port:
                    channel.connect((stream.host, port))
            media_started_at = _now()
            sent = await _speak(link, media, ports, sides)
            ended_at = _now()
            ended = await _hang_up(link)
        finally:
            await link.close()
    if isinstance(ended, TimedOut):
        raise CallFailed("the recorder did not answer the BYE within 32 s")
    return CallResult(
        sip_call_id=call_id,
        sip_session_id=sip_session_id,
        transport=transport,
        started_at=started_at,
        answered_ms=answered_ms,
        media_started_at=media_started_at,
        ended_at=ended_at,
        duration_ms=sent.ticks * speech.PACKET_MS,
        packets=[count if port else 0 for count, port in zip(sent.packets, ports, strict=True)],
        late_ms_max=round(1000 * sent.late_s),
        ended_by=ended.by,
        bye_status=ended.status,
        streams=[
            StreamResult(side.role, party.label, port, count, refused)
            for side, party, port, count, refused in zip(sides, parties, ports, sent.packets, sent.refused, strict=True)
        ],
    )


async def place_many(
    calls: int, parallel: int, call: Callable[[], Any], done: Callable[[CallResult | CallFailed], None]
) -> None:
    """Places calls, so many side by side; a call that fails does not stop the others.

    Args:
        calls: How many in all.
        parallel: How many at once.
        call: Makes the coroutine of one call.
        done: Told of each call as it ends.
    """
    left = iter(range(calls))

    async def line() -> None:
        for _ in left:
            try:
                result: CallResult | CallFailed = await call()
            except CallFailed as error:
                result = error
            done(result)

    await asyncio.gather(*(line() for _ in range(min(parallel, calls))))


async def _answer(link: SrcLink) -> Answered:
    event = await link.next_event()
    if isinstance(event, Answered):
        return event
    if isinstance(event, TimedOut):
        raise CallFailed("no answer from the recorder within 32 s: is it running, and is the address right?")
    if isinstance(event, Refused):
        if event.status in _SUCCESS:
            await _hang_up(link)
        raise CallFailed(f"the recorder answered {event.status} {event.reason}")
    raise CallFailed("the recorder ended the call before it began")


async def _hang_up(link: SrcLink) -> Ended | TimedOut:
    """Sends BYE and waits for its answer, or for the recorder's own BYE."""
    link.act(link.dialog.bye)
    while not isinstance(event := await link.next_event(), Ended | TimedOut):
        pass
    return event


async def _ports(link: SrcLink, answered: Answered, parties: Sequence[Party]) -> list[int]:
    """The recorder's port for each party, in the order of the offer."""
    # REQ: RFC 3264 section 6: the answer has as many m-lines as the offer, in its order.
    if len(answered.streams) != len(parties):
        await _hang_up(link)
        raise CallFailed(f"the recorder answered {len(answered.streams)} m-lines to {len(parties)}")
    ports = [stream.port for stream in answered.streams]
    if not any(ports):
        await _hang_up(link)
        raise CallFailed("the recorder refused every stream (port 0)")
    return ports


@dataclass(slots=True)
class _Sent:
    """What went out: ticks of 20 ms, packets and refusals by side, and the worst lateness."""

    ticks: int
    packets: list[int]
    refused: list[int]
    late_s: float = 0.0


async def _speak(link: SrcLink, media: Sequence[socket.socket], ports: Sequence[int], sides: Sequence[Side]) -> _Sent:
    """Sends all sides in phase until the speech or the dialog ends; returns when the last packet's time is over."""
    loop = asyncio.get_running_loop()
    streams = [
        speech.packets(
            side.samples,
            payload_type=src_offer.PCMA_PAYLOAD_TYPE,
            ssrc=secrets.randbits(32),
            sequence=secrets.randbits(16),
            timestamp=secrets.randbits(32),
        )
        for side in sides
    ]
    sent = _Sent(0, [0] * len(sides), [0] * len(sides))
    started = loop.time()
    for tick in range(len(streams[0])):
        if link.waiting():
            return sent  # the recorder hung up
        for index, (channel, port, stream) in enumerate(zip(media, ports, streams, strict=True)):
            if port:
                _send(channel, stream[tick].tobytes(), sent, index)
        sent.ticks += 1
        # Each packet's time is counted from the first: a late one does not delay those that follow.
        due = started + sent.ticks * _PACKET_S
        sent.late_s = max(sent.late_s, loop.time() - due + _PACKET_S)
        await asyncio.sleep(max(0.0, due - loop.time()))
    return sent


def _send(channel: socket.socket, packet: bytes, sent: _Sent, index: int) -> None:
    try:
        channel.send(packet)
        sent.packets[index] += 1
    except OSError:
        # An ICMP "port unreachable" for an earlier packet, or a full buffer: the stream goes on, as an SBC's would.
        sent.refused[index] += 1


def _media_socket(target: Endpoint) -> socket.socket:
    """A UDP socket on the local address from which the target is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target.host, target.port))
        except OSError as error:
            raise CallFailed(f"no way to {target}: {plain(error)}") from error
        host = probe.getsockname()[0]
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.setblocking(False)  # noqa: FBT003 - the standard library names no argument
    channel.bind((host, 0))
    return channel


async def resolved(target: Endpoint) -> Endpoint:
    """The recorder by its IPv4 address; raises CallFailed if its name has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, family=socket.AF_INET)
    except socket.gaierror as error:
        raise CallFailed(f"{target.host} has no IPv4 address") from error
    return Endpoint(str(found[0][4][0]), target.port)


def _uuid() -> str:
    """REQ: RFC 7865 section 6.10: an id is a UUID, in base64."""
    return base64.b64encode(secrets.token_bytes(_UUID_BYTES)).decode("ascii")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
