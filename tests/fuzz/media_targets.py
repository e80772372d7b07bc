"""What comes over RTP's ports, and what the two processes say to each other."""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel

from dualtone.domain.errors import MalformedInput
from sbc_agent.media import digits, messages, rtp
from sbc_agent.media.messages import (
    KEY_BYTES,
    Adopt,
    Alarm,
    Begin,
    CryptoSpec,
    Decide,
    Digit,
    Drain,
    End,
    FormatSpec,
    PartClosed,
    Pause,
    Ready,
    Resume,
    Session,
    Signalling,
    StreamSpec,
    UseIngestKey,
)
from tests.agent.media.feed import PEER, Arrival, Line
from tests.agent.media.packets import packet, speech
from tests.agent.media.srtp_sender import Sender
from tests.fuzz.target import Target

_ULID: Final = "01JD0000000000000000000000"
_MOST_BYTES: Final = 1_500
_BESIDE: Final = b"\x80\x08\0\1" + bytes(8)


def _frames(data: bytes) -> list[bytes]:
    """A run of datagrams, each behind its length in two octets; what is left over is one more."""
    found = []
    while len(data) > 2:
        size = min(int.from_bytes(data[:2], "big"), _MOST_BYTES)
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [frame for frame in found if frame]


def _framed(datagrams: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in datagrams)


def _headers(data: bytes) -> None:
    """A packet beside others: its payload lies within it, and theirs is found whatever it says."""
    size = min(len(data), _MOST_BYTES)
    buffer = np.frombuffer(_BESIDE + data[:size] + _BESIDE + bytes(64), np.uint8).copy()
    offset = np.array([0, len(_BESIDE), len(_BESIDE) + size], np.int64)
    length = np.array([len(_BESIDE), size, len(_BESIDE)], np.int64)
    found = rtp.parse(buffer, offset, length)
    assert found.valid[0]
    assert found.valid[2]
    if not found.valid[1]:
        raise MalformedInput("no RTP")
    assert offset[1] + rtp.HEADER_BYTES <= found.payload[1]
    assert found.size[1] >= 0
    assert found.payload[1] + found.size[1] <= offset[1] + length[1]


def _drain(line: Line, data: bytes) -> None:
    """Datagrams through intake and ring: every one is counted once, and nothing is stored that was not sent."""
    frames = _frames(data)
    if not frames:
        raise MalformedInput("no datagrams")
    line.take([Arrival(0, frame, 1_000_000 + 20_000 * index, PEER) for index, frame in enumerate(frames)])
    stored = line.leave(1 << 60)
    assert len(stored) <= len(frames)
    if line.counted("malformed") == len(frames):
        raise MalformedInput("nothing of it is RTP")


def _srtp(sender: Sender, data: bytes) -> None:
    line = Line()
    line.intake.srtp.set_keys(line.row, [sender.spec])
    try:
        _drain(line, data)
        if not line.counted("stored"):
            raise MalformedInput("nothing of it is authentic")
    finally:
        line.intake.srtp.set_keys(line.row, [])


def _events(data: bytes) -> None:
    """Telephone events, alone and in redundant packets: no text about one shows its key."""
    found = [digits.event(block, timestamp) for _, timestamp, block in digits.redundant(data, 160)]
    found.append(digits.event(data, 160))
    told = [one for one in found if one is not None]
    if not told:
        raise MalformedInput("no event")
    for one in told:
        assert "code" not in repr(one)
        assert one.key is None or one.key in digits.KEYS


def _event_payloads() -> list[bytes]:
    single = struct.pack(">BBH", 5, 10, 800)
    block = bytes([0x80 | 101]) + (800 << 10 | 4).to_bytes(3, "big")
    return [single, struct.pack(">BBH", 11, 0x8A, 1_600), block + bytes([101]) + single + single]


