"""One recording session at the server: what its requests do. Sans-IO; standard: RFC 3261 sections 12-15, RFC 7866.

A session is offered, then answered, then ended; `server.py` finds it and looks at `ended`, `dialog` and `timer` after
every step. Offers wait in `pending` until the shell has ports for them.

    (INVITE) -> offered --answer--> answered --BYE, or the peer is lost--> ended
                   |                  ^   |
                   +--refuse,CANCEL   +---+ re-INVITE, UPDATE, INFO, OPTIONS, ACK
                            v
                          ended
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import blanking, info_digits
from sbc_agent.protocol import body as bodies
from sbc_agent.protocol.answer import StreamPlan, nothing_recordable
from sbc_agent.protocol.body import MessageBody
from sbc_agent.protocol.dialogs import PROBE_AGAIN_SECONDS, PROBES, Dialog, Signal
from sbc_agent.protocol.events import (
    RECEIVED,
    SENT,
    DigitPressed,
    EndReason,
    MessageRecorded,
    OfferRefused,
    SendMessage,
    SessionEnded,
    SessionOffered,
    SessionUpdated,
)
from sbc_agent.protocol.key_question import KeyQuestion
from sbc_agent.protocol.media_session import FLAG_DIGITS_SUPPRESSED, MediaSession, read_offer
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.responses import ALLOW
from sbc_agent.protocol.sdp import SessionDescription
from sbc_agent.protocol.session_timer import negotiate
from sbc_agent.protocol.transaction_layer import Incoming, TransactionKey
from sbc_agent.protocol.uas import SUPPORTED, Header, Uas, warning

FLAG_NO_ACK: Final = "ack-missing"
FLAG_DIALOG_LOST: Final = "dialog-lost"
FLAG_OFFER_REFUSED: Final = "offer-refused"
FLAG_REPLACED: Final = "replaced"
FLAG_LONGEST_SESSION: Final = "longest-session"

_RETRY_AFTER: Final = ("Retry-After", "3")
_SDP: Final = ("Content-Type", "application/sdp")
_SUCCESS: Final = 2
_OFFERING: Final = frozenset({"INVITE", "UPDATE"})


@dataclass(slots=True)
class Pending:
    """An offer that waits for the shell's answer."""

    incoming: Incoming
    offer: SessionDescription | None
    plans: tuple[StreamPlan, ...]


