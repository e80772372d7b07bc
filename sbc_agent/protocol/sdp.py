"""Session descriptions as SBCs offer them. Pure; standard: RFC 8866 (and RFC 4566), RFC 4574 labels, RFC 3551 types.

Read are the lines that decide what is recorded: `o=`, `c=`, `m=`, `a=`; all others pass. Tolerated (INTEROP): bare LF,
no session-level `c=`, no rtpmap for static payload types, unknown lines, `a=direction:both`, ICE and DTLS lines.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import number

MAX_SDP_BYTES: Final = 65_535
MAX_LINES: Final = 2_048
MAX_MEDIA: Final = 32
MAX_FORMATS: Final = 64
MAX_CLOCK_HZ: Final = 1_000_000

# RFC 3551 section 6: payload types that need no rtpmap: name, clock rate in Hz, channels.
STATIC_PAYLOAD_TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("PCMU", 8000, 1),
    2: ("G726-32", 8000, 1),  # withdrawn by RFC 3551, still the first in some offers
    3: ("GSM", 8000, 1),
    4: ("G723", 8000, 1),
    5: ("DVI4", 8000, 1),
    6: ("DVI4", 16000, 1),
    7: ("LPC", 8000, 1),
    8: ("PCMA", 8000, 1),
    9: ("G722", 8000, 1),
    10: ("L16", 44100, 2),
    11: ("L16", 44100, 1),
    12: ("QCELP", 8000, 1),
    13: ("CN", 8000, 1),
    15: ("G728", 8000, 1),
    18: ("G729", 8000, 1),
    19: ("CN", 8000, 1),  # reserved since RFC 3551; Cisco still means comfort noise
}

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_NOWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - the texts of lines, not sockets' addresses
_RTPMAP: Final = re.compile(r"(\d{1,3})[ \t]+([^/\s]{1,64})/(\d{1,7})(?:/(\d{1,3}))?[ \t]*\Z")


class Direction(Enum):
    """Which way media flows, seen from who wrote it."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class Codec:
    """A payload type and what it means; name in upper case, as RFC 3551 spells its own."""

    payload_type: int
    name: str
    clock_hz: int
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """The `o=` line, as written."""

    username: str = "-"
    session_id: str = "0"
    version: str = "0"
    address: str = "0.0.0.0"  # noqa: S104 - the text of a line, not a socket's address

    def __str__(self) -> str:
        return f"{self.username} {self.session_id} {self.version} IN IP4 {self.address}"


