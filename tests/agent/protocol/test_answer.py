"""Answers to offers: RFC 3264, RFC 7866 section 7.2, and how `siprec_replay` judges them."""

import base64
import dataclasses
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio.codecs import codec_of
from sbc_agent.protocol import answer as answers
from sbc_agent.protocol import sdes, sdp
from sbc_agent.protocol.events import SessionId
from sbc_agent.protocol.media_session import FLAG_PORTS_EXHAUSTED, MediaSession
from sbc_agent.protocol.sdes import FLAG_SRTP_KEYS_VISIBLE, FLAG_SRTP_NEEDS_TLS, FLAG_SRTP_REFUSED, SrtpPolicy
from sbc_agent.protocol.sdp import Direction, SessionDescription
from tests.agent.protocol.builders import counted_octets

ADDRESS = "192.0.2.9"
CRYPTO = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:LUV0oNDOSB9F0gw60mV/9/ySYI27BYvNw6eII5Ed"
OTHER_CRYPTO = "a=crypto:1 AEAD_AES_256_GCM inline:nVZHjuJyLUV0lVNRkw3aU7yST7jdx/942DxaWYCkmrfVuKdbGdHZbEDA4+U"
ANSWERED = {
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.SENDRECV: Direction.RECVONLY,
    Direction.RECVONLY: Direction.INACTIVE,
    Direction.INACTIVE: Direction.INACTIVE,
}


def offer(*media: str) -> bytes:
    return "\r\n".join(
        ["v=0", "o=- 1 1 IN IP4 198.51.100.1", "s=-", "c=IN IP4 198.51.100.1", "t=0 0", *media, ""]
    ).encode()


def session() -> MediaSession:
    return MediaSession(SessionId(1), 4711, "call-1")


def answered(
    to: MediaSession,
    data: bytes,
    ports: dict[int, int] | None = None,
    randomness: Callable[[int], bytes] | None = None,
) -> bytes:
    parsed = sdp.parse(data)
    plans = to.planned(parsed)
    if ports is None:
        ports = dict(zip(to.needs_ports(plans), itertools.count(20000, 2), strict=False))
    return to.answer(parsed, plans, ports, ADDRESS, randomness or counted_octets())


def judge(offered: bytes, answer: bytes) -> SessionDescription:
    """The rules that any SRC may hold an answer to; returns the answer read."""
    want, got = sdp.parse(offered), sdp.parse(answer)
    text = answer.decode()
    for kind in "ost":
        assert any(line.startswith(f"{kind}=") for line in text.split("\r\n"))
    assert len(want.media) == len(got.media), "RFC 3264 section 6: as many m-lines as offered"
    for asked, given_ in zip(want.media, got.media, strict=True):
        assert (given_.kind, given_.protocol) == (asked.kind, asked.protocol), "in their order, with their profile"
        assert set(given_.formats) <= set(asked.formats), "no format that was not offered"
        assert given_.formats
        assert given_.label == asked.label, "REQ: RFC 7866 section 7.2: labels are echoed"
        if asked.port == 0:
            assert given_.port == 0, "RFC 3264 section 6: what is offered with port 0 stays so"
        if given_.port:
            assert given_.direction is ANSWERED[asked.direction]
            assert given_.connection == ADDRESS
            spelled = {codec.payload_type: codec for codec in asked.codecs()}
            assert all(spelled[codec.payload_type] == codec for codec in given_.codecs())
            # REQ: RFC 4568 section 5.1.2: one line, its tag and suite offered; plain RTP has none.
            offered_lines = {tuple(value.split()[:2]) for value in asked.crypto}
            assert len(given_.crypto) == ("SAVP" in asked.protocol)
            if asked.crypto:  # else the line that was agreed on before
                assert {tuple(value.split()[:2]) for value in given_.crypto} <= offered_lines
            assert not set(given_.crypto) & set(asked.crypto), "a key of our own"
            accepted = {codec.name for codec in given_.codecs()}
            assert "telephone-event" not in accepted or "telephone-event" in {c.name for c in asked.codecs()}
    ports = [media.port for media in got.media if media.port]
    assert len(set(ports)) == len(ports), "no two m-lines share a port"
    return got


