"""INTEROP, "SRTP (SDES, RFC 4568)": each m-line by its own profile, one line in the answer, no key in any record."""

import base64
from dataclasses import replace

import pytest

from sbc_agent.protocol import body, sdp
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.sdes import (
    FLAG_SRTP_KEYS_VISIBLE,
    FLAG_SRTP_NEEDS_TLS,
    FLAG_SRTP_REFUSED,
    KEY_BYTES,
    SUITES,
    SrtpPolicy,
    Suite,
)
from sbc_agent.protocol.uas import ServerSettings
from tests.agent.protocol.builders import (
    MEDIA_ADDRESS,
    TCP,
    TWO_STREAMS,
    UDP,
    Src,
    Under,
    capture,
    crlf,
    only,
    sample,
    status,
)
from tests.agent.protocol.interop.lines import shows
from tests.agent.protocol.interop.vendors import capture_requests, description_of, opened, whole

TLS = Flow("tls", ("198.51.100.7", 40001), ("192.0.2.1", 5061), 2)
CUBE = "shape_cisco_cube_headers_100rel.txt"


def line(suite: str, key: bytes, tag: int = 1, rest: str = "") -> str:
    return f"a=crypto:{tag} {suite} inline:{base64.b64encode(key).decode()}{rest}"


def offer(first: str, second: str = "", profiles: tuple[str, str] = ("RTP/SAVP", "RTP/AVP")) -> str:
    """Two m-lines with these lines of theirs."""
    return (
        "v=0\no=- 1 1 IN IP4 198.51.100.7\ns=-\nc=IN IP4 198.51.100.7\nt=0 0\n"
        f"m=audio 6000 {profiles[0]} 8\na=rtpmap:8 PCMA/8000\n{first}\na=sendonly\na=label:1\n"
        f"m=audio 6002 {profiles[1]} 8\na=rtpmap:8 PCMA/8000\n{second}{'' if not second else chr(10)}a=sendonly\n"
        "a=label:2\n"
    )


def invite(text: str) -> bytes:
    return whole(
        CUBE, body=crlf(text), add=("Contact: <sip:198.51.100.2:5060>;+sip.src", "Content-Type: application/sdp")
    )


def own(answer: Response) -> list[list[str]]:
    """The crypto lines of an answer, taken apart, for each m-line."""
    return [value.split() for media in sdp.parse(answer.body).media for value in media.crypto]


@shows("K1a", "X6")
def test_mixed_profiles() -> None:
    """SAVP is answered by SAVP with one key of ours, AVP by AVP with none, though a key stands beside it."""
    key = bytes(range(30))
    text = offer(line("AES_CM_128_HMAC_SHA1_80", key), line("AES_CM_128_HMAC_SHA1_80", key))
    found = opened(invite(text))
    ours = base64.b64encode(b"\1" * 30).decode()
    assert found.answer.body.decode().split("\r\n")[5:-1] == [
        "m=audio 20000 RTP/SAVP 8",
        "a=rtpmap:8 PCMA/8000",
        "a=recvonly",
        f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{ours}",
        "a=label:1",
        "m=audio 20002 RTP/AVP 8",
        "a=rtpmap:8 PCMA/8000",
        "a=recvonly",
        "a=label:2",
    ]
    streams = found.under.updated[-1].streams
    assert [stream.crypto and stream.crypto.keys[0].key for stream in streams] == [key, None]
    assert found.active == [True, True]


@shows("K1a")
@pytest.mark.parametrize("profiles", [("RTP/SAVPF", "RTP/SAVP"), ("RTP/SAVP", "RTP/AVPF"), ("RTP/AVP", "RTP/SAVPF")])
def test_each_answer_repeats_its_profile(profiles: tuple[str, str]) -> None:
    """The profile with feedback is answered as such."""
    keyed = line("AES_CM_128_HMAC_SHA1_80", bytes(30))
    found = opened(invite(offer(keyed, keyed, profiles)))
    assert [(media.protocol, len(media.crypto)) for media in found.description.media] == [
        (profile, int("SAVP" in profile)) for profile in profiles
    ]


@shows("K1b")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("other_spelling", [False, True])
def test_every_suite(suite: Suite, other_spelling: bool) -> None:
    """Each of the six is answered under its own name and spelling, with a key as long as it asks for."""
    key = bytes(range(KEY_BYTES[suite]))
    spelling = suite.replace("AES_256_CM", "AES_CM_256") if other_spelling else suite
    found = opened(invite(offer(line(spelling, key, tag=77))))
    ((tag, named, inline),) = own(found.answer)
    assert (tag, named) == ("77", spelling)
    assert len(base64.b64decode(inline.removeprefix("inline:"), validate=True)) == len(key)
    crypto = found.under.updated[-1].streams[0].crypto
    assert crypto is not None
    assert (crypto.suite, crypto.keys[0].key) == (suite, key)


