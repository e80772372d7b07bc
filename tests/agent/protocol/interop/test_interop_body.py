"""INTEROP, "Body": parts in any order and spelling; what is meant is found, what was broken is flagged."""

import pytest

from sbc_agent.protocol import body, message
from sbc_agent.protocol.body import FLAG_MULTIPART_MALFORMED
from sbc_agent.protocol.message import Request, Response
from tests.agent.protocol.builders import METADATA, TWO_STREAMS, UDP, Src, Under, capture, crlf, only
from tests.agent.protocol.interop.lines import note, shows
from tests.agent.protocol.interop.vendors import (
    BROADWORKS,
    BROADWORKS_METADATA,
    CUBE,
    CUBE_BODY,
    ORACLE,
    ORACLE_METADATA,
    lines_of,
    opened,
    siprec,
    text_of,
    whole,
)

XML = "application/rs-metadata+xml"
SDP_PART = f"Content-Type: application/sdp\n\n{TWO_STREAMS}"
XML_PART = f"Content-Type: {XML}\nContent-Disposition: recording-session\n\n{METADATA}"
GTD_PART = "Content-Type: application/gtd\nContent-Disposition: signal;handling=optional\n\nIAM,\nPRN,isdn*,,NI***,\n"


def multipart(*pieces: str, closed: bool = True, boundary: str = "uniqueBoundary") -> str:
    text = "".join(f"--{boundary}\n{piece}\n" for piece in pieces)
    return text + (f"--{boundary}--\n" if closed else "")


# Content-Type line, body, line ends of the body, flags, lines.
BODIES: dict[str, tuple[str, str, str, tuple[str, ...], tuple[str, ...]]] = {
    "as the standard has it": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART),
        "\r\n",
        (),
        ("B1a",),
    ),
    "metadata first (Webex, BroadWorks)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(XML_PART, SDP_PART),
        "\r\n",
        (),
        ("B1a",),
    ),
    "no space after the colon (BroadWorks)": (
        "Content-Type:multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART.replace(": ", ":"), XML_PART.replace("Type: ", "Type:")),
        "\r\n",
        (),
        ("B1b",),
    ),
    "a space before boundary (Oracle)": (
        "Content-Type: multipart/mixed; boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART),
        "\r\n",
        (),
        ("B1b",),
    ),
    "a quoted boundary": (
        'Content-Type: multipart/mixed; boundary="unique Boundary"',
        multipart(SDP_PART, XML_PART, boundary="unique Boundary"),
        "\r\n",
        (),
        ("B1b",),
    ),
    "Content-Length in the parts": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(f"Content-Length: 7\n{SDP_PART}", f"Content-Length: 99999\n{XML_PART}"),
        "\r\n",
        (),
        ("B1b",),
    ),
    "disposition before type (CUBE)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(
            f"Content-Disposition: session;handling=required\n{SDP_PART}",
            f"Content-Disposition: recording-session\nContent-Type: {XML}\n\n{METADATA}",
        ),
        "\r\n",
        (),
        ("B1b",),
    ),
    "no closing boundary (Cisco, SEMS, Sonus)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART, closed=False),
        "\r\n",
        (),
        ("B2a",),
    ),
    "a third part of ISDN (CUBE)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, GTD_PART, XML_PART),
        "\r\n",
        (),
        ("B2b",),
    ),
    "application/rs-metadata (Avaya)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART.replace("+xml", "")),
        "\r\n",
        (),
        ("B3a",),
    ),
    "another type: the disposition says what it is": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART.replace(XML, "application/octet-stream")),
        "\r\n",
        (),
        ("B3b",),
    ),
    "neither type nor disposition: the root says what it is": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, f"Content-Type: text/plain\n\n{METADATA}"),
        "\r\n",
        (),
        ("B3b",),
    ),
    "bare LF": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART),
        "\n",
        (),
        ("B5a",),
    ),
    "a byte order mark": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        multipart(SDP_PART, XML_PART.replace("<?xml", "\ufeff<?xml")),
        "\r\n",
        (),
        ("B5a",),
    ),
    "delimiters lost (as in Oracle's paper)": (
        "Content-Type: multipart/mixed;boundary=uniqueBoundary",
        f"{SDP_PART}\n{XML_PART}",
        "\r\n",
        (FLAG_MULTIPART_MALFORMED,),
        ("B3b",),
    ),
}
for _name, (*_, _lines) in BODIES.items():
    note(_lines, _name)


@pytest.mark.parametrize("name", BODIES)
def test_both_parts_are_found(name: str) -> None:
    """Each body gets a full answer, and its metadata names the speakers of both streams."""
    kind, text, line_end, flags, _ = BODIES[name]
    content = text.replace("\n", line_end).encode()
    found = opened(whole(ORACLE, body=content, drop=("content-type",), add=(kind,)))
    assert [media.label for media in found.description.media] == ["1", "2"]
    assert found.facts("streams") == [
        {"label": "1", "stream_id": "X", "participant_id": "A"},
        {"label": "2", "stream_id": "Y", "participant_id": "B"},
    ]
    assert found.facts("flags") == list(flags)
    assert found.under.recorded[0].raw.endswith(content), "kept as received"