@dataclass(slots=True)
class ServerSession:
    """A recording session.

    Attributes:
        uas: what answers share.
        media: offer and answer, streams, metadata.
        local_tag: our tag, in every answer.
        remote_tag: the tag of the INVITE's From.
        first_cseq: the CSeq number of the INVITE.
        dialog: the dialog, once the session is answered.
        pending: an offer that waits.
        ended: whether it is over.
        question: whether the peer is to be asked for its keys; after a restart alone.
        replaces: the session that this one takes over from, until it is answered.
        requests: the keys of our own requests that wait for an answer, each told to the server once.
    """

    uas: Uas
    media: MediaSession
    local_tag: str
    remote_tag: str
    first_cseq: int
    dialog: Dialog | None = None
    pending: Pending | None = None
    ended: bool = False
    question: KeyQuestion | None = None
    replaces: "ServerSession | None" = field(default=None, repr=False)
    requests: list[TransactionKey] = field(default_factory=list)
    _unrecorded: list[MessageRecorded] = field(default_factory=list)

    def timer(self) -> float | None:
        """The next deadline, or None."""
        if self.ended or self.dialog is None:
            return None
        ask_at = self.question.deadline() if self.question is not None else None
        return min((at for at in (self.dialog.timer(), ask_at) if at is not None), default=None)

    # --- the INVITE that begins it, and the shell's word on offers ---------------------------------------------------

    def invited(self, incoming: Incoming, body: MessageBody, now: float) -> None:
        """The INVITE that offers the session."""
        self.media.src = incoming.flow.remote[0]
        self.media.hear(incoming.request, body)
        self._record(RECEIVED, incoming.raw, now)
        self._offer(incoming, body, now)

    def accept(self, ports: Mapping[int, int], now: float) -> None:
        """Answer the offer that waits by 200, with RTP ports for the m-lines that had none."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        incoming, asked = pending.incoming, pending.incoming.request
        dialog = self.dialog
        if dialog is None:
            dialog = self.dialog = Dialog.opened(asked, self.local_tag, incoming.cseq.number, incoming.flow)
            dialog.heard(incoming.flow, now)
            dialog.expires_at = now + self.uas.settings.longest_session_s
        address, randomness = self.uas.settings.media_address, self.uas.randomness
        body = self.media.answer(pending.offer, pending.plans, ports, address, randomness)
        if self.question is not None and (pending.offer is None or not self.media.lacks_keys):
            self.question.close()  # the offer names the keys, or the ACK of ours will
        timer_headers, quiet_seconds = negotiate(asked)
        dialog.expect_silence(quiet_seconds, now)
        headers = (self.uas.answering_contact(incoming), ALLOW, SUPPORTED, *timer_headers, _SDP)
        answer = self.uas.build(incoming, 200, headers, body, self.local_tag)
        # The shell hears of the streams before the answer leaves: their ports must be listened to by then.
        self._updated(now)
        for item in self._unrecorded:
            self.uas.emit(item)
        self._unrecorded.clear()
        data = self.uas.layer.respond(incoming, answer, now)
        self._record(SENT, data, now)
        if asked.method == "INVITE":
            dialog.success_sent(incoming.cseq.number, data, incoming.fallback, now)

    def refuse(self, status: int, now: float) -> None:
        """Refuse the offer that waits: a session never answered is over, a running one goes on as it was."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        self._respond(pending.incoming, status, now)
        if self.dialog is None:
            self._over("cancelled", now)

    def replaced(self, now: float) -> None:
        """Another session took over from this one. REQ: RFC 3891 section 3: BYE to the dialog that was replaced."""
        self.media.flag(FLAG_REPLACED)
        self.end("bye", now)

    def end(self, reason: EndReason, now: float) -> None:
        """End it from our side: refuse what waits, BYE if it was answered."""
        self.refuse(503, now)
        if self.dialog is not None and not self.ended:
            self._send(self.dialog, "BYE", now)
            self._over(reason, now)

    # --- requests of the peer in the dialog --------------------------------------------------------------------------

    def began_with(self, incoming: Incoming, from_tag: str) -> bool:
        """Whether this INVITE is the one that opened the dialog, come again after a restart of ours."""
        dialog, number = self.dialog, incoming.cseq.number
        if dialog is None or not dialog.takes_last_again or self.remote_tag != from_tag:
            return False
        return number == self.first_cseq == dialog.remote_cseq

    def request(self, incoming: Incoming, now: float) -> None:
        """A request in the dialog, for the first time."""
        dialog, asked = self.dialog, incoming.request
        assert dialog is not None, "requests are matched to a session by its dialog"
        if not dialog.next_in_order(incoming.cseq.number):
            self._respond(incoming, 500, now)
            return
        dialog.confirmed = True
        dialog.heard(incoming.flow, now)
        self._record(RECEIVED, incoming.raw, now, asked)
        if asked.method == "BYE":
            self.refuse(487, now)  # REQ: RFC 3261 section 15.1.2: what is pending in the dialog gets 487
            self._respond(incoming, 200, now)
            self._over("bye", now)
        elif asked.method == "OPTIONS":
            self._respond(incoming, 200, now, self.uas.abilities(incoming))
        elif refusal := self.uas.refusal(incoming) or self._overlap(incoming):
            self._respond(incoming, refusal[0], now, refusal[1])
        else:
            self._take(dialog, incoming, now)

    def acknowledged(self, incoming: Incoming, now: float) -> None:
        """The ACK of a 2xx: it may carry the answer to our own offer."""
        dialog = self.dialog
        assert dialog is not None, "ACKs are matched to a session by its dialog"
        dialog.heard(incoming.flow, now)
        if not dialog.acknowledged(incoming.cseq.number):
            self._give_up_offer(dialog, now)
            return
        self._record(RECEIVED, incoming.raw, now)
        # Our own offer is in the latest 2xx, for no other is sent until it is answered: an ACK that leaves one waiting
        # belongs to one before it.
        if self.media.offer_outstanding and not dialog.unacknowledged:
            body = bodies.read(incoming.request)
            self.media.hear(incoming.request, body)
            try:
                self.media.answered_by_peer(read_offer(body))
            except MalformedInput:
                self.media.answered_by_peer(None)
            self._updated(now)

    def copied(self, incoming: Incoming, now: float) -> None:
        """A copy of an answered INVITE: its 2xx was lost, so it goes out again unless it was acknowledged."""
        waiting = self.dialog.unacknowledged.get(incoming.cseq.number) if self.dialog else None
        if self.dialog is not None and waiting is not None:
            self.uas.emit(SendMessage(waiting.data, incoming.flow, incoming.fallback))
            self.dialog.heard(incoming.flow, now)

    def _take(self, dialog: Dialog, incoming: Incoming, now: float) -> None:
        """INVITE, UPDATE or INFO."""
        asked, body = incoming.request, bodies.read(incoming.request)
        digits = info_digits.read(asked)
        if info_digits.carried_by(asked):
            self.media.flag(FLAG_DIGITS_SUPPRESSED)
        changed = self.media.hear(asked, body)
        if asked.method in _OFFERING:
            dialog.refresh_target(asked)
        if asked.method == "INVITE" or (asked.method == "UPDATE" and body.sdp is not None):
            self._offer(incoming, body, now)
            return
        timer_headers, quiet_seconds = negotiate(asked) if asked.method == "UPDATE" else ((), None)
        dialog.expect_silence(quiet_seconds, now)
        headers = (self.uas.answering_contact(incoming), *timer_headers) if asked.method == "UPDATE" else ()
        self._respond(incoming, 200, now, headers)
        if changed:
            self._updated(now)
        for digit in digits:
            self.uas.emit(DigitPressed(self.media.session, now, digit))

    def _overlap(self, incoming: Incoming) -> tuple[int, tuple[Header, ...]] | None:
        """Why a new offer must wait for one that is still open: status and headers."""
        if incoming.request.method not in _OFFERING:
            return None
        if self.pending is not None:
            # REQ: RFC 3261 section 14.2 and RFC 3311 section 5.2: 500 while the last one has no final response.
            return 500, (_RETRY_AFTER,)
        # REQ: RFC 3261 section 14.2: 491 while our own offer has no answer; not to the request that asked for it, which
        # comes again as a new one when an earlier run of ours heard it.
        assert self.dialog is not None, "overlaps are looked for in dialogs"
        if not self.media.offer_outstanding or incoming.cseq.number in self.dialog.unacknowledged:
            return None
        # REQ: RFC 3311 section 5.2: an UPDATE crosses our offer only if it carries one.
        offers = incoming.request.method == "INVITE" or bodies.read(incoming.request).sdp is not None
        return (491, ()) if offers else None

    def _offer(self, incoming: Incoming, body: MessageBody, now: float) -> None:
        """Take an offer, or the wish for one of ours; ask the shell for ports if it needs any."""
        try:
            offer = read_offer(body)
        except MalformedInput as error:
            self._refuse_offer(incoming, error.sip_status, now)
            return
        plans = self.media.planned(offer, self.uas.srtp_terms(incoming.flow))
        if offer is not None and nothing_recordable(offer, plans):
            reasons = [item.flag for item in plans if item.flag]
            self.media.flag(*reasons)
            self._refuse_offer(incoming, 488, now, *reasons)
            return
        self.pending = Pending(incoming, offer, plans)
        needs_ports = self.media.needs_ports(plans)
        if self.dialog is not None and not needs_ports:
            self.accept({}, now)
            return
        initial = self.dialog is None
        self.uas.emit(SessionOffered(self.media.session, initial, needs_ports, self.media.sip_call_id))

    def _refuse_offer(self, incoming: Incoming, status: int, now: float, *reasons: str) -> None:
        """Refuse an offer that cannot be read or recorded; a session that begins with one is over before it began."""
        self.media.flag(FLAG_OFFER_REFUSED)
        self.uas.emit(OfferRefused(self.media.sip_call_id, status, next(iter(reasons), FLAG_OFFER_REFUSED)))
        self._respond(incoming, status, now, (warning("nothing in this offer can be recorded"),))
        if self.dialog is None:
            self.ended = True
        else:
            self._updated(now)

    # --- time, and the answers to our own requests -------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """Repeat 2xx responses that were not acknowledged; probe a peer that may be gone; end what lives too long."""
        if self.dialog is None:
            return
        if self.question is not None and self.question.is_due(now):
            self._ask_for_keys(self.dialog, self.question, now)
        probe = expired = False
        for signal, waiting in self.dialog.handle_timer(now):
            if signal is Signal.REPEAT and waiting is not None:
                self.uas.emit(SendMessage(waiting.data, self.dialog.flow, waiting.fallback))
            elif signal is Signal.UNACKNOWLEDGED:
                # REQ: RFC 3261 section 13.3.1.4: after 64*T1 the session SHOULD be ended by BYE; we ask first, because
                # an SRC whose ACK is lost on its way may be sending all the same.
                self.media.flag(FLAG_NO_ACK)
                probe = probe or not self.dialog.confirmed
            elif signal is Signal.PROBE:
                probe = True
            elif signal is Signal.EXPIRED:
                expired = True
        self._give_up_offer(self.dialog, now)
        if expired:
            # A peer that answers our probes of a dialog that it forgot would keep it, and its ports, for ever.
            self.media.flag(FLAG_LONGEST_SESSION)
            self.end("error", now)
        elif probe:
            self._send(self.dialog, "OPTIONS", now)

    def _give_up_offer(self, dialog: Dialog, now: float) -> None:
        """Of an offer of ours in a 2xx that waits no more, no ACK brings the answer: the next offer crosses none."""
        if self.media.offer_outstanding and not dialog.unacknowledged:
            self.media.answered_by_peer(None)
            self._updated(now)

    def answered(self, key: TransactionKey, answer: Response | None, raw: bytes, now: float) -> None:
        """A request of ours was answered, or was not."""
        question = self.question
        if question is None or key != question.request:
            self._probed(answer, raw, now)
        elif answer is None:  # it is no probe: a peer that does not know UPDATE may be silent
            question.close()
        else:
            self._probed(answer, raw, now)
            if not question.is_open or self.ended:
                return
            if answer.status // 100 == _SUCCESS:
                question.close()
                self._take_keys(answer, now)
            else:
                question.refused(answer.status, now)

    def _ask_for_keys(self, dialog: Dialog, question: KeyQuestion, now: float) -> None:
        if not self.media.lacks_keys or not self.media.takes_update:
            question.close()
            return
        sdp = self.media.question(self.uas.settings.media_address, self.uas.randomness)
        question.put(self._send(dialog, "UPDATE", now, sdp))

    def _take_keys(self, answer: Response, now: float) -> None:
        """The answer to our UPDATE names the keys; one that cannot be read changes nothing."""
        try:
            description = read_offer(bodies.read(answer))
        except MalformedInput:
            return
        if description is not None:
            self.media.answered_by_peer(description)
            self._updated(now)

    def _probed(self, answer: Response | None, raw: bytes, now: float) -> None:
        """A probe was answered, or was not: whatever the answer says but 481 and 408, the peer knows the dialog."""
        dialog = self.dialog
        assert dialog is not None, "only answered sessions are probed"
        if answer is not None:
            self._record(RECEIVED, raw, now)
            if answer.status not in {408, 481}:
                dialog.confirmed = True
                dialog.heard(dialog.flow, now)
                return
        dialog.failed_probes += 1
        if answer is not None and answer.status == 481:  # noqa: PLR2004 - the peer has no such dialog: no BYE either
            self.media.flag(FLAG_DIALOG_LOST)
            self._over("error", now)
        elif not dialog.confirmed or dialog.failed_probes >= PROBES:
            self.media.flag(FLAG_DIALOG_LOST)
            self.end("error", now)
        else:
            dialog.probe_at = now + PROBE_AGAIN_SECONDS

    # --- what all of them use ----------------------------------------------------------------------------------------

    def _send(self, dialog: Dialog, method: str, now: float, sdp: bytes = b"") -> TransactionKey:
        contact = self.uas.contact(dialog.flow, *dialog.routes[:1], dialog.target)[1]
        asked = dialog.request(method, f"z9hG4bK{self.uas.fresh()}", self.uas.sent_by(dialog.flow), contact, sdp)
        self._record(SENT, bytes(asked), now)
        key = self.uas.layer.request(asked, dialog.flow, dialog.next_hop(), now)
        self.requests.append(key)
        return key

    def _respond(self, incoming: Incoming, status: int, now: float, headers: Iterable[Header] = ()) -> None:
        self._record(SENT, self.uas.respond(incoming, status, now, headers, self.local_tag), now)

    def _updated(self, now: float) -> None:
        media = self.media
        self.uas.emit(SessionUpdated(media.session, now, media.streams(), media.facts(), dict(media.asked)))

    def _over(self, reason: EndReason, now: float) -> None:
        self.ended = True
        self.uas.emit(SessionEnded(self.media.session, now, reason, tuple(self.media.flags)))

    def _record(self, direction: int, raw: bytes, now: float, asked: Request | None = None) -> None:
        """Enter a message in the signalling record, secrets blanked, or keep it until the session is answered."""
        stored = blanking.keys(raw) if asked is None else blanking.request(asked, raw)
        recorded = MessageRecorded(self.media.session, now, RECEIVED if direction == RECEIVED else SENT, stored)
        if self.dialog is None:
            self._unrecorded.append(recorded)
        else:
            self.uas.emit(recorded)
