"""Calls over a restart: what the next run goes on with, what it tells, and what becomes of the rest."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.ids import CallId
from sbc_agent.media.messages import Adopted, Alarm
from sbc_agent.protocol import message, sdp
from sbc_agent.protocol.message import Request, Response
from sbc_agent.runtime import journal
from sbc_agent.runtime.journal import Journal, Legacy
from sbc_agent.runtime.journal_file import JournalFile
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.port_pool import QUARANTINE_SECONDS
from tests.agent.protocol.builders import METADATA, TWO_STREAMS, Src, crlf, only, status, tag_of
from tests.agent.runtime.test_recorder import HELD, Agent

BOOT = "0f1e2d3c-0000-4000-8000-000000000001"
OFFSET_US = 1_000_000_000_000


class Listener:
    """The control channel, as far as the recorder sees it: keeps what it hears, gives a token for each party."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.adopted: list[tuple[str, frozenset[str], int]] = []
        self.instead_of: list[CallId | None] = []

    def on_call(self, call: CallId, facts: Mapping[str, Any], state: str, at_us: int, **_: object) -> Collection[str]:
        assert at_us > OFFSET_US
        self.heard.append((call, state))
        return {person["aor"] for person in facts.get("participants", ())}

    def on_adopted(
        self,
        call: CallId,
        matches: Collection[str],
        began_at_us: int,
        instead_of: CallId | None = None,
        **_: object,
    ) -> None:
        self.instead_of.append(instead_of)
        self.adopted.append((call, frozenset(matches), began_at_us))

    def on_choice(self, *_: object) -> None:
        raise AssertionError("nobody chose")

    def on_order(self, *_: object) -> None:
        raise AssertionError("nothing was silenced")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def run(directory: Path, *, ports: int = 20, now: float = 1000.0) -> tuple[Agent, Legacy]:
    """One run of the agent: what an earlier one left is taken up."""
    legacy = journal.inherit(directory, boot_id=BOOT, now=now)
    lines = io.StringIO()
    log = Log(stream=lines, salt=b"salt")
    agent = Agent(ports, Journal(directory, boot_id=BOOT, clock_offset_us=OFFSET_US, log=log), lines)
    agent.now = now
    agent.recorder.inherit(legacy, now)
    return agent, legacy


def events(agent: Agent) -> list[str]:
    return [json.loads(line)["event"] for line in agent.lines.getvalue().splitlines()]


def test_a_call_goes_on(directory: Path) -> None:
    """The next run adopts it with its ports and streams, answers its peer, and tells its end; then nothing is left."""
    first, _ = run(directory)
    src = Src()
    first.call(src)
    first.receive(src.invite(sdp=HELD))
    first.receive(src.request("ACK"))
    (call,) = first.media.calls
    second, legacy = run(directory, now=1010.0)
    assert legacy.clock_offset_us == OFFSET_US
    told = second.recorded
    assert (list(second.media.calls), told.adopted, second.media.has_recovered) == ([call], True, True)
    assert told.began_us == OFFSET_US + 1_010_000_000
    ((_, streams),) = told.streams
    assert [(s.stream, s.label, s.port, s.active) for s in streams] == [(0, "1", 20000, False), (1, "2", 20002, True)]
    assert streams == first.recorded.streams[-1][1]
    assert [facts["sip_call_id"] for facts in told.sessions] == [src.call_id]
    second.media.tell(Adopted(call=call, epoch=1))
    assert (second.recorder.calls, second.recorder.adopted) == (1, 1)
    resumed = only(second.receive(src.invite(sdp=TWO_STREAMS)))
    assert isinstance(resumed, Response)
    assert [media.port for media in sdp.parse(resumed.body).media] == [20000, 20002]
    assert [stream.active for stream in told.streams[-1][1]] == [True, True]
    second.receive(src.request("ACK"))
    assert status(second.receive(src.request("BYE"))) == 200
    assert told.ended is not None
    assert told.ended[:2] == (OFFSET_US + 1_010_000_000, "bye")
    third, legacy = run(directory, now=1011.0)
    assert (legacy.live, third.media.calls) == ([], {})
    assert events(second) == ["call_adopted", "call_ended"]


