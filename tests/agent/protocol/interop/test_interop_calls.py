"""INTEROP, "Calls": dialogs of one call are linked; nothing lives for ever, nothing is ended without being asked."""

import pytest

from dualtone.domain import call_session
from dualtone.domain.call_match import links
from sbc_agent.protocol import replacing, sdp
from sbc_agent.protocol.dialogs import PROBE_AGAIN_SECONDS, QUIET_SECONDS
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.media_session import FLAG_PORTS_EXHAUSTED
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.server_session import FLAG_DIALOG_LOST, FLAG_LONGEST_SESSION, FLAG_NO_ACK, FLAG_REPLACED
from sbc_agent.protocol.transactions import T1
from sbc_agent.protocol.uas import LONGEST_SESSION_SECONDS
from tests.agent.protocol.builders import METADATA, TWO_STREAMS, UDP, Src, Under, crlf, only, status, tag_of
from tests.agent.protocol.interop.lines import shows
from tests.agent.protocol.interop.vendors import (
    AUDIOCODES,
    BROADWORKS,
    BROADWORKS_METADATA,
    METASWITCH_SDP,
    OPENSIPS,
    ORACLE,
    ORACLE_METADATA,
    Opened,
    opened,
    siprec,
    text_of,
    whole,
)
from tests.agent.protocol.test_server import ok

KEY = b"k" * 32


def linked(one: Opened, other: Opened) -> bool:
    """Whether the cloud sees that both are of one call."""
    first, second = (set(links(KEY, call_session.from_facts(found.under.updated[-1].facts))) for found in (one, other))
    return bool(first & second)


def dialog(call_id: str, metadata: str, *extra: tuple[str, str], under: Under | None = None) -> Opened:
    """A dialog of its own with this metadata."""
    return opened(Src(call_id=call_id, tag=call_id).invite(*extra, metadata=metadata), under)


def metadata(session: str, group: str = "", extra: str = "") -> str:
    """Metadata whose session and streams have ids that no other has."""
    text = METADATA.replace('"S"', f'"{session}"').replace("abc@example.com", f"{session}@example.com")
    referred = f"<group-ref>{group}</group-ref>" if group else ""
    return text.replace("<sipSessionID>", f"{extra}{referred}<sipSessionID>")


LINKS = {
    "group id": (metadata("1", group="G"), metadata("2", group="G"), ()),
    "UCID": (
        metadata("1", extra="<ucid>00FA080018803B69810C6D;encoding=hex</ucid>"),
        metadata("2", extra="<ucid>FA080018803B69810C6D</ucid>"),
        (),
    ),
    "GUID": (metadata("1"), metadata("2"), (("Cisco-Guid", "0427911521-3331789291-3179475176-3642700001"),)),
    "Session-ID": (metadata("1"), metadata("2"), (("Session-ID", "ab30317f1a784dc48ff824d0d3715d86;remote=00f1"),)),
    "Call-ID of the communication session": (metadata("1"), metadata("1"), ()),
}


@shows("C1a")
@pytest.mark.parametrize("name", LINKS)
def test_dialogs_of_one_call_are_linked(name: str) -> None:
    """Two dialogs that share this, and nothing else, are of one call; without it they are not."""
    first, second, headers = LINKS[name]
    assert linked(dialog("one", first, *headers), dialog("two", second, *headers))
    assert not linked(dialog("one", metadata("1")), dialog("two", metadata("2")))


@shows("C1b")
def test_a_transfer_of_netsapiens() -> None:
    """BYE, then a new INVITE in the same group: two recordings, linked."""
    under = Under()
    before = dialog("before", metadata("1", group="G", extra="<groupSeq>1</groupSeq>"), under=under)
    assert status(under.receive(before.src.request("BYE"))) == 200
    known = Opened(under, before.src, before.answer)
    first = call_session.from_facts(known.under.updated[-1].facts)
    after = dialog("after", metadata("2", group="G", extra="<groupSeq>2</groupSeq>"), under=under)
    second = call_session.from_facts(after.under.updated[-1].facts)
    assert set(links(KEY, first)) & set(links(KEY, second))
    assert [event.reason for event in under.ended] == ["bye"]


