"""The recorder: what the media process is told, in what order, and what becomes of ports."""

import io
import json
import secrets

import pytest

from dualtone.domain import ids
from sbc_agent.media.messages import Session
from sbc_agent.protocol import sdp
from sbc_agent.protocol.events import SendMessage
from sbc_agent.protocol.message import Request, Response, parse
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.uas import ServerSettings
from sbc_agent.runtime.journal import Journal
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import QUARANTINE_SECONDS
from sbc_agent.runtime.recorder import Recorder
from tests.agent.protocol.builders import MEDIA_ADDRESS, METADATA, TWO_STREAMS, UDP, Src, crlf, tag_of
from tests.agent.protocol.memory_media import MemoryMedia, RecordedCall

HELD = TWO_STREAMS.replace("a=sendonly", "a=inactive", 1)


class Agent:
    """Core and recorder over the media process in memory; time is set by the test."""

    def __init__(self, ports: int = 20, journal: Journal | None = None, lines: io.StringIO | None = None) -> None:
        self.media = MemoryMedia(range(20000, 20000 + 2 * ports, 2))
        self.lines = lines or io.StringIO()
        self.has_room = True
        tokens = iter(f"{number:032x}" for number in range(1, 10**9))
        self.server = SipServer(ServerSettings(MEDIA_ADDRESS), lambda: next(tokens), secrets.token_bytes)
        draws = iter(range(10**9))
        log = Log(stream=self.lines, salt=b"salt")
        self.recorder = Recorder(
            self.server,
            self.media,
            log,
            journal=journal,
            has_room=lambda: self.has_room,
            randomness=lambda n: next(draws).to_bytes(n, "big"),
        )
        self.now = 1000.0

    def receive(self, data: bytes) -> list[Request | Response]:
        self.server.receive(data, UDP, self.now)
        return self.pump()

    def pump(self) -> list[Request | Response]:
        sent = []
        while (event := self.server.next_event()) is not None:
            if isinstance(event, SendMessage):
                self.recorder.keep(self.now)
                sent.append(parse(event.data))
            else:
                self.recorder.handle(event, self.now)
        self.recorder.keep(self.now)
        return sent

    def call(self, src: Src) -> Response:
        (answer,) = self.receive(src.invite())
        assert isinstance(answer, Response)
        if answer.status == 200:
            src.to_tag = tag_of(answer)
            self.receive(src.request("ACK"))
        return answer

    @property
    def recorded(self) -> RecordedCall:
        (found,) = self.media.calls.values()
        return found


def test_a_call_is_told_from_begin_to_end() -> None:
    """Begin with streams and formats, the session's facts, the signalling with its times, the end."""
    agent, src = Agent(), Src()
    answer = agent.call(src)
    agent.now += 10
    agent.receive(src.request("BYE"))
    told = agent.recorded
    offset = agent.media.clock.offset_us
    assert told.began_us == offset + 1_000_000_000
    (_, streams), *later = told.streams
    assert later == []
    assert [(s.stream, s.label, s.port, s.active) for s in streams] == [(0, "1", 20000, True), (1, "2", 20002, True)]
    assert [(f.payload_type, f.codec, f.clock_hz, f.channels) for f in streams[0].formats] == [
        (8, "PCMA", 8000, 1),
        (101, "telephone-event", 8000, 1),
    ]
    assert [media.port for media in sdp.parse(answer.body).media] == [20000, 20002]
    assert [(direction, raw.split(b" ")[0]) for _, direction, raw in told.signalling] == [
        (0, b"INVITE"),
        (1, b"SIP/2.0"),
        (0, b"ACK"),
        (0, b"BYE"),
        (1, b"SIP/2.0"),
    ]
    assert [at - offset for at, _, _ in told.signalling] == [1_000_000_000] * 3 + [1_010_000_000] * 2
    assert told.ended == (offset + 1_010_000_000, "bye", ())
    (call,) = agent.media.calls
    assert ids.parse_call_id(call) == call


