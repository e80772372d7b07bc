"""No order of events breaks a dialog: a machine of peers, losses, copies and time against the server."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request, Response
from tests.agent.protocol.builders import TCP, TWO_STREAMS, UDP, Src, Under, crlf, tag_of

KEY = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:LUV0oNDOSB9F0gw60mV/9/ySYI27BYvNw6eII5E"
OFFERS = {
    "active": TWO_STREAMS,
    "held": TWO_STREAMS.replace("a=sendonly", "a=inactive"),
    "more": TWO_STREAMS + "m=audio 6004 RTP/AVP 8\na=label:3\na=sendonly\n",
    "one": TWO_STREAMS.replace("m=audio 6002", "m=audio 0"),
    "srtp": TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP"),
    "keys": TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP").replace("a=label", f"{KEY}1\na=label"),
    "other keys": TWO_STREAMS.replace("RTP/AVP", "RTP/SAVP").replace("a=label", f"{KEY}2\na=label"),
    "none": None,
}
OFFER = st.sampled_from(sorted(OFFERS))
FINAL_AFTER = 100.0


class Peers(RuleBasedStateMachine):
    """SRCs that send anything at any time, a network that repeats anything, a shell that answers when it likes."""

    dialogs = Bundle("dialogs")

    def __init__(self) -> None:
        super().__init__()
        self.under = Under(ports=False)
        self.numbers = itertools.count()
        self.history: list[tuple[bytes, Flow]] = []

    @rule(target=dialogs, flow=st.sampled_from([UDP, TCP]), offer=OFFER)
    def invite(self, flow: Flow, offer: str) -> Src:
        src = Src(call_id=f"call-{next(self.numbers)}", flow=flow)
        self.hand_in(src.invite(sdp=OFFERS[offer]), src)
        return src

    @rule(src=dialogs, offer=OFFER)
    def re_invite(self, src: Src, offer: str) -> None:
        self.hand_in(src.invite(sdp=OFFERS[offer]), src)

    @rule(src=dialogs, offer=OFFER, method=st.sampled_from(["UPDATE", "INFO", "OPTIONS", "PRACK", "NOTIFY"]))
    def request(self, src: Src, offer: str, method: str) -> None:
        text = OFFERS[offer]
        kind = [("Content-Type", "application/sdp")] if text else []
        self.hand_in(src.request(method, *kind, body=crlf(text) if text else b""), src)

    @rule(src=dialogs, action=st.sampled_from(["pause-siprec", "resume-siprec", "mute", None]))
    def info(self, src: Src, action: str | None) -> None:
        """A pause of AudioCodes', or a pressed key."""
        if action is None:
            relay = ("Content-Type", "application/dtmf-relay")
            self.hand_in(src.request("INFO", relay, body=b"Signal=5\r\nDuration=160\r\n"), src)
        else:
            self.hand_in(src.request("INFO", ("X-AC-Action", action)), src)

    @rule(target=dialogs, old=dialogs)
    def replace(self, old: Src) -> Src:
        src = Src(call_id=f"call-{next(self.numbers)}", flow=old.flow)
        self.hand_in(src.invite(("Replaces", f"{old.call_id};to-tag={old.to_tag};from-tag={old.tag}")), src)
        return src

    @rule(src=dialogs, offer=OFFER, back=st.integers(0, 2))
    def ack(self, src: Src, offer: str, back: int) -> None:
        text = OFFERS[offer]
        kind = [("Content-Type", "application/sdp")] if text else []
        self.hand_in(src.request("ACK", *kind, body=crlf(text) if text else b"", cseq=max(src.cseq - back, 0)), src)

    @rule(src=consumes(dialogs))
    def bye(self, src: Src) -> None:
        self.hand_in(src.request("BYE"), src)

    @rule(back=st.integers(0, 5))
    def cancel(self, back: int) -> None:
        """CANCEL of an earlier request: same branch, whatever it was."""
        if back < len(self.history):
            data, flow = self.history[-1 - back]
            method = data.split(b" ", 1)[0]
            number = data.partition(b"CSeq: ")[2].split(b" ")[0]
            old = b"CSeq: %s %s" % (number, method)
            self.receive(data.replace(method, b"CANCEL", 1).replace(old, b"CSeq: %s CANCEL" % number), flow)

    @rule(back=st.integers(0, 8))
    def repeat(self, back: int) -> None:
        """The network brings an old message again."""
        if back < len(self.history):
            self.receive(*self.history[-1 - back])

    @rule(code=st.sampled_from([100, 200, 405, 481]))
    def answer_ours(self, code: int) -> None:
        """The peer answers the last request of ours."""
        ours = [sent for _, sent in self.under.sent if isinstance(sent, Request)]
        if ours:
            kept = [line for line in ours[-1].headers if line[0] in {"Via", "From", "To", "Call-ID", "CSeq"}]
            self.receive(bytes(Response(headers=tuple(kept), status=code, reason="x")), UDP)

    @rule(data=st.data(), enough=st.booleans())
    def shell_answers(self, data: st.DataObject, enough: bool) -> None:
        if self.under.offered:
            offer = data.draw(st.sampled_from(self.under.offered))
            ports = {index: next(self.under.ports) for index in offer.needs_ports} if enough else {}
            self.under.server.answer(offer.session, ports, self.under.now)
            self.take(self.under.pump())

    @rule(data=st.data(), status=st.sampled_from([486, 503]))
    def shell_refuses(self, data: st.DataObject, status: int) -> None:
        if self.under.offered:
            offer = data.draw(st.sampled_from(self.under.offered))
            self.under.server.refuse(offer.session, status, self.under.now)
            self.take(self.under.pump())

    @rule(seconds=st.sampled_from([0.1, 0.6, 5.0, 33.0, 400.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.take(self.under.advance(seconds))

    @rule(flow=st.sampled_from([TCP]))
    def connection_breaks(self, flow: Flow) -> None:
        self.under.server.flow_closed(flow)

    @rule()
    def everything_ends(self) -> None:
        self.under.server.end_all("shutdown", self.under.now)
        self.take(self.under.pump())
        assert self.under.server.sessions == 0

    def hand_in(self, data: bytes, src: Src) -> None:
        answers = self.receive(data, src.flow)
        self.history.append((data, src.flow))
        asked = data.split(b" ", 1)[0]
        for answer in answers:
            if isinstance(answer, Response) and asked == b"INVITE" and answer.status == 200:
                src.to_tag = src.to_tag or tag_of(answer)
        if asked not in {b"INVITE", b"ACK"}:
            statuses = [answer.status for answer in answers if isinstance(answer, Response)]
            assert statuses, "every request but INVITE and ACK is answered at once"

    def receive(self, data: bytes, flow: Flow) -> list[Request | Response]:
        answers = self.under.receive(data, flow)
        self.take(answers)
        return answers

    def take(self, messages: list[Request | Response]) -> None:
        """What holds for everything that is ever sent."""
        for sent in messages:
            assert sent.header("via")
            assert len(sent.all("call-id")) == 1
            if isinstance(sent, Response) and sent.status != 100:
                assert tag_of(sent), "REQ: RFC 3261 section 8.2.6.2: every response but 100 has a To tag"
            if isinstance(sent, Response) and sent.status == 503:
                assert sent.header("retry-after") is None

    @invariant()
    def sessions_begin_once_and_end_once(self) -> None:
        ended = [event.session for event in self.under.ended]
        assert len(ended) == len(set(ended))
        offered = {event.session for event in self.under.offered if event.initial}
        assert len(offered) == sum(event.initial for event in self.under.offered)
        assert set(ended) <= offered
        begun = {event.session for event in self.under.updated}
        assert begun <= offered
        assert self.under.server.sessions == len(offered) - len(ended)
        for event in self.under.ended:
            assert (event.reason == "cancelled") == (event.session not in begun)

    @invariant()
    def secrets_are_recorded_nowhere(self) -> None:
        for event in self.under.recorded:
            assert b"LUV0" not in event.raw
            assert b"Signal=" not in event.raw

    @invariant()
    def ports_stay_with_their_streams(self) -> None:
        owners: dict[int, tuple[int, int]] = {}
        for event in self.under.updated:
            for stream in event.streams:
                assert owners.setdefault(stream.port, (event.session, stream.index)) == (event.session, stream.index)

    def teardown(self) -> None:
        """When all has ended and time has passed, nothing is left."""
        self.under.server.end_all("shutdown", self.under.now)
        self.under.pump()
        self.under.server.flow_closed(TCP)
        self.take(self.under.advance(FINAL_AFTER))
        assert (self.under.server.sessions, self.under.server.requests_waiting) == (0, 0)
        assert self.under.server.timer() is None


TestPeers = Peers.TestCase
TestPeers.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