def test_a_call_in_srtp_goes_on_when_its_peer_names_the_keys_again(directory: Path) -> None:
    """No key is in the journal: the stream is adopted inactive, the SBC is asked, and its answer opens what comes."""
    line = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:LUV0oNDOSB9F0gw60mV/9/ySYI27BYvNw6eII5Ed"
    secured = TWO_STREAMS.replace("6000 RTP/AVP 8 101", f"6000 RTP/SAVP 8 101\n{line}")
    first, _ = run(directory)
    src = Src()
    src.to_tag = tag_of(only(first.receive(src.invite(sdp=secured))))
    first.receive(src.request("ACK"))
    assert [len(stream.crypto) for stream in first.recorded.streams[-1][1]] == [1, 0]
    assert all(b"LUV0" not in file.read_bytes() for file in directory.iterdir())
    second, _ = run(directory, now=1010.0)
    told = second.recorded
    assert [(stream.active, stream.crypto) for stream in told.streams[-1][1]] == [(False, ()), (True, ())]
    second.server.handle_timer(second.now)
    asked = only(second.pump())
    assert isinstance(asked, Request)
    assert asked.method == "UPDATE"
    kept = [(name, value) for name, value in asked.headers if name in {"Via", "From", "To", "Call-ID", "CSeq"}]
    answer = message.response(200, "OK", [*kept, ("Content-Type", "application/sdp")], crlf(secured))
    assert second.receive(bytes(answer)) == []
    streams = told.streams[-1][1]
    assert [stream.active for stream in streams] == [True, True]
    assert streams[0].crypto == first.recorded.streams[-1][1][0].crypto


def test_killed_before_the_answer_left(directory: Path) -> None:
    """What a peer could not know of is not there; what it could, is: the journal is written before the 200 leaves."""
    first, src = run(directory)[0], Src()
    invite = src.invite()
    first.receive(invite)
    second, _ = run(directory)
    again = only(second.receive(invite))
    assert isinstance(again, Response)
    assert again.status == 200
    assert len(second.media.calls) == 1
    assert second.recorded.adopted
    assert second.recorded.sessions[-1]["participants"], "the copy tells the metadata again"


def test_the_journal_is_written_before_an_answer_leaves(directory: Path) -> None:
    """At every message that is sent, the directory holds what a later run must know to stand by it."""
    agent, src = run(directory)[0], Src()
    seen: list[int] = []
    keep = agent.recorder.keep

    def watched(now: float) -> None:
        keep(now)
        seen.append(sum(b'"session"' in entry for _, entry in JournalFile(directory / "calls")))

    agent.recorder.keep = watched  # type: ignore[method-assign]
    agent.call(src)
    agent.receive(src.request("BYE"))
    assert seen == [1, 1, 1, 0, 0]  # the 200, then idle; idle after the ACK; the 200 of the BYE, then idle


def test_ports_of_live_calls_are_not_handed_out(directory: Path) -> None:
    """New calls get other ports; a pool that is all in use refuses."""
    first, src = run(directory, ports=4)[0], Src()
    first.call(src)
    second, _ = run(directory, ports=4, now=1001.0)
    assert second.recorder.ports_in_use == 2
    answer = second.call(Src(call_id="new"))
    assert [media.port for media in sdp.parse(answer.body).media] == [20004, 20006]
    assert second.call(Src(call_id="more")).status == 503
    second.receive(src.request("BYE"))
    second.media.free(20000, 20002)
    second.now += QUARANTINE_SECONDS + 1
    assert second.call(Src(call_id="later")).status == 200


def test_ports_that_rest_go_on_resting(directory: Path) -> None:
    """Their quarantine counts over the restart."""
    first, src = run(directory, ports=2)[0], Src()
    first.call(src)
    first.receive(src.request("BYE"))
    second, _ = run(directory, ports=2, now=1000.0 + QUARANTINE_SECONDS - 1)
    assert second.call(Src(call_id="early")).status == 503
    second.now += 2
    assert second.call(Src(call_id="late")).status == 200


def test_a_call_whose_ports_are_gone_is_given_up(directory: Path) -> None:
    """The peer is told by BYE, so that it begins anew; the spool is closed by recovery, not by an end of ours."""
    first, src = run(directory, ports=4)[0], Src()
    first.call(Src(call_id="keeps 20000 and 20002"))
    first.call(src)
    first.receive(Src(call_id="keeps 20000 and 20002", to_tag=f"{2:032x}", cseq=1).request("BYE"))
    second, _ = run(directory, ports=2)
    bye = only(second.pump())
    assert isinstance(bye, Request)
    assert (bye.method, bye.header("call-id")) == ("BYE", src.call_id)
    assert second.media.calls == {}
    assert second.media.has_recovered
    assert events(second) == ["adoption_failed"]
    assert run(directory)[1].live == []


