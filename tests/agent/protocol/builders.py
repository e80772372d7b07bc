"""SIP messages and a server under test, time in the test's hand."""

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import message
from sbc_agent.protocol.events import (
    CloseFlow,
    DigitPressed,
    Event,
    MessageRecorded,
    SendMessage,
    SessionEnded,
    SessionId,
    SessionOffered,
    SessionUpdated,
)
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.uas import ServerSettings

VECTORS = Path(__file__).parents[2] / "vectors"
UDP = Flow("udp", ("198.51.100.7", 5060), ("192.0.2.1", 5060))
TCP = Flow("tcp", ("198.51.100.7", 40000), ("192.0.2.1", 5060), 1)
MEDIA_ADDRESS = "192.0.2.9"

TWO_STREAMS = """v=0
o=SBC 1 1 IN IP4 198.51.100.7
s=-
c=IN IP4 198.51.100.7
t=0 0
m=audio 6000 RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=label:1
a=sendonly
m=audio 6002 RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=label:2
a=sendonly
"""

METADATA = """<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1">
  <datamode>complete</datamode>
  <session session_id="S"><sipSessionID>abc@example.com</sipSessionID></session>
  <participant participant_id="A"><nameID aor="sip:alice@example.com"><name>Alice</name></nameID></participant>
  <participant participant_id="B"><nameID aor="sip:bob@example.com"/></participant>
  <stream stream_id="X" session_id="S"><label>1</label></stream>
  <stream stream_id="Y" session_id="S"><label>2</label></stream>
  <participantstreamassoc participant_id="A"><send>X</send><recv>Y</recv></participantstreamassoc>
  <participantstreamassoc participant_id="B"><send>Y</send><recv>X</recv></participantstreamassoc>
</recording>
"""


def crlf(text: str) -> bytes:
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode()


def multipart(
    sdp: str | None = TWO_STREAMS, metadata: str | None = METADATA
) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Content-Type and body of a SIPREC INVITE."""
    parts = []
    if sdp is not None:
        parts.append("Content-Type: application/sdp\r\n\r\n" + crlf(sdp).decode())
    if metadata is not None:
        kind = "Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n"
        parts.append(kind + metadata)
    body = "".join(f"--edge\r\n{part}\r\n" for part in parts) + "--edge--\r\n"
    return (("Content-Type", "multipart/mixed;boundary=edge"),), body.encode()


@dataclass
class Src:
    """A session recording client's side of one dialog, as far as building its requests needs."""

    call_id: str = "call-1@198.51.100.7"
    tag: str = "src"
    to_tag: str = ""
    cseq: int = 0
    flow: Flow = UDP
    branches: Iterator[int] = field(default_factory=itertools.count)
    last: Request | None = None

    def request(
        self,
        method: str,
        *extra: tuple[str, str],
        body: bytes = b"",
        cseq: int | None = None,
        branch: str | None = None,
        to_tag: str | None = None,
    ) -> bytes:
        """A request; CSeq grows by itself except for ACK and CANCEL."""
        if cseq is None:
            self.cseq += method not in {"ACK", "CANCEL"}
            cseq = self.cseq
        branch = branch or f"z9hG4bK{self.call_id}-{next(self.branches)}"
        tag = self.to_tag if to_tag is None else to_tag
        transport = self.flow.transport
        via_port = 5060 if transport == "udp" else self.flow.remote[1]
        contact_transport = "" if transport == "udp" else f";transport={transport}"
        headers = [
            ("Via", f"SIP/2.0/{transport.upper()} {self.flow.remote[0]}:{via_port};branch={branch}"),
            ("From", f"<sip:src@example.com>;tag={self.tag}"),
            ("To", "<sip:srs@example.com>" + (f";tag={tag}" if tag else "")),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Max-Forwards", "70"),
            ("Contact", f"<sip:src@198.51.100.7:5060{contact_transport}>;+sip.src"),
            *extra,
        ]
        self.last = message.request(method, "sip:srs@192.0.2.1", headers, body)
        return bytes(self.last)

    def invite(
        self, *extra: tuple[str, str], sdp: str | None = TWO_STREAMS, metadata: str | None = METADATA, **kw: Any
    ) -> bytes:
        kind, body = multipart(sdp, metadata)
        return self.request("INVITE", ("Require", "siprec"), *kind, *extra, body=body, **kw)


def counted_octets() -> Callable[[int], bytes]:
    """Randomness that can be foretold: 01 01 01..., then 02 02 02..."""
    numbers = itertools.count(1)
    return lambda size: bytes([next(numbers) % 256]) * size