@shows("K1b", "K1c")
@pytest.mark.parametrize(
    "value", [text for text in sample("shape_srtp_sdes_crypto_lines.txt").decode().splitlines() if text[:2] == "a="]
)
def test_every_quirk(value: str) -> None:
    """A space at the end, no padding, RTCP in the clear, lifetimes, MKI: each line that was seen is answered."""
    found = opened(invite(offer(value)))
    ((tag, suite, inline, *parameters),) = own(found.answer)
    assert [tag, suite] == value.removeprefix("a=crypto:").split()[:2]
    assert inline.count("|") == 0, "lifetime and MKI are the sender's: we send nothing"
    assert parameters == (["UNENCRYPTED_SRTCP"] if "UNENCRYPTED_SRTCP" in value else [])
    crypto = found.under.updated[-1].streams[0].crypto
    assert crypto is not None
    assert crypto.keys[0].mki == {"|2^31|1:1": b"\1", "|1:4": b"\0\0\0\1"}.get(value[value.find("|") :].strip(), b"")


@shows("X6", "K1b")
def test_twelve_lines_and_a_fingerprint() -> None:
    """The captured offer: the strongest suite of twelve on both m-lines, the fingerprint passed over."""
    (asked, *_) = capture_requests(capture("31")["dialogs"][0])
    found = opened(bytes(asked))
    assert [chosen[:2] for chosen in own(found.answer)] == [["1", "AEAD_AES_256_GCM"]] * 2
    assert b"fingerprint" not in found.answer.body
    assert b"a=setup" not in found.answer.body
    assert [media.protocol for media in found.description.media] == ["RTP/SAVP", "RTP/SAVP"]
    offered = [media.crypto[0].split("inline:")[1] for media in sdp.parse(description_of(bytes(asked)).encode()).media]
    keys = [stream.crypto.keys[0].key for stream in found.under.updated[-1].streams if stream.crypto]
    assert [base64.b64encode(key).decode().rstrip("=") for key in keys] == offered


@shows("X6")
def test_suites_repeated_with_other_lifetimes() -> None:
    """Twelve lines, each suite twice: the first of the strongest."""
    lines = [
        line(suite, bytes([number]) * KEY_BYTES[suite], tag=number, rest=rest)
        for number, (suite, rest) in enumerate(
            ((suite, rest) for rest in ("|2^31", "|2^48|1:4") for suite in reversed(SUITES)), 1
        )
    ]
    assert len(lines) == 12
    found = opened(invite(offer("\n".join([*lines, "a=setup:actpass", "a=fingerprint:sha-256 64:11:03"]))))
    assert own(found.answer)[0][:2] == ["6", SUITES[0]]
    crypto = found.under.updated[-1].streams[0].crypto
    assert crypto is not None
    assert crypto.keys[0].key == bytes([6]) * KEY_BYTES[SUITES[0]]


@shows("K2a", "K2b")
def test_keys_are_the_senders_and_change_with_an_offer() -> None:
    """What the offer names opens what comes; a re-INVITE that names another key brings it, one that does not does not.

    Our own key, with which we send nothing, changes with theirs, and with it the version of our description.
    """
    before, after = bytes(range(30)), bytes(range(1, 31))
    text = offer(line("AES_CM_128_HMAC_SHA1_80", before))
    found = opened(invite(text))
    seen, answers = [], [found.answer]
    for key in (before, after, after):
        changed = offer(line("AES_CM_128_HMAC_SHA1_80", key))
        asked = found.src.request("INVITE", ("Content-Type", "application/sdp"), body=crlf(changed))
        answer = only(found.under.receive(asked))
        assert isinstance(answer, Response)
        found.under.receive(found.src.request("ACK"))
        crypto = found.under.updated[-1].streams[0].crypto
        seen.append(crypto and crypto.keys[0].key)
        answers.append(answer)
    assert seen == [before, after, after]
    assert [sdp.parse(answer.body).origin.version for answer in answers] == ["1", "1", "2", "2"]
    assert own(answers[0]) == own(answers[1]) != own(answers[2]) == own(answers[3])