FORMATS = {
    "both kinds of G.711, events": ("0 8 101", ("a=rtpmap:101 telephone-event/8000",), "0 8 101", None),
    "G.711 before Opus and G.729": (
        "111 18 8 126",
        ("a=rtpmap:111 OPUS/48000/2", "a=rtpmap:126 telephone-event/8000"),
        "8 126",
        None,
    ),
    "no events offered, none answered": ("8", (), "8", None),
    "comfort noise with G.711": ("0 19", ("a=rtpmap:19 CN/8000",), "0 19", None),
    "type 2 first (Metaswitch)": ("2 0 101", ("a=rtpmap:101 telephone-event/8000",), "0 101", None),
    "G.722 alone": ("9 101", ("a=rtpmap:101 telephone-event/8000",), "9 101", None),
    "G.729 alone, without its rtpmap": ("18", (), "18", None),
    "Opus under its usual type": ("111", ("a=rtpmap:111 opus/48000/2",), "111", None),
    "linear PCM at any rate": ("97 13", ("a=rtpmap:97 L16/16000/2",), "97 13", None),
    "the first of several others": ("18 9", (), "18", None),
    "G.723 before G.729: what can be decoded": ("4 18", (), "18", None),
    "iLBC and G.723 alone: the first, kept raw": ("97 4", ("a=rtpmap:97 iLBC/8000",), "97", answers.FLAG_CODEC_RAW),
    "an unknown dynamic type is kept raw": ("97", (), "97", answers.FLAG_CODEC_RAW),
    "wideband PCMA is not G.711": ("96", ("a=rtpmap:96 PCMA/16000",), "96", answers.FLAG_CODEC_RAW),
    "G.711 under a dynamic type": ("96 0", ("a=rtpmap:96 PCMA/8000",), "96 0", None),
    "events alone": ("101", ("a=rtpmap:101 telephone-event/8000",), "101", answers.FLAG_CODEC_RAW),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    """Of the formats offered, those that can be stored best are accepted, in the offer's order."""
    formats, attributes, expected, flag = FORMATS[name]
    data = offer(f"m=audio 6000 RTP/AVP {formats}", *attributes, "a=label:1")
    to = session()
    got = judge(data, answered(to, data))
    assert " ".join(got.media[0].formats) == expected
    assert list(to.flags) == ([flag] if flag else [])


MEDIA = {
    "sendonly": (("m=audio 6000 RTP/AVP 8", "a=sendonly"), 20000, Direction.RECVONLY, True, []),
    "no direction (Metaswitch, BroadWorks)": (("m=audio 6000 RTP/AVP 8",), 20000, Direction.RECVONLY, True, []),
    "inactive": (("m=audio 6000 RTP/AVP 8", "a=inactive"), 20000, Direction.INACTIVE, False, []),
    "hold by address": (
        ("m=audio 6000 RTP/AVP 8", "c=IN IP4 0.0.0.0", "a=sendonly"),
        20000,
        Direction.RECVONLY,
        False,
        [],
    ),
    "AVPF keeps its profile": (("m=audio 6000 RTP/AVPF 8", "a=sendonly"), 20000, Direction.RECVONLY, True, []),
    "SRTP with its key": (("m=audio 6000 RTP/SAVP 8", CRYPTO, "a=sendonly"), 20000, Direction.RECVONLY, True, []),
    "SRTP with feedback": (("m=audio 6000 RTP/SAVPF 8", CRYPTO), 20000, Direction.RECVONLY, True, []),
    "SRTP on hold": (("m=audio 6000 RTP/SAVP 8", CRYPTO, "a=inactive"), 20000, Direction.INACTIVE, False, []),
    "a key beside plain RTP is not answered": (("m=audio 6000 RTP/AVP 8", CRYPTO), 20000, Direction.RECVONLY, True, []),
    "SRTP without a key is refused": (("m=audio 6000 RTP/SAVP 8", "a=sendonly"), 0, None, None, [FLAG_SRTP_REFUSED]),
    "SRTP without a key that can be used is refused": (
        ("m=audio 6000 RTP/SAVP 8", "a=crypto:1 NULL_HMAC_SHA1_80 inline:8hOgPgvxzA5EejU+pDTTLsyyoEAHD8T5E7iB2Dyx"),
        0,
        None,
        None,
        [FLAG_SRTP_REFUSED],
    ),
    "DTLS-SRTP is refused": (
        ("m=audio 6000 UDP/TLS/RTP/SAVPF 8", "a=fingerprint:sha-256 00", CRYPTO),
        0,
        None,
        None,
        [FLAG_SRTP_REFUSED],
    ),
    "video is refused": (("m=video 6000 RTP/AVP 96",), 0, None, None, [answers.FLAG_VIDEO_REFUSED]),
    "text over TCP is refused": (("m=message 6000 TCP/MSRP *",), 0, None, None, [answers.FLAG_MEDIA_REFUSED]),
    "port 0 stays refused": (("m=audio 0 RTP/AVP 8",), 0, None, None, []),
}


@pytest.mark.parametrize("name", MEDIA)
def test_media(name: str) -> None:
    """An m-line is answered in its place; the SDP alone decides whether its stream is kept."""
    lines, port, direction, active, flags = MEDIA[name]
    data = offer(*lines, "a=label:L")
    to = session()
    got = judge(data, answered(to, data))
    assert got.media[0].port == port
    assert list(to.flags) == flags
    streams = to.streams()
    if port:
        assert got.media[0].direction is direction
        assert [(stream.index, stream.label, stream.port, stream.active) for stream in streams] == [
            (0, "L", port, active)
        ]
    else:
        assert streams == ()


def test_the_record_knows_codecs_that_were_not_accepted() -> None:
    """An SBC forks what the call uses: what a payload type means is known even if it was not answered."""
    data = offer("m=audio 6000 RTP/AVP 0 111", "a=rtpmap:111 OPUS/48000/2")
    to = session()
    answered(to, data)
    assert [codec.name for codec in to.streams()[0].codecs] == ["PCMU", "OPUS"]


def test_mixed_profiles_in_one_offer() -> None:
    """AVP and SAVP are answered each by its own profile; a SAVP without its key is refused in its place."""
    data = offer(
        *("m=audio 6000 RTP/SAVP 8", "a=label:1"),
        *("m=audio 6002 RTP/AVP 8", "a=label:2"),
        *("m=audio 6004 RTP/SAVP 8", CRYPTO, "a=label:3"),
    )
    to = session()
    got = judge(data, answered(to, data))
    assert [(media.port, len(media.crypto)) for media in got.media] == [(0, 0), (20000, 0), (20002, 1)]
    assert [(stream.index, stream.crypto) for stream in to.streams()] == [(1, None), (2, sdes.read(CRYPTO[9:]))]


def test_our_key_changes_with_theirs() -> None:
    """An offer that repeats its keys gets the answer that it had; a new key of the peer's gets a new one of ours."""
    to, randomness = session(), counted_octets()
    data = offer("m=audio 6000 RTP/SAVP 8", CRYPTO, "m=audio 6002 RTP/SAVP 8", OTHER_CRYPTO)
    first, again = (answered(to, data, randomness=randomness) for _ in range(2))
    assert first == again
    ours = [media.crypto[0] for media in sdp.parse(first).media]
    assert ours == [
        f"7 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes([1]) * 30).decode()}",
        f"1 AEAD_AES_256_GCM inline:{base64.b64encode(bytes([2]) * 44).decode()}",
    ]
    changed = data.replace(b"inline:LUV0", b"inline:LUVa")
    third = judge(changed, answered(to, changed, randomness=randomness))
    assert third.origin.version == "2"
    assert [media.crypto[0] != key for media, key in zip(third.media, ours, strict=True)] == [True, False]
    keys = [stream.crypto.keys for stream in to.streams() if stream.crypto]
    assert keys[0] != keys[1]
    assert keys[0][0].key[:3] == base64.b64decode("LUVa")


@pytest.mark.parametrize(
    ("policy", "over_tls", "flags"),
    [
        ("allow", False, [FLAG_SRTP_KEYS_VISIBLE]),
        ("allow", True, []),
        ("require_tls", True, []),
        ("require_tls", False, [FLAG_SRTP_NEEDS_TLS]),
        ("off", True, [FLAG_SRTP_REFUSED]),
        ("off", False, [FLAG_SRTP_REFUSED]),
    ],
)
def test_the_policy_of_srtp(policy: SrtpPolicy, over_tls: bool, flags: list[str]) -> None:
    """Whether keys that came in the clear are used is the site's choice; either way the session says so."""
    to, data = session(), offer("m=audio 6000 RTP/SAVP 8", CRYPTO, "m=audio 6002 RTP/AVP 8")
    parsed = sdp.parse(data)
    plans = to.planned(parsed, sdes.terms(policy, over_tls=over_tls))
    got = judge(data, to.answer(parsed, plans, {0: 20000, 1: 20002}, ADDRESS, counted_octets()))
    refused = policy == "off" or (policy == "require_tls" and not over_tls)
    assert [media.port for media in got.media] == [0 if refused else 20000, 20002]
    assert list(to.flags) == flags


def test_our_own_offer_of_srtp() -> None:
    """A re-INVITE without an offer in a session of SRTP is answered by an offer of SRTP; its answer has the new key."""
    to = session()
    data = offer("m=audio 6000 RTP/SAVP 8", CRYPTO, "a=label:1", "m=audio 6002 RTP/AVP 8", "a=label:2")
    before = sdp.parse(answered(to, data))
    ours = sdp.parse(to.answer(None, to.planned(None), {}, ADDRESS, counted_octets()))
    assert [(media.protocol, media.port) for media in ours.media] == [("RTP/SAVP", 20000), ("RTP/AVP", 20002)]
    assert ours.media[0].crypto == before.media[0].crypto, "our key stays while theirs does"
    to.answered_by_peer(sdp.parse(data.replace(b"inline:LUV0", b"inline:LUVa")))
    stream = to.streams()[0]
    assert stream.active
    assert stream.crypto is not None
    assert stream.crypto.keys[0].key[:3] == base64.b64decode("LUVa")


def test_version_rises_only_with_a_change() -> None:
    """REQ: RFC 3264 section 8: the version grows exactly if the description changed; the session id never does."""
    to = session()
    active = offer("m=audio 6000 RTP/AVP 8", "a=sendonly", "a=label:1")
    moved = active.replace(b"6000", b"7000").replace(b"o=- 1 1", b"o=- 1 2")
    held = active.replace(b"sendonly", b"inactive")
    origins = [sdp.parse(answered(to, data)).origin for data in (active, moved, held, held, active)]
    assert [origin.version for origin in origins] == ["1", "1", "2", "2", "3"]
    assert {origin.session_id for origin in origins} == {"4711"}


def test_ports_stay_through_hold_removal_and_return() -> None:
    """Our port of an m-line is the same for the session's life, also when the m-line comes back after port 0."""
    to = session()
    both = offer("m=audio 6000 RTP/AVP 8", "a=label:1", "m=audio 6002 RTP/AVP 8", "a=label:2")
    gone = both.replace(b"m=audio 6002", b"m=audio 0")
    first = judge(both, answered(to, both))
    assert [media.port for media in judge(gone, answered(to, gone)).media] == [20000, 0]
    assert [(stream.port, stream.active) for stream in to.streams()] == [(20000, True), (20002, False)]
    again = judge(both, answered(to, both, {}))
    assert [media.port for media in again.media] == [media.port for media in first.media]


def test_an_m_line_without_a_port_is_refused_and_flagged() -> None:
    """Where the pool had no port for a new m-line, that m-line alone is refused."""
    to = session()
    data = offer("m=audio 6000 RTP/AVP 8", "a=label:1", "m=audio 6002 RTP/AVP 8", "a=label:2")
    got = judge(data, answered(to, data, {0: 20000}))
    assert [media.port for media in got.media] == [20000, 0]
    assert list(to.flags) == [FLAG_PORTS_EXHAUSTED]


def test_our_own_offer_and_its_answer() -> None:
    """Asked for an offer we offer all that we can store, receiving only; the answer says which streams come."""
    to = session()
    plans = to.planned(None)
    text = to.answer(None, plans, {0: 20000}, ADDRESS, counted_octets())
    ours = sdp.parse(text).media[0]
    assert (ours.port, ours.direction) == (20000, Direction.RECVONLY)
    assert [codec.name for codec in ours.codecs()] == [
        *("PCMA", "PCMU", "G722", "G729", "OPUS", "CN", "telephone-event"),
    ]
    assert all(codec_of(codec.name, codec.clock_hz, codec.channels) for codec in ours.codecs()[:5])
    assert to.offer_outstanding
    to.answered_by_peer(sdp.parse(offer("m=audio 6000 RTP/AVP 0", "a=sendonly")))
    assert not to.offer_outstanding
    assert [(stream.active, [codec.name for codec in stream.codecs]) for stream in to.streams()] == [(True, ["PCMU"])]


def test_an_answer_with_too_few_m_lines() -> None:
    """What the peer's answer leaves out stays as we offered it: it may be sending all the same."""
    to = session()
    plans = answers.own_offer(["1", "2"])
    to.answer(None, plans, {0: 20000, 1: 20002}, ADDRESS, counted_octets())
    to.answered_by_peer(sdp.parse(offer("m=audio 0 RTP/AVP 0", "a=label:1")))
    assert [(stream.label, stream.active) for stream in to.streams()] == [("1", False), ("2", True)]


_DIRECTIONS = st.sampled_from(["", "a=sendonly", "a=recvonly", "a=inactive", "a=sendrecv"])
_MEDIA = st.builds(
    lambda kind, port, profile, formats, direction, label, crypto: "\r\n".join(
        line
        for line in (
            f"m={kind} {port} {profile} {' '.join(formats)}",
            direction,
            crypto,
            f"a=label:{label}" if label else "",
            *(
                f"a=rtpmap:{payload} {name}"
                for payload, name in (("96", "OPUS/48000/2"), ("101", "telephone-event/8000"))
            ),
        )
        if line
    ),
    st.sampled_from(["audio", "audio", "audio", "video"]),
    st.sampled_from([0, 6000, 6002]),
    st.sampled_from(["RTP/AVP", "RTP/AVP", "RTP/SAVP", "RTP/AVPF"]),
    st.lists(st.sampled_from(["0", "8", "9", "18", "13", "96", "97", "101"]), min_size=1, max_size=4, unique=True),
    _DIRECTIONS,
    st.sampled_from(["", "1", "2", "a_leg", "771757897"]),
    st.sampled_from(["", CRYPTO, OTHER_CRYPTO]),
)


@given(st.lists(st.lists(_MEDIA, max_size=4), min_size=1, max_size=4))
def test_no_sequence_of_offers_breaks_an_answer(offers: list[list[str]]) -> None:
    """Whatever is offered in turn, each answer holds to the rules, ports stay, and versions rise with changes."""
    to, previous = session(), None
    ports, keys = itertools.count(20000, 2), counted_octets()
    for media in offers:
        data = offer(*media)
        parsed = sdp.parse(data)
        plans = to.planned(parsed)
        known = dict(to.ports)
        text = to.answer(parsed, plans, {index: next(ports) for index in to.needs_ports(plans)}, ADDRESS, keys)
        judge(data, text)
        assert known.items() <= to.ports.items()
        lines = [line for line in text.split(b"\r\n") if not line.startswith(b"o=")]
        version = int(sdp.parse(text).origin.version)
        if previous is not None:
            assert (version > previous[1]) == (lines != previous[0])
        previous = (lines, version)
        assert all(dataclasses.is_dataclass(stream) for stream in to.streams())