@shows("C1c")
def test_webex_changes_every_id() -> None:
    """In mid-dialog session, parties and streams get new ids: the new truth holds, the old ids still find the call."""
    found = dialog("webex", metadata("old"))
    renamed = METADATA
    for old, new in (("S", "S9"), ("A", "A9"), ("B", "B9"), ("X", "X9"), ("Y", "Y9")):
        renamed = renamed.replace(f'"{old}"', f'"{new}"').replace(f">{old}<", f">{new}<")
    kind = ("Content-Type", "application/rs-metadata+xml")
    only(found.under.receive(found.src.request("UPDATE", kind, body=crlf(renamed))))
    facts = found.under.updated[-1].facts
    assert facts["streams"] == [
        {"label": "1", "stream_id": "X9", "participant_id": "A9"},
        {"label": "2", "stream_id": "Y9", "participant_id": "B9"},
    ]
    assert [session["session_id"] for session in facts["sessions"]] == ["old", "S9"]
    assert linked(found, dialog("other", metadata("old")))
    assert linked(found, dialog("third", renamed))


def replacing_invite(old: Opened, to_tag: str | None = None) -> Src:
    src = Src(call_id="replacing", tag="new")
    src.request("OPTIONS")
    src.cseq = 0
    named = f"{old.src.call_id};to-tag={to_tag or old.src.to_tag};from-tag={old.src.tag}"
    src.invite(("Replaces", named))
    return src


@shows("C1d")
def test_ribbon_replaces_a_session() -> None:
    """REQ: RFC 3891 section 3: the new session is answered, then the one that it names gets our BYE; both link."""
    under = Under()
    old = opened(whole(OPENSIPS), under)
    first = call_session.from_facts(under.updated[-1].facts)
    src = replacing_invite(old)
    answer, bye = under.receive(bytes(src.last or b""))
    assert isinstance(answer, Response)
    assert (answer.status, answer.header("call-id")) == (200, "replacing")
    assert isinstance(bye, Request)
    assert (bye.method, bye.header("call-id")) == ("BYE", old.src.call_id)
    under.receive(ok(under, code=200))
    assert [(event.reason, event.flags) for event in under.ended] == [("bye", (FLAG_REPLACED,))]
    second = call_session.from_facts(under.updated[-1].facts)
    assert set(links(KEY, first)) & set(links(KEY, second))
    assert under.server.sessions == 1


@shows("C1d")
@pytest.mark.parametrize("case", ["another tag", "another host", "no answer yet"])
def test_replaces_that_names_no_session_of_this_peer_ends_none(case: str) -> None:
    """The new session is recorded whatever it claims to replace; nobody ends another's session."""
    under = Under()
    old = opened(whole(OPENSIPS), under)
    src = replacing_invite(old, to_tag="guessed" if case == "another tag" else None)
    flow = Flow("udp", ("203.0.113.66", 5060), UDP.local) if case == "another host" else UDP
    under.accepts = case != "no answer yet"
    under.receive(bytes(src.last or b""), flow)
    assert under.ended == []
    assert under.server.sessions == 2


@shows("C1d")
def test_a_replaces_header_is_read_or_passed_over() -> None:
    """What names no dialog replaces none."""
    src = Src()
    cases = {
        "a@b;to-tag=1;from-tag=2": ("a@b", "1", "2"),
        "a@b;from-tag=0;to-tag=1;early-only": ("a@b", "1", ""),
        "a@b;to-tag=1": None,
        ";to-tag=1;from-tag=2": None,
        "": None,
    }
    for value, expected in cases.items():
        src.request("INVITE", ("Replaces", value))
        assert src.last is not None
        assert replacing.named_by(src.last) == expected


@shows("C1e")
def test_metaswitch_sends_a_dialog_for_each_recorded_party() -> None:
    """Two dialogs of one mixed stream each, of the same call: both recorded, linked by what their metadata shares."""
    texts = [metadata(party, group="G") for party in ("first", "second")]
    found = [
        opened(siprec(BROADWORKS, text_of(METASWITCH_SDP), text).replace(b"BW144835", b"BW%d" % number))
        for number, text in enumerate(texts)
    ]
    assert [len(one.description.media) for one in found] == [1, 1]
    assert linked(*found)


@shows("C1f")
def test_oracle_sends_one_call_to_two_servers() -> None:
    """The same INVITE at two agents: two copies that share every name of the call, and say from where they come."""
    data = siprec(ORACLE, TWO_STREAMS, text_of(ORACLE_METADATA))
    one, other = opened(data), opened(data, Under())
    assert linked(one, other)
    assert one.facts("src") == other.facts("src") == "198.51.100.7"


