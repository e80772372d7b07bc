"""What vendors send, made of their samples: whole messages with CRLF line ends and a true Content-Length."""

from dataclasses import dataclass

from sbc_agent.protocol import address, content_type, cseq, message, sdp
from sbc_agent.protocol import body as bodies
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.sdp import SessionDescription
from tests.agent.protocol.builders import UDP, Src, Under, crlf, sample, tag_of

VIA = "Via: SIP/2.0/UDP 198.51.100.44:5060;branch=z9hG4bKvendor"

OPENSIPS = "shape_opensips_ims_3gOoBTC_invite.txt"
AUDIOCODES = "shape_audiocodes_7.40A.500_invite_full.txt"
AUDIOCODES_MANUAL = "shape_audiocodes_7.20A_manual_invite_sdp.txt"
AUDIOCODES_NO_REQUIRE = "shape_audiocodes_7.40A.251_headers_no_require.txt"
AUDIOCODES_HELD = "shape_audiocodes_reinvite_inactive.txt"
BROADWORKS = "shape_broadworks_headers_no_require.txt"
BROADWORKS_METADATA = "shape_broadworks_dual_stream_metadata.xml"
CUBE = "shape_cisco_cube_headers_100rel.txt"
CUBE_BODY = "shape_cisco_cube_2026_unescaped_ampersand.txt"
ORACLE = "shape_oracle_invite_headers_boundary_space.txt"
ORACLE_METADATA = "shape_oracle_2026_ucid_metadata.xml"
METASWITCH_SDP = "shape_metaswitch_single_mline.sdp"
AVAYA_SDP = "shape_avaya_sbce_two_mline.sdp"
TWILIO = "shape_twilio_headers.txt"
RFC = "rfc7865_section8_example_wellformed.xml"


def lines_of(name: str) -> list[str]:
    return crlf(sample(name).decode()).decode().split("\r\n")


def text_of(name: str) -> str:
    return sample(name).decode()


def whole(name: str, *, body: bytes | None = None, drop: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> bytes:
    """A sample as one message.

    Args:
        name: the sample, beginning with its request line.
        body: in place of the sample's own.
        drop: headers, in lower case, to leave out.
        add: header lines in addition.
    """
    head, _, own = crlf(sample(name).decode()).decode().partition("\r\n\r\n")
    content = own.encode() if body is None else body
    lines = [line for line in head.split("\r\n") if line]
    kept = [line for line in lines if line.partition(":")[0].lower() not in {"content-length", *drop}]
    names = {line.partition(":")[0].lower() for line in kept[1:]}
    kept += [line for line in (VIA, "CSeq: 1 INVITE") if line.partition(":")[0].lower() not in names]
    return "\r\n".join([*kept, *add, f"Content-Length: {len(content)}", "", ""]).encode() + content


def parts(boundary: str, *content: tuple[str, str]) -> bytes:
    """A multipart body of (header lines, octets)."""
    text = "".join(f"--{boundary}\r\n{head}\r\n\r\n{crlf(body).decode()}\r\n" for head, body in content)
    return (text + f"--{boundary}--\r\n").encode()


def description_of(data: bytes) -> str:
    """The session description of a message."""
    found = bodies.read(message.parse(data)).sdp
    assert found is not None
    return found.decode()


def boundary_of(name: str) -> str:
    """The boundary that a sample's headers announce."""
    line = next(line for line in lines_of(name) if line.lower().startswith("content-type"))
    return content_type.parse(line.partition(":")[2]).parameters["boundary"]


def siprec(name: str, offer: str, metadata: str, **changes: tuple[str, ...]) -> bytes:
    """A sample of headers with a body of description and metadata, as the headers announce it."""
    body = parts(
        boundary_of(name),
        ("Content-Type: application/sdp", offer),
        ("Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session", metadata),
    )
    return whole(name, body=body, **changes)


def capture_requests(found: dict[str, list[dict[str, str]]]) -> list[Request]:
    """The requests of a captured dialog."""
    read = [message.parse(item["text"].encode()) for item in found["messages"]]
    return [item for item in read if isinstance(item, Request)]


@dataclass
class Opened:
    """A dialog that a vendor's INVITE opened."""

    under: Under
    src: Src
    answer: Response

    @property
    def description(self) -> SessionDescription:
        return sdp.parse(self.answer.body)

    @property
    def active(self) -> list[bool]:
        return [stream.active for stream in self.under.updated[-1].streams]

    def facts(self, name: str) -> object:
        return self.under.updated[-1].facts[name]


def opened(data: bytes, under: Under | None = None, flow: Flow = UDP, *, acknowledge: bool = True) -> Opened:
    """Hand in an INVITE that begins a dialog, and acknowledge its 200."""
    under = under or Under()
    asked = message.parse(data)
    assert isinstance(asked, Request)
    (answer,) = under.receive(data, flow)
    assert isinstance(answer, Response)
    assert answer.status == 200, answer
    src = Src(
        call_id=asked.required("call-id"),
        tag=address.parse(asked.required("from")).tag,
        to_tag=tag_of(answer),
        cseq=cseq.parse(asked.required("cseq")).number,
        flow=flow,
    )
    if acknowledge:
        assert under.receive(src.request("ACK"), flow) == []
    return Opened(under, src, answer)