def test_a_call_that_the_media_process_cannot_adopt_begins_anew(directory: Path) -> None:
    """Killed before the spool had anything of it, or its files are gone: its dialog is recorded as another call."""
    first, src = run(directory, ports=2)[0], Src()
    first.call(src)
    second, _ = run(directory, ports=2, now=1001.0)
    listener = Listener()
    second.recorder.attach(listener)
    (old,) = second.media.calls
    second.media.tell(Alarm(kind="command", call="01K00000000000000000000000"))
    second.media.tell(Alarm(kind="command", call=old))
    second.media.tell(Alarm(kind="command", call=old))
    new = next(call for call in second.media.calls if call != old)
    assert second.media.calls[new].streams[0][1] == first.recorded.streams[0][1]
    assert [facts["sip_call_id"] for facts in second.media.calls[new].sessions] == [src.call_id]
    assert listener.heard == [(old, "ended")]
    assert [call for call, _, _ in listener.adopted] == [old, new]
    assert listener.instead_of == [None, old]
    late = Listener()
    second.recorder.attach(late)
    assert [(call, began_us) for call, _, began_us in late.adopted] == [(new, second.media.calls[new].began_us)]
    assert late.instead_of == [old], "a control channel that comes later learns it all the same"
    assert events(second) == ["adoption_failed", "call_began"]
    third, legacy = run(directory, ports=2, now=1002.0)
    assert [live.call for live in legacy.live] == [new]
    assert list(third.media.calls) == [new]
    assert status(second.receive(src.request("BYE"))) == 200
    told = second.media.calls[new].ended
    assert told is not None
    assert told[1] == "bye"


def test_a_dialog_that_is_there_twice(directory: Path) -> None:
    """Killed while a call began anew: the dialog is adopted once, and the other entry is gone for good."""
    first, src = run(directory, ports=4)[0], Src()
    first.call(src)
    file = JournalFile(directory / "calls")
    ((call, entry),) = file
    file.put("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", entry)
    second, legacy = run(directory, ports=4)
    assert len(legacy.live) == 2
    assert list(second.media.calls) == [call]
    assert events(second) == ["adoption_failed"]
    assert second.recorder.ports_in_use == 2
    assert len(run(directory, ports=4)[1].live) == 1


def test_a_call_that_was_being_ended(directory: Path) -> None:
    """Killed before its end was written: it is adopted, and its ports are not taken for free or resting ones."""
    first, src = run(directory, ports=2)[0], Src()
    first.call(src)
    path = directory / "calls"
    text = path.read_bytes()
    bye = src.request("BYE")
    first.receive(bye)
    path.write_bytes(text)
    second, legacy = run(directory, ports=2)
    assert (len(legacy.live), len(legacy.resting)) == (1, 0)
    second.now += QUARANTINE_SECONDS + 1
    assert second.call(Src(call_id="new")).status == 503
    assert status(second.receive(bye)) == 200


def test_the_control_channel_hears_of_every_call(directory: Path) -> None:
    """Tokens are in the journal; the next run is known by them until the peer tells its facts again."""
    first, src = run(directory)[0], Src()
    listener = Listener()
    first.recorder.attach(listener)
    first.call(src)
    (call,) = first.media.calls
    assert listener.heard == [(call, "live")]
    parties = frozenset({"sip:alice@example.com", "sip:bob@example.com"})
    second, legacy = run(directory)
    assert [live.matches for live in legacy.live] == [parties]
    listener = Listener()
    second.recorder.attach(listener)
    assert (listener.adopted, listener.heard) == ([(call, parties, OFFSET_US + 1_000_000_000)], [])
    later = METADATA.replace("sip:bob@example.com", "sip:carol@example.com").encode()
    second.receive(src.request("UPDATE", ("Content-Type", "application/rs-metadata"), body=later))
    assert [live.matches for live in run(directory)[1].live] == [parties | {"sip:carol@example.com"}]
    second.receive(src.request("BYE"))
    assert listener.heard == [(call, "live"), (call, "ended")]


def test_a_listener_that_comes_late_is_told_all(directory: Path) -> None:
    """SIP is up before the control channel: calls of that moment get their tokens into the journal all the same."""
    agent, src = run(directory)[0], Src()
    agent.call(src)
    agent.receive(Src(call_id="refused").invite(sdp=TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP")))
    listener = Listener()
    agent.recorder.attach(listener)
    assert [state for _, state in listener.heard] == ["live"]
    assert [len(live.matches) for live in run(directory)[1].live] == [2]


def test_a_disk_that_refuses_costs_no_call(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is recorded, the failure is told once, and the journal is whole when the disk takes it again."""
    agent, src = run(directory)[0], Src()

    def refuse(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        assert agent.call(src).status == 200
        assert events(agent).count("journal_failed") == 1
    agent.receive(src.request("OPTIONS"))
    assert len(run(directory)[1].live) == 1