@dataclass(frozen=True, slots=True)
class Media:
    """One `m=` section; direction and connection fall back to the session's."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    connection: str | None = None
    direction: Direction = Direction.SENDRECV
    attributes: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)  # they may hold keys

    def attribute(self, name: str) -> str | None:
        """The value of the first attribute of that name; "" for a flag, None if there is none."""
        return next((value or "" for key, value in self.attributes if key == name), None)

    @property
    def label(self) -> str | None:
        """The label, exactly as written (RFC 4574), or None."""
        return self.attribute("label")

    @property
    def is_rtp(self) -> bool:
        """Whether it is audio or video over plain RTP."""
        return self.protocol in {"RTP/AVP", "RTP/AVPF"}

    @property
    def is_srtp(self) -> bool:
        """Whether it is audio or video over SRTP whose keys the description may hold; DTLS-SRTP has them elsewhere."""
        return self.protocol in {"RTP/SAVP", "RTP/SAVPF"}

    @property
    def crypto(self) -> tuple[str, ...]:
        """The values of its `a=crypto` attributes (RFC 4568), in their order."""
        return tuple(value for key, value in self.attributes if key == "crypto" and value)

    @property
    def on_hold(self) -> bool:
        """Whether the offerer says that nothing comes: inactive, recvonly, or no address (RFC 3264 section 8.4)."""
        return self.direction in {Direction.INACTIVE, Direction.RECVONLY} or self.connection in _NOWHERE

    def codecs(self) -> list[Codec]:
        """The codecs of its formats in their order; a format that no rtpmap and no standard explains is left out."""
        mapped = self._rtpmaps()
        found: list[Codec] = []
        for text in self.formats:
            if not text.isascii() or not text.isdigit() or len(text) > 3 or int(text) > 127:  # noqa: PLR2004 - 7 bits
                continue
            payload_type = int(text)
            if payload_type in mapped:
                found.append(mapped[payload_type])
            elif payload_type in STATIC_PAYLOAD_TYPES:
                found.append(Codec(payload_type, *STATIC_PAYLOAD_TYPES[payload_type]))
        return found

    def _rtpmaps(self) -> dict[int, Codec]:
        mapped: dict[int, Codec] = {}
        for key, value in self.attributes:
            if key == "rtpmap" and value and (found := _RTPMAP.match(value)):
                clock_hz = int(found[3])
                if 0 < clock_hz <= MAX_CLOCK_HZ and int(found[1]) <= 127:  # noqa: PLR2004 - 7 bits
                    codec = Codec(int(found[1]), _spelling(found[2]), clock_hz, max(int(found[4] or 1), 1))
                    mapped.setdefault(codec.payload_type, codec)
        return mapped


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """An offer or an answer, as far as recording needs it."""

    origin: Origin
    media: tuple[Media, ...]
    attributes: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)


def parse(data: bytes) -> SessionDescription:
    """Read a session description.

    Args:
        data: the octets, at most `MAX_SDP_BYTES`.

    Returns:
        The description.

    Raises:
        MalformedInput: it does not begin with `v=0`, an `m=` line cannot be read, or a limit is passed.
    """
    if len(data) > MAX_SDP_BYTES:
        raise MalformedInput("the session description is larger than 65535 octets", sip_status=513)
    lines = [line for line in _LINE_END.split(data.decode("utf-8", "replace").lstrip("\ufeff")) if line.strip()]
    if not lines or lines[0].replace(" ", "") != "v=0":
        raise MalformedInput("the session description does not begin with v=0", sip_status=488)
    if len(lines) > MAX_LINES:
        raise MalformedInput("the session description has more than 2048 lines", sip_status=513)
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    if len(sections) > MAX_MEDIA + 1:
        raise MalformedInput("the session description has more than 32 media", sip_status=513)
    session = sections[0]
    connection, attributes = _connection(session), _attributes(session)
    direction = _direction(attributes) or Direction.SENDRECV
    media = tuple(_media(section, connection, direction) for section in sections[1:])
    return SessionDescription(_origin(session), media, attributes)


def _media(lines: list[str], connection: str | None, direction: Direction) -> Media:
    fields = lines[0][2:].split()
    if len(fields) < 3:  # noqa: PLR2004 - media, port, protocol
        raise MalformedInput("an m= line has less than three fields", sip_status=488)
    if len(fields) > MAX_FORMATS + 3:
        raise MalformedInput("an m= line has more than 64 formats", sip_status=488)
    attributes = _attributes(lines)
    return Media(
        kind=fields[0].lower(),
        port=number(fields[1].partition("/")[0], "the port of an m= line", 65535),
        protocol=fields[2].upper(),
        formats=tuple(fields[3:]),
        connection=_connection(lines) or connection,
        direction=_direction(attributes) or direction,
        attributes=attributes,
    )


def _origin(lines: list[str]) -> Origin:
    for line in lines:
        fields = line[2:].split()
        if line.startswith("o=") and len(fields) == 6:  # noqa: PLR2004 - RFC 8866 section 5.2
            return Origin(fields[0], fields[1], fields[2], fields[5])
    return Origin()


def _connection(lines: list[str]) -> str | None:
    """The address of the `c=` line, without its TTL."""
    for line in lines:
        fields = line[2:].split()
        if line.startswith("c=") and fields:
            return fields[-1].partition("/")[0]
    return None


def _attributes(lines: list[str]) -> tuple[tuple[str, str | None], ...]:
    found = []
    for line in lines:
        if line.startswith("a="):
            name, colon, value = line[2:].partition(":")
            # A label is echoed exactly; only the white space that a sloppy writer left at the line's end goes.
            found.append((name.strip().lower(), value.strip() if colon else None))
    return tuple(found)


def _direction(attributes: tuple[tuple[str, str | None], ...]) -> Direction | None:
    for name, value in attributes:
        if value is None and name in _DIRECTIONS:
            return Direction(name)
    return None


def _spelling(name: str) -> str:
    """Codec names compare without case (RFC 8866 section 6.6); telephone-event keeps its usual spelling."""
    return "telephone-event" if name.lower() == "telephone-event" else name.upper()