def test_the_session_record() -> None:
    """The SESSION record has the form that the finaliser reads."""
    agent, src = Agent(), Src()
    agent.receive(src.invite(("User-Agent", "SBC/1"), ("User-to-User", "0012ff;encoding=hex")))
    (told,) = agent.recorded.sessions
    facts = dict(told)
    formats = [
        {"payload_type": 8, "codec": "PCMA", "clock_hz": 8000, "channels": 1},
        {"payload_type": 101, "codec": "telephone-event", "clock_hz": 8000, "channels": 1},
    ]
    assert facts.pop("media") == [
        {"stream": 0, "label": "1", "formats": formats},
        {"stream": 1, "label": "2", "formats": formats},
    ]
    assert facts.pop("policy") == {
        "version": 0,
        "rule": "default",
        "record": "always",
        "basis": "legitimate_interests",
        "decision": "keep",
        "how": "rule",
        "at_us": agent.recorded.began_us,
        "by": "",
    }
    assert facts == {
        "src": "198.51.100.7",
        "end": "",
        "sip_call_id": src.call_id,
        "user_agent": "SBC/1",
        "flags": [],
        "sessions": [{"session_id": "S", "sip_session_id": "abc@example.com"}],
        "groups": [],
        "participants": [
            {
                "participant_id": "A",
                "aor": "sip:alice@example.com",
                "name": "Alice",
                "role": "unknown",
                "extensions": {},
            },
            {"participant_id": "B", "aor": "sip:bob@example.com", "name": "", "role": "unknown", "extensions": {}},
        ],
        "streams": [
            {"label": "1", "stream_id": "X", "participant_id": "A"},
            {"label": "2", "stream_id": "Y", "participant_id": "B"},
        ],
        "extensions": {"User-to-User": "0012ff;encoding=hex"},
    }


def test_hold_and_resume() -> None:
    """A held m-line is an inactive stream from the answer on; nothing is told where nothing changed."""
    agent, src = Agent(), Src()
    agent.call(src)
    for text in (HELD, HELD, TWO_STREAMS):
        agent.now += 5
        agent.receive(src.invite(sdp=text))
        agent.receive(src.request("ACK"))
    assert [[stream.active for stream in streams] for _, streams in agent.recorded.streams] == [
        [True, True],
        [False, True],
        [True, True],
    ]
    assert [at - agent.media.clock.offset_us for at, _ in agent.recorded.streams] == [
        1_000_000_000,
        1_005_000_000,
        1_015_000_000,
    ]
    assert len(agent.recorded.sessions) == 1


def test_metadata_alone_changes_the_session() -> None:
    """An UPDATE with metadata changes the facts and not the streams."""
    agent, src = Agent(), Src()
    agent.call(src)
    later = METADATA.replace("sip:bob@example.com", "sip:carol@example.com").encode()
    agent.receive(src.request("UPDATE", ("Content-Type", "application/rs-metadata"), body=later))
    assert [facts["participants"][1]["aor"] for facts in agent.recorded.sessions] == [
        "sip:bob@example.com",
        "sip:carol@example.com",
    ]
    assert len(agent.recorded.streams) == 1


def test_an_empty_pool_is_503_without_retry_after() -> None:
    """Without ports for all its streams a call is refused at once; the calls that there are go on."""
    agent = Agent(ports=3)
    first, second = Src(call_id="1"), Src(call_id="2")
    assert agent.call(first).status == 200
    refused = agent.call(second)
    assert (refused.status, refused.header("retry-after")) == (503, None)
    assert len(agent.media.calls) == 1
    assert agent.recorder.calls == 1


def test_ports_come_back_after_quarantine_and_release() -> None:
    """A call's ports are handed out again when 32 s have passed and the media process has let go."""
    agent = Agent(ports=2)
    first = Src(call_id="1")
    agent.call(first)
    agent.receive(first.request("BYE"))
    assert agent.recorder.calls == 0
    agent.now += QUARANTINE_SECONDS + 1
    assert agent.call(Src(call_id="2")).status == 503
    agent.media.free(20000, 20002)
    assert agent.call(Src(call_id="3")).status == 200
    assert len(agent.media.calls) == 2