class Under:
    """A server under test that answers offers with ports from a counter, unless told not to."""

    def __init__(self, *, ports: bool = True, settings: ServerSettings | None = None) -> None:
        tokens = itertools.count(1)
        self.settings = settings or ServerSettings(MEDIA_ADDRESS)
        self.server = SipServer(self.settings, lambda: f"{next(tokens):032x}", counted_octets())
        self.now = 1000.0
        self.ports = itertools.count(20000, 2)
        self.accepts = ports
        self.sent: list[tuple[float, Request | Response]] = []
        self.messages: list[SendMessage] = []
        self.offered: list[SessionOffered] = []
        self.updated: list[SessionUpdated] = []
        self.recorded: list[MessageRecorded] = []
        self.digits: list[DigitPressed] = []
        self.ended: list[SessionEnded] = []
        self.closed: list[Flow] = []

    def receive(self, data: bytes, flow: Flow = UDP) -> list[Request | Response]:
        """Hand octets in; returns what was sent because of them."""
        self.server.receive(data, flow, self.now)
        return self.pump()

    def advance(self, seconds: float) -> list[Request | Response]:
        """Let time pass, timers firing when they are due; returns what was sent meanwhile."""
        until, sent = self.now + seconds, []
        while (at := self.server.timer()) is not None and at <= until:
            self.now = max(self.now, at)
            self.server.handle_timer(self.now)
            sent += self.pump()
        self.now = until
        return sent

    def answer(self, session: SessionId | None = None, ports: dict[int, int] | None = None) -> list[Request | Response]:
        offer = self.offered[-1]
        chosen = {index: next(self.ports) for index in offer.needs_ports} if ports is None else ports
        self.server.answer(session or offer.session, chosen, self.now)
        return self.pump()

    def refuse(self, status: int) -> list[Request | Response]:
        self.server.refuse(self.offered[-1].session, status, self.now)
        return self.pump()

    def pump(self) -> list[Request | Response]:
        sent = []
        while (event := self.server.next_event()) is not None:
            if isinstance(event, SendMessage):
                self.messages.append(event)
                if event.data.strip():
                    read = message.parse(event.data)
                    self.sent.append((self.now, read))
                    sent.append(read)
            elif isinstance(event, SessionOffered):
                self.offered.append(event)
                if self.accepts:
                    chosen = {index: next(self.ports) for index in event.needs_ports}
                    self.server.answer(event.session, chosen, self.now)
            else:
                self.note(event)
        return sent

    def note(self, event: Event) -> None:
        """Keep what asks for nothing to be done."""
        if isinstance(event, SessionUpdated):
            self.updated.append(event)
        elif isinstance(event, DigitPressed):
            self.digits.append(event)
        elif isinstance(event, MessageRecorded):
            self.recorded.append(event)
        elif isinstance(event, SessionEnded):
            self.ended.append(event)
        elif isinstance(event, CloseFlow):
            self.closed.append(event.flow)

    def call(self, src: Src, **invite: Any) -> Response:
        """INVITE, 200, ACK."""
        answer = only(self.receive(src.invite(**invite), src.flow))
        assert isinstance(answer, Response)
        assert answer.status == 200, answer
        src.to_tag = tag_of(answer)
        assert self.receive(src.request("ACK"), src.flow) == []
        return answer


def only(messages: list[Request | Response]) -> Request | Response:
    assert len(messages) == 1, messages
    return messages[0]


def status(messages: list[Request | Response]) -> int:
    answer = only(messages)
    assert isinstance(answer, Response)
    return answer.status


def tag_of(answer: Request | Response) -> str:
    return addresses.parse(answer.required("to")).tag


def capture(number: str) -> dict[str, Any]:
    path = next((VECTORS / "captures").glob(f"{number}-*.json.gz"))
    with gzip.open(path) as file:
        found: dict[str, Any] = json.load(file)
    return found


def sample(name: str) -> bytes:
    return (VECTORS / "siprec" / name).read_bytes()


def sample_message(name: str) -> bytes:
    """A sample message with CRLF line ends and a true Content-Length."""
    head, _, body = crlf(sample(name).decode()).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


SAMPLES = sorted(path.name for path in (VECTORS / "siprec").iterdir() if path.suffix != ".md")
SAMPLE_MESSAGES = [name for name in SAMPLES if name.endswith(".txt") and sample(name).split(b" ")[0].isupper()]