def _commands() -> list[bytes]:
    streams = (
        StreamSpec(
            stream=0,
            label="1",
            port=20_000,
            formats=(FormatSpec(payload_type=8, codec="PCMA", clock_hz=8_000),),
            crypto=(CryptoSpec(tag=1, suite="AES_CM_128_HMAC_SHA1_80", key=bytes(30)),),
        ),
    )
    known: list[BaseModel] = [
        Begin(call=_ULID, at_us=1, streams=streams),
        Adopt(call=_ULID, at_us=1, streams=streams),
        Signalling(call=_ULID, at_us=1, direction=0, raw=b"INVITE sip:a SIP/2.0\r\n\r\n"),
        Session(call=_ULID, session={"flags": []}),
        End(call=_ULID, at_us=2, reason="bye", flags=()),
        Digit(call=_ULID, at_us=1, stream=None, digit="5"),
        Decide(call=_ULID, at_us=1, keep=True),
        UseIngestKey(key_arn="arn:aws:kms:eu-west-1:1:key/0", public_key_der=b"der"),
        Drain(flush=True),
        Pause(
            call=_ULID,
            at_us=5,
            from_us=4,
            effective_at_us=4,
            cause="payment",
            origin="cloud",
            number=3,
            command=_ULID,
            by="person:p",
            lease_us=9_000_000,
            on_expiry="silent",
        ),
        Resume(call=_ULID, at_us=5, cause="payment", origin="cloud", number=4, command=_ULID, by="person:p"),
    ]
    return [message.model_dump_json().encode() for message in known]


def _answers() -> list[bytes]:
    known: list[BaseModel] = [
        Ready(ports=(20_000, 20_002)),
        PartClosed(call=_ULID, path="/spool/part-00-000000.dtp", digest="0" * 64, size_bytes=9),
        Alarm(kind="no_media", call=_ULID),
    ]
    return [message.model_dump_json().encode() for message in known]


def _settings() -> bytes:
    return json.dumps(
        {
            "tenant": "acme",
            "agent": f"agt_{_ULID}",
            "agent_key_path": "/var/lib/agent/agent.key",
            "spool_dir": "/var/spool/agent",
            "address": "127.0.0.1",
            "port_first": 20_000,
            "port_last": 20_100,
            "pool_size": 20,
            "ingest_key": {"key_arn": "arn", "public_key_der": base64.b64encode(b"der").decode()},
            "version": "0.1.0",
        }
    ).encode()


def targets() -> dict[str, Target]:
    """All of these, by name."""
    speaking = [packet(number, speech(0, number)) for number in range(100, 106)]
    odd = [
        packet(7, speech(0, 1), first=0x92, options=bytes(8) + b"\xbe\xde\0\1" + bytes(4)),
        packet(8, speech(0, 1) + b"\0\0\0\4", first=0xA0),
        packet(9, struct.pack(">BBH", 5, 10, 800), payload_type=101),
        b"\x81\xc8\0\6" + bytes(24) + b"\x81\xca\0\1" + bytes(4),
    ]
    senders = {suite: Sender(suite, bytes(range(size)), b"\5") for suite, size in KEY_BYTES.items()}  # type: ignore[arg-type]
    found = {
        "rtp": Target([*speaking, *odd], _headers),
        "rtp-drain": Target([_framed(speaking), _framed([*odd, *speaking])], lambda data: _drain(Line(), data)),
        "telephone-event": Target(_event_payloads(), _events),
        "ipc-command": Target(_commands(), messages.parse_command, still_read=0.02),
        "ipc-event": Target(_answers(), messages.parse_event, still_read=0.02),
        "ipc-settings": Target([_settings()], messages.parse_settings, still_read=0.02),
    }
    for suite, sender in senders.items():
        sealed = _framed([sender.protect(each, 0) for each in speaking])
        name = f"srtp-{suite.lower().replace('_', '-')}"
        found[name] = Target([sealed], lambda data, sender=sender: _srtp(sender, data))  # type: ignore[misc]
    return found