def test_a_stream_more_than_the_pool_holds_is_refused_alone() -> None:
    """When a re-INVITE wants a port that there is none of, the call goes on with the streams it has."""
    agent, src = Agent(ports=2), Src()
    agent.call(src)
    (answer,) = agent.receive(src.invite(sdp=TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\na=sendonly\n"))
    assert isinstance(answer, Response)
    assert [media.port for media in sdp.parse(answer.body).media] == [20000, 20002, 0]
    assert "ports-exhausted" in agent.recorded.sessions[-1]["flags"]


def test_shutdown_ends_every_call() -> None:
    """Draining ends recordings as `shutdown` and says BYE to each SRC."""
    agent = Agent()
    for number in range(3):
        agent.call(Src(call_id=str(number)))
    agent.server.end_all("shutdown", agent.now)
    byes = agent.pump()
    assert [sent.method for sent in byes if isinstance(sent, Request)] == ["BYE"] * 3
    assert [told.ended[1] for told in agent.media.calls.values() if told.ended] == ["shutdown"] * 3


def test_flags_reach_the_end() -> None:
    """What was odd about a call is in the session's facts and in its end."""
    agent, src = Agent(), Src()
    agent.receive(src.invite(metadata="<recording><a>B&C</a></recording>"))
    src.to_tag = f"{2:032x}"
    agent.receive(src.request("BYE"))
    told = agent.recorded
    assert told.sessions[0]["flags"] == ["metadata-malformed"]
    assert told.ended is not None
    assert told.ended[2] == ("metadata-malformed",)


def test_no_personal_data_in_logs() -> None:
    """Logs name calls by our own ids and a keyed hash: no Call-ID, no address, no name."""
    agent, src = Agent(ports=2), Src(call_id="4420-7946-0018@198.51.100.7")
    agent.call(src)
    agent.call(Src(call_id="other-caller@198.51.100.7"))
    agent.receive(src.request("BYE"))
    text = agent.lines.getvalue()
    for personal in ("4420", "198.51.100", "alice", "Alice", "bob", "other-caller"):
        assert personal not in text
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["call_began", "ports_exhausted", "call_ended"]


def test_a_media_process_that_is_gone_does_not_stop_sip() -> None:
    """When the media process has ended, SIP is still answered and the failure is logged."""
    agent, src = Agent(), Src()
    agent.call(src)
    agent.media.gone = True
    (answer,) = agent.receive(src.request("BYE"))
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert "media_unavailable" in agent.lines.getvalue()


def test_a_call_that_nobody_would_record_is_left_to_another_recorder() -> None:
    """REQ: INTEROP.md: SRCs fail over on an answer; 503 goes without Retry-After."""
    agent, src = Agent(), Src()
    agent.media.gone = True
    (answer,) = agent.receive(src.invite())
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert b"retry-after" not in bytes(answer).lower()
    assert agent.media.calls == {}
    agent.media.gone = False
    (answer,) = agent.receive(Src(call_id="another").invite())
    assert isinstance(answer, Response)
    assert answer.status == 200


def test_a_full_spool_takes_no_new_call_and_ends_none() -> None:
    """New INVITEs are left to another recorder, without Retry-After; a call in progress changes and ends as ever."""
    agent, src = Agent(), Src()
    assert agent.call(src).status == 200
    agent.has_room = False
    (answer,) = agent.receive(Src(call_id="another").invite())
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert b"retry-after" not in bytes(answer).lower()
    assert json.loads(agent.lines.getvalue().splitlines()[-1])["event"] == "no_room_for_call"
    (answer,) = agent.receive(src.invite())
    assert isinstance(answer, Response)
    assert answer.status == 200, "a re-INVITE is no new call"
    (answer,) = agent.receive(src.request("BYE"))
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert len(agent.media.calls) == 1


@pytest.mark.parametrize(
    "text", [crlf(TWO_STREAMS.replace("a=label:2", "a=label:1")), crlf(TWO_STREAMS.replace("a=label:2\n", ""))]
)
def test_labels_that_tell_nothing(text: bytes) -> None:
    """Equal or missing labels are no reason to refuse: streams are told apart by their index."""
    agent, src = Agent(), Src()
    (answer,) = agent.receive(src.invite(sdp=text.decode()))
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert [stream.stream for stream in agent.recorded.streams[0][1]] == [0, 1]


REFUSED = {
    "SRTP alone": (TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP"), (), "srtp-refused", 488),
    "an unreadable description": ("v=0\nm=audio\n", (), "offer-refused", 488),
    "an unknown extension": (TWO_STREAMS, (("Require", "frob"),), "extension", 420),
    "an encoding": (TWO_STREAMS, (("Content-Encoding", "gzip"),), "encoding", 415),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_offers_are_logged_with_the_reason(name: str) -> None:
    """A call that is not recorded leaves a line that says why, so that somebody can mend the SBC."""
    text, headers, reason, status = REFUSED[name]
    agent = Agent()
    (answer,) = agent.receive(Src().invite(*headers, sdp=text))
    assert isinstance(answer, Response)
    assert answer.status == status
    line = json.loads(agent.lines.getvalue())
    assert (line["event"], line["reason"], line["status"]) == ("offer_refused", reason, status)
    assert agent.media.calls == {}


def test_octets_that_are_no_utf_8_reach_the_record_as_text() -> None:
    """SBCs send Latin-1 in headers: the metadata record is written all the same, and the answer echoes the octets."""
    agent, src = Agent(), Src(call_id="\udce9t\udce9@198.51.100.7")
    answer = agent.call(src)
    assert answer.header("call-id") == src.call_id
    agent.receive(src.invite(("User-Agent", "S\udcfcd"), ("Session-ID", "\udcff")))
    facts = agent.recorded.sessions[-1]
    assert facts["user_agent"] == "S\ufffdd"
    assert facts["extensions"]["Session-ID"] == "\ufffd"
    assert all(Session(call=call, session=dict(facts)).encode() for call in agent.media.calls)


def test_a_record_that_cannot_be_passed_on_does_not_end_the_call() -> None:
    """The media process's channel refuses metadata that is too large: the call is recorded on, and it is told."""
    agent = Agent()
    agent.media.refuses_sessions = True
    assert agent.call(Src()).status == 200
    assert agent.recorded.signalling
    assert "record_refused" in agent.lines.getvalue()


def test_keys_reach_the_media_process() -> None:
    """What the SRC's packets are protected with is told with the streams, and told anew when it changes."""
    agent, src = Agent(), Src()
    line = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:LUV0oNDOSB9F0gw60mV/9/ySYI27BYvNw6eII5Ed|2^31|1:4"
    secured = TWO_STREAMS.replace("6000 RTP/AVP 8 101", f"6000 RTP/SAVP 8 101\n{line}")
    (answer,) = agent.receive(src.invite(sdp=secured))
    src.to_tag = tag_of(answer)
    agent.receive(src.request("ACK"))
    agent.receive(src.invite(sdp=secured.replace("inline:LUV0", "inline:LUVa")))
    keys = [streams[0].crypto for _, streams in agent.recorded.streams]
    assert [(key.tag, key.suite, key.key[:3].hex(), key.mki) for told in keys for key in told] == [
        (7, "AES_CM_128_HMAC_SHA1_80", "2d4574", b"\0\0\0\1"),
        (7, "AES_CM_128_HMAC_SHA1_80", "2d455a", b"\0\0\0\1"),
    ]
    assert [streams[1].crypto for _, streams in agent.recorded.streams] == [(), ()]
    recorded = b"".join(raw for _, _, raw in agent.recorded.signalling)
    assert recorded.count(b"inline:*") == 4, "two offers, two answers"
    assert b"LUV" not in recorded
    assert b"LUV" not in repr(agent.recorded).encode()
