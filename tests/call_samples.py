"""Calls as an agent uploads them, made from speech: packets, sealed records, signed parts, manifest."""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualtone.domain import call_files, canonical, media_record, part, signing
from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import Law
from dualtone.domain.call_files import (
    EpochEntry,
    GapEntry,
    Manifest,
    Opening,
    OpeningFile,
    PartEntry,
    StreamEntry,
    StreamFormat,
    StreamStatistics,
)
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.part import PartHeader, RecordType

TENANT: Final = TenantId("acme")
AGENT: Final = AgentId("agt_01JD00000000000000000AGENT"[:30])
CALL: Final = CallId("01JD00000000000000000CA110")
ANSWERED_US: Final = 2_000_000_000_000_000
INGEST_KEY: Final = "arn:aws:kms:eu-west-1:123456789012:key/ingest"
CALLER: Final = "+442079460123"
CALLEE: Final = "+14155550100"
SIP_CALL_ID: Final = "siprec-call-1@sbc.invalid"

RATE: Final = 8000
VECTORS: Final = Path(__file__).parent / "vectors"
CODECS: Final = {Law.A: (8, "PCMA"), Law.MU: (0, "PCMU")}

Pcm = npt.NDArray[np.int16]


def speech(name: str) -> Pcm:
    """12 seconds of one side of a call, int16 at 8 kHz: ``alice`` or ``bob``."""
    with wave.open(str(VECTORS / "speech" / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def compress(law: Law, samples: Pcm) -> npt.NDArray[np.uint8]:
    """G.711 by the nearest value of the decoder's table."""
    table = g711.decode(law, np.arange(256, dtype=np.uint8)).astype(np.int32)
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    return order[np.searchsorted(middles, samples)].astype(np.uint8)


@dataclass(frozen=True)
class Packet:
    """One RTP packet that the agent kept."""

    stream: int
    ssrc: int
    sequence: int
    timestamp: int
    arrival_us: int
    payload_type: int
    payload: bytes


def packets(
    samples: Pcm,
    *,
    stream: int = 0,
    ssrc: int = 0x1234,
    law: Law = Law.A,
    start_us: int = ANSWERED_US,
    sequence: int = 65_000,
    timestamp: int = 0xFFFF_0000,
    ptime_ms: int = 20,
    jitter_us: Callable[[int], int] = lambda _: 0,
) -> list[Packet]:
    """Packets of a stream as they arrive; sequence numbers and timestamps wrap early.

    Args:
        samples: What is said from ``start_us`` on.
        stream: Index of the stream.
        ssrc: Its source.
        law: A-law or mu-law.
        start_us: Arrival of the first packet.
        sequence: Number of the first packet.
        timestamp: Timestamp of the first packet.
        ptime_ms: Packet time.
        jitter_us: By how much the n-th packet comes later than the first packet's delay says.
    """
    size = RATE * ptime_ms // 1000
    octets = compress(law, samples).tobytes()
    return [
        Packet(
            stream,
            ssrc,
            (sequence + number) % 0x10000,
            (timestamp + at) % 0x1_0000_0000,
            start_us + at * 125 + jitter_us(number),
            CODECS[law][0],
            octets[at : at + size],
        )
        for number, at in enumerate(range(0, len(octets), size))
    ]


def blocks(kept: Iterable[Packet]) -> list[StreamBlock]:
    """Packets as blocks of one second, stream and source, in the order of the call."""

    def place(packet: Packet) -> tuple[int, int, int]:
        return (packet.arrival_us // 1_000_000, packet.stream, packet.ssrc)

    return [block(list(group)) for _, group in groupby(sorted(kept, key=place), place)]


def block(kept: Sequence[Packet]) -> StreamBlock:
    """Packets of one stream and source as one block, in the order given."""
    return StreamBlock(
        stream=kept[0].stream,
        ssrc=kept[0].ssrc,
        sequence=np.array([packet.sequence for packet in kept], np.uint16),
        timestamp=np.array([packet.timestamp for packet in kept], np.uint32),
        arrival_us=np.array([packet.arrival_us for packet in kept], np.int64),
        payload_type=np.array([packet.payload_type for packet in kept], np.uint8),
        size=np.array([len(packet.payload) for packet in kept], np.uint16),
        payload=np.frombuffer(b"".join(packet.payload for packet in kept), np.uint8),
    )


class AgentKey:
    """An agent's signing key."""

    def __init__(self, agent: AgentId = AGENT) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = str(agent)

    def sign(self, message: bytes) -> bytes:
        """DER-coded ECDSA with SHA-256."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    @property
    def public_der(self) -> bytes:
        """SubjectPublicKeyInfo."""
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_pem(self) -> str:
        """The same in PEM, as the directory holds it."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def session(*, roles: tuple[str, str] = ("caller", "callee"), labels: tuple[str, str] = ("1", "0")) -> dict[str, Any]:
    """A SESSION record's content: two parties, two streams; stream 0 has the first label and is sent by the first."""
    return {
        "sip_call_id": SIP_CALL_ID,
        "user_agent": "Test SBC",
        "flags": [],
        "sessions": [{"session_id": "session-1", "sip_session_id": "cs-1@pbx.invalid"}],
        "groups": ["group-1"],
        "participants": [
            _participant("p1", f"sip:{CALLER}@pbx.invalid", "Alice Example", roles[0]),
            _participant("p2", f"sip:{CALLEE}@pbx.invalid", None, roles[1]),
        ],
        "streams": [
            {"label": labels[0], "stream_id": "s1", "participant_id": "p1"},
            {"label": labels[1], "stream_id": "s2", "participant_id": "p2"},
        ],
        "extensions": {"ucid": "00FA08"},
    }


def _participant(participant_id: str, aor: str, name: str | None, role: str) -> dict[str, Any]:
    return {"participant_id": participant_id, "aor": aor, "name": name, "role": role, "extensions": {}}


def stream_entry(stream: int, label: str, law: Law = Law.A, **changes: Any) -> StreamEntry:
    """A stream with one format from the beginning on."""
    payload_type, codec = CODECS[law]
    values: dict[str, Any] = {
        "payload_type": payload_type,
        "codec": codec,
        "clock_hz": 8000,
        "channels": 1,
        "from_us": ANSWERED_US,
    }
    return StreamEntry(stream, label, [StreamFormat(**(values | changes))])


@dataclass
class Upload:
    """The files of a call by object key, as they lie in the ingest bucket."""

    files: dict[str, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def manifest_key(self) -> str:
        """The key whose arrival starts the finaliser."""
        return next(key for key in self.files if key.endswith(call_files.MANIFEST_NAME))

    @property
    def part_keys(self) -> list[str]:
        """The parts' keys in order."""
        return sorted(key for key in self.files if key.endswith(".dtp"))


def upload(
    kept: Iterable[StreamBlock],
    *,
    key: AgentKey,
    wrap: Callable[[bytes], bytes],
    streams: Sequence[StreamEntry] = (stream_entry(0, "1"), stream_entry(1, "0")),
    session_content: Mapping[str, Any] | None = None,
    gaps: Sequence[GapEntry] = (),
    part_seconds: int = 5,
    ended_us: int | None = None,
    tenant: TenantId = TENANT,
    agent: AgentId = AGENT,
    call: CallId = CALL,
    key_arn: str = INGEST_KEY,
    sign_by: AgentKey | None = None,
    **changes: Any,
) -> Upload:
    """Seals a call.

    Args:
        kept: Its media in the order of the call; blocks that begin in one second make one record, as an agent does it.
        key: The agent's key.
        wrap: Wraps a bound call key to the ingest key.
        streams: Its streams.
        session_content: What the signalling said; ``session()`` if None.
        gaps: Declared gaps.
        part_seconds: Seconds of media in a part.
        ended_us: When the dialog ended; the last packet's arrival if None.
        tenant: Owner.
        agent: Who recorded it.
        call: Its id.
        key_arn: The ingest key that the opening names.
        sign_by: Signs the manifest instead of the agent's key.
        changes: Fields of the manifest to replace.
    """
    media = list(kept)
    prefix = call_files.ingest_prefix(tenant, agent, call)
    call_key = hashlib.sha256(b"test call key" + call.encode()).digest()
    aead = AESGCM(call_key)
    wrapped = wrap(call_files.bound_call_key(tenant, call, call_key))
    opening = Opening(tenant, agent, call, 0, key_arn, hashlib.sha256(wrapped).hexdigest(), 1, ANSWERED_US)
    opening_file = OpeningFile.sealed_by(key, opening, wrapped).encode()
    result = Upload({prefix + call_files.opening_name(0): opening_file})
    told = canonical.encode(session() if session_content is None else dict(session_content))
    records: list[tuple[int, RecordType, bytes, int, int]] = [
        (0, RecordType.SESSION, told, ANSWERED_US, 0),
        (0, RecordType.SIGNALLING, bytes(8) + b"\0INVITE sip:recorder SIP/2.0\r\n\r\n", ANSWERED_US, 0),
    ]
    for second, together in groupby(media, lambda one: max(0, int(one.arrival_us[0]) - ANSWERED_US) // 1_000_000):
        blocks = list(together)
        first_us = min(int(block.arrival_us.min()) for block in blocks)
        span_us = max(int(block.arrival_us.max()) for block in blocks) - first_us
        sealed = media_record.encode(blocks)
        records.append((second // part_seconds, RecordType.MEDIA, sealed, first_us, span_us))
    entries: list[PartEntry] = []
    previous, sequence = part.NO_PREVIOUS, 0
    for index, (_, group) in enumerate(groupby(records, key=lambda record: record[0])):
        data = part.encode_header(PartHeader(tenant, agent, call, 0, index, previous))
        digest, count = part.PartDigest(data), 0
        for _, kind, plaintext, from_us, span_us in group:
            frame = part.seal(aead, call, 0, part.RecordHead(kind, 1, sequence, from_us, span_us), plaintext)
            digest.add(frame)
            data += frame
            sequence, count = sequence + 1, count + 1
        data += part.encode_trailer(key.sign(signing.message("part", digest.value)), count)
        previous = digest.value.hex()
        entries.append(PartEntry(0, index, previous, len(data), count))
        result.files[prefix + call_files.part_name(0, index)] = data
    last_us = max((int(one.arrival_us.max()) for one in media), default=ANSWERED_US)
    received = {stream.stream: 0 for stream in streams}
    for one in media:
        received[one.stream] = received.get(one.stream, 0) + one.sequence.size
    manifest = Manifest(
        tenant=tenant,
        agent=agent,
        call=call,
        generation=1,
        epochs=[EpochEntry(0, hashlib.sha256(opening_file).hexdigest())],
        parts=entries,
        streams=list(streams),
        answered_at_us=ANSWERED_US,
        ended_at_us=last_us + 20_000 if ended_us is None else ended_us,
        end_reason="bye",
        gaps=list(gaps),
        statistics=[StreamStatistics(stream, count, 0, 0, 0, 0, 0) for stream, count in received.items()],
        flags=[],
        version="test",
    )
    result.manifest = replace(manifest, **changes)
    result.files[prefix + call_files.MANIFEST_NAME] = result.manifest.sealed_by(sign_by or key)
    return result