@shows("B2a", "B1b", "B2b")
def test_the_body_of_a_cube() -> None:
    """CUBE's own body: disposition first, a bare ampersand in a name, a third part, and no last boundary."""
    text = "\r\n".join(lines_of(CUBE_BODY)).lstrip("\r\n")
    text = text.replace("--uniqueBoundary--", f"--uniqueBoundary\r\n{crlf(GTD_PART).decode()}")
    kind = "Content-Type: multipart/mixed;boundary=uniqueBoundary"
    found = opened(whole(CUBE, body=text.encode(), add=(kind, "Contact: <sip:198.51.100.2:5060>")))
    streams = found.facts("streams")
    assert isinstance(streams, list)
    assert [(stream["label"], stream["participant_id"]) for stream in streams] == [
        ("1", "6HwVb7nIEfGL+ugwZeaEMw=="),
        ("2", "6HwVb7nIEfGL++gwZeaEMw=="),
    ]
    assert b"application/gtd" in found.under.recorded[0].raw


@shows("B4a", "B3a")
@pytest.mark.parametrize("kind", ["application/rs-metadata", "application/rs-metadata+xml"])
@pytest.mark.parametrize("method", ["UPDATE", "INFO"])
def test_metadata_alone(method: str, kind: str) -> None:
    """Avaya, BroadWorks and Webex correct metadata in mid-call: 200 without a description, streams and version stay."""
    found = opened(siprec(ORACLE, TWO_STREAMS, METADATA))
    update = METADATA.replace("Alice", "Alicia")
    asked = found.src.request(method, ("Content-Type", kind), body=crlf(update))
    answer = only(found.under.receive(asked))
    assert isinstance(answer, Response)
    assert (answer.status, answer.body, answer.header("content-type")) == (200, b"", None)
    people = found.facts("participants")
    assert isinstance(people, list)
    assert [person["name"] for person in people] == ["Alicia", ""]
    assert found.active == [True, True]
    again = only(found.under.receive(found.src.invite()))
    assert again.body == found.answer.body, "the next offer is answered as the first"


@shows("B4b")
def test_a_description_alone() -> None:
    """A session refresh carries SDP alone: answered in full, and what metadata told stays."""
    found = opened(siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)))
    before = found.facts("participants")
    refresh = found.src.request("INVITE", ("Content-Type", "application/sdp"), body=crlf(TWO_STREAMS))
    assert only(found.under.receive(refresh)).body == found.answer.body
    assert found.facts("participants") == before


@shows("B5b", "X8")
@pytest.mark.parametrize("size", [2_800, 4_000, 65_535])
def test_large_invites_over_udp(size: int) -> None:
    """An INVITE that IP had to cut, up to the largest datagram there is, is read whole."""

    def filled(octets: int) -> bytes:
        return siprec(ORACLE, TWO_STREAMS, METADATA.replace("</recording>", f"<!--{'x' * octets}--></recording>"))

    data = filled(size - len(filled(1_000)) + 1_000)
    data = filled(size - len(filled(1_000)) + 1_000 - (len(data) - size))
    assert len(data) == size
    found = opened(data)
    assert [media.label for media in found.description.media] == ["1", "2"]


@shows("B5c")
def test_our_answers_stay_small() -> None:
    """The answer to the largest captured offer, twelve crypto lines a stream, fits into one unfragmented datagram."""
    asked = message.parse(capture("31")["dialogs"][0]["messages"][0]["text"].encode())
    assert isinstance(asked, Request)
    assert len(bytes(asked)) > 4_700
    found = opened(bytes(asked))
    assert len(bytes(found.answer)) < 1_300  # RFC 3261 section 18.1.1: 200 octets below the smallest likely MTU


@shows("B5c")
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_contact_keeps_the_transport(transport: str) -> None:
    """Whoever reaches us over a stream is led back over it: nothing large ever goes by datagram."""
    flow = UDP if transport == "udp" else UDP.__class__(transport, ("198.51.100.7", 40000), ("192.0.2.1", 5061), 1)  # type: ignore[arg-type]
    under, src = Under(), Src(flow=flow)
    answer = under.call(src)
    parameter = "" if transport == "udp" else f";transport={transport}"
    port = 5060 if transport == "udp" else 5061
    assert answer.header("contact") == f"<sip:recorder@192.0.2.1:{port}{parameter}>;+sip.srs"


@shows("B4a")
def test_a_body_of_metadata_alone_in_an_invite() -> None:
    """An INVITE whose body is metadata alone asks for our offer: one m-line for each label that it names."""
    data = whole(
        ORACLE,
        body=crlf(text_of(ORACLE_METADATA)),
        drop=("content-type",),
        add=(f"Content-Type: {XML}", "Content-Disposition: recording-session"),
    )
    found = opened(data)
    assert [(media.label, media.port) for media in found.description.media] == [("771757897", 20000)]
    assert body.read(message.parse(data)).sdp is None