@shows("C2a")
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_the_src_refreshes(method: str) -> None:
    """REQ: RFC 4028 section 9: refresher=uac in the 2xx; what is not refreshed is probed 32 s after, not before."""
    under, src = Under(), Src()
    timer = (("Supported", "timer"), ("Session-Expires", "1800"), ("Min-SE", "1800"))
    if method == "INVITE":
        answer = only(under.receive(src.invite(*timer)))
        src.to_tag = tag_of(answer)
        under.receive(src.request("ACK"))
    else:
        under.call(src)
        answer = only(under.receive(src.request("UPDATE", *timer)))
    assert answer.header("session-expires") == "1800;refresher=uac"
    assert answer.header("require") == "timer"
    assert under.advance(1831) == []
    (probe,) = under.advance(1.2)
    assert isinstance(probe, Request)
    assert probe.method == "OPTIONS"


@shows("C2b", "X3")
def test_no_ack_for_64_t1() -> None:
    """The 200 goes out again for 32 s, then the peer is asked; a dead one gets BYE and is flagged."""
    under = Under()
    found = opened(whole(AUDIOCODES), under, acknowledge=False)
    sent = under.advance(64 * T1 + 0.001)
    assert [bytes(copy) == bytes(found.answer) for copy in sent[:-1]] == [True] * 10
    assert isinstance(sent[-1], Request)
    assert sent[-1].method == "OPTIONS"
    later = under.advance(64 * T1)
    assert [item.method for item in later if isinstance(item, Request)][-1] == "BYE"
    assert [(event.reason, event.flags) for event in under.ended] == [("error", (FLAG_NO_ACK, FLAG_DIALOG_LOST))]


@shows("C2b")
def test_a_session_has_a_longest_duration() -> None:
    """A peer that answers our probes of a call that it forgot cannot hold its ports for ever: BYE, flagged."""
    found = opened(whole(OPENSIPS))
    under = found.under
    until = under.now + LONGEST_SESSION_SECONDS
    while under.ended == [] and under.now < until + QUIET_SECONDS:
        for asked in under.advance(QUIET_SECONDS):
            if isinstance(asked, Request) and asked.method == "OPTIONS":
                under.receive(ok(under, code=200))
    assert [(event.reason, event.flags) for event in under.ended] == [("error", (FLAG_LONGEST_SESSION,))]
    assert under.ended[0].at == pytest.approx(1000.0 + LONGEST_SESSION_SECONDS)
    assert under.server.sessions == 0


@shows("C2b", "R4b")
def test_probes_come_before_the_end() -> None:
    """Three questions without an answer, a minute apart, and only then BYE."""
    found = opened(whole(OPENSIPS))
    sent = found.under.advance(QUIET_SECONDS + 3 * (64 * T1 + PROBE_AGAIN_SECONDS))
    asked = [item for item in sent if isinstance(item, Request)]
    branches = {item.required("via"): item.method for item in asked}
    assert list(branches.values()) == ["OPTIONS", "OPTIONS", "OPTIONS", "BYE"]
    assert [event.reason for event in found.under.ended] == ["error"]


@shows("C3b")
@pytest.mark.parametrize("ports", [{0: 20000}, {}])
def test_we_record_what_we_can(ports: dict[int, int]) -> None:
    """Without a port for a new m-line a session goes on with what it has: 200, never a 5xx into a running call."""
    under, src = Under(), Src()
    under.call(src)
    under.accepts = False
    more = TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\nm=audio 6006 RTP/AVP 8\na=label:4\n"
    under.receive(src.invite(sdp=more))
    offered = under.offered[-1].needs_ports
    chosen = dict(zip(offered, ports.values(), strict=False))
    answer = only(under.answer(ports=chosen))
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert [media.port != 0 for media in sdp.parse(answer.body).media] == [True, True, bool(ports), False]
    assert FLAG_PORTS_EXHAUSTED in under.updated[-1].facts["flags"]


@shows("C3a", "X10")
def test_bye_is_answered_at_once_and_told() -> None:
    """The 200 does not wait for the writer: the shell hears the end once, the rest is the media process' business."""
    found = opened(siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)))
    found.under.now += 42
    assert status(found.under.receive(found.src.request("BYE"))) == 200
    assert [(event.at, event.reason) for event in found.under.ended] == [(1042.0, "bye")]