@shows("K2c")
def test_a_hold_keeps_the_key() -> None:
    """Inactive and back with the same key: the same context goes on, whatever its roll-over counter has become."""
    text = offer(line("AES_CM_128_HMAC_SHA1_80", bytes(range(30))))
    found = opened(invite(text))
    first = found.under.updated[-1].streams[0].crypto
    for changed in (text.replace("a=sendonly", "a=inactive"), text):
        only(found.under.receive(found.src.request("UPDATE", ("Content-Type", "application/sdp"), body=crlf(changed))))
        assert found.under.updated[-1].streams[0].crypto == first
    assert [event.streams[0].active for event in found.under.updated] == [True, False, True]


@shows("K2a")
def test_a_refresh_without_keys() -> None:
    """An offer of SRTP that names no key at all leaves those that there are: the recording goes on as it was."""
    text = offer(line("AES_CM_128_HMAC_SHA1_80", bytes(range(30))))
    found = opened(invite(text))
    bare = "\n".join(one for one in text.split("\n") if not one.startswith("a=crypto"))
    asked = found.src.request("INVITE", ("Content-Type", "application/sdp"), body=crlf(bare))
    assert only(found.under.receive(asked)).body == found.answer.body
    assert found.active == [True, True]
    assert status(Under().receive(invite(bare.replace("RTP/AVP", "RTP/SAVP")))) == 488, "none ever came"


POLICIES: list[tuple[SrtpPolicy, Flow, list[str], list[bool]]] = [
    ("allow", UDP, [FLAG_SRTP_KEYS_VISIBLE], [True, True]),
    ("allow", TCP, [FLAG_SRTP_KEYS_VISIBLE], [True, True]),
    ("allow", TLS, [], [True, True]),
    ("require_tls", UDP, [FLAG_SRTP_NEEDS_TLS], [False, True]),
    ("require_tls", TCP, [FLAG_SRTP_NEEDS_TLS], [False, True]),
    ("require_tls", TLS, [], [True, True]),
    ("off", TLS, [FLAG_SRTP_REFUSED], [False, True]),
]


@shows("K3")
@pytest.mark.parametrize(("policy", "flow", "flags", "taken"), POLICIES)
def test_the_policy(policy: SrtpPolicy, flow: Flow, flags: list[str], taken: list[bool]) -> None:
    """What a site allows is taken and flagged; what it does not is refused in its place, the rest recorded."""
    under = Under(settings=replace(ServerSettings(MEDIA_ADDRESS), srtp=policy))
    src = Src(flow=flow)
    answer = under.call(src, sdp=offer(line("AES_CM_128_HMAC_SHA1_80", bytes(30))))
    assert [media.port != 0 for media in sdp.parse(answer.body).media] == taken
    assert [len(media.crypto) for media in sdp.parse(answer.body).media] == [int(taken[0]), 0]
    assert under.updated[-1].facts["flags"] == flags


@shows("K3")
def test_nothing_but_srtp_where_it_is_refused() -> None:
    """An offer of which the policy takes nothing gets 488: better another recorder than a call that is not recorded."""
    under = Under(settings=ServerSettings(MEDIA_ADDRESS, srtp="require_tls"))
    secured = TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP").replace(
        "a=label", f"{line('AES_CM_128_HMAC_SHA1_80', bytes(30))}\na=label"
    )
    assert status(under.receive(Src().invite(sdp=secured))) == 488
    assert under.server.sessions == 0


@shows("K3")
def test_no_key_is_recorded() -> None:
    """In the signalling record keys are blanked, octet by octet, theirs and ours; all else is as it was on the wire."""
    (asked, *_) = capture_requests(capture("31")["dialogs"][0])
    found = opened(bytes(asked))
    received, sent, *_ = (event.raw for event in found.under.recorded)
    assert len(received) == len(bytes(asked))
    assert len(sent) == len(bytes(found.answer))
    differing = [
        (before, after)
        for before, after in zip(bytes(asked).split(b"\r\n"), received.split(b"\r\n"), strict=True)
        if before != after
    ]
    assert len(differing) == 24
    for before, after in differing:
        head, _, key = before.partition(b"inline:")
        assert after == head + b"inline:" + b"*" * len(key)
    assert sent.count(b"inline:" + b"*" * 60) == 2
    assert all(b"nVZHjuJyLUV0" not in event.raw for event in found.under.recorded)


@shows("K3")
def test_no_key_is_shown() -> None:
    """Nothing that a traceback could show of a message, of what was read of it, or of its answer has a key in it."""
    (asked, *_) = capture_requests(capture("31")["dialogs"][0])
    found = opened(bytes(asked))
    shown = [asked, body.read(asked), sdp.parse(body.read(asked).sdp or b""), found.answer]
    for item in (*shown, *found.under.updated, *found.under.recorded, *found.under.messages):
        assert "nVZHjuJyLUV0" not in repr(item)
        assert "inline:" not in repr(item)
