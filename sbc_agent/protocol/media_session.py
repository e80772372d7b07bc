"""A recording session from our side: offer, answer, streams, metadata. Pure state; standard: RFC 7866 section 8.

The dialog carries it; this holds what is negotiated in it. Our ports stay for the session's life (INTEROP), the version
in `o=` rises only when the description below it changes, and what the SRC told in metadata gathers in `recording`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sbc_agent.protocol import answer as answers
from sbc_agent.protocol import cisco_participants, metadata, recognition, sdes, sdp
from sbc_agent.protocol.answer import StreamPlan
from sbc_agent.protocol.body import MessageBody
from sbc_agent.protocol.cisco_participants import CiscoParticipant
from sbc_agent.protocol.events import SessionId, StreamState
from sbc_agent.protocol.grammar import readable
from sbc_agent.protocol.message import Request
from sbc_agent.protocol.recording_session import RecordingSession
from sbc_agent.protocol.sdes import CryptoLine, SrtpTerms
from sbc_agent.protocol.sdp import SessionDescription

MAX_INDEXED: Final = 96

FLAG_NO_METADATA: Final = "no-metadata"
FLAG_PORTS_EXHAUSTED: Final = "ports-exhausted"
FLAG_ANSWER_MISSING: Final = "answer-missing"
FLAG_DIGITS_SUPPRESSED: Final = "digits-in-signalling-suppressed"
FLAG_PAUSED_BY_SRC: Final = "paused-by-src"
FLAG_SENDERS_UNRELIABLE: Final = "senders-unreliable"
FLAG_SRTP_KEYS_LOST: Final = "srtp-keys-lost"

# Whose metadata names the senders the wrong way round (INTEROP): the name in `o=` says whose it is.
_REVERSED: Final = "sonus"


@dataclass(slots=True)
class MediaSession:
    """What is negotiated and known.

    Attributes:
        session: the server's number of it.
        origin_id: the session id of our `o=`, decimal.
        sip_call_id: the dialog's Call-ID.
        user_agent: how the SRC names itself.
        src: its IP address, from which the INVITE came; after a restart, from which it was heard last.
        end: which end of its call a telephone records in this dialog; "" for neither.
        ports: our RTP port for each m-line that ever had one.
        plans: the m-lines as they stand.
        recording: what metadata has told.
        headers: vendors' headers, and attributes of descriptions, worth finding the call by.
        asked: headers that no standard defines, by name in lower case, for policies that name one.
        paused: whether the SRC said by INFO that nothing is to be recorded now.
        flags: what was odd, in the order noticed.
        offer_outstanding: whether our own offer waits for its answer in the ACK.
        version: of our description, as in `o=`.
        description: our description below `o=`, as last sent.
        metadata_seen: whether metadata ever came.
        takes_update: whether the peer takes UPDATE, as far as its Allow header says.
        parties: who speaks, as Cisco's gateways say it without metadata.
        own_keys: for each m-line of SRTP, the line that we answered and the key that we answered it with.
    """

    session: SessionId
    origin_id: int
    sip_call_id: str
    user_agent: str = ""
    src: str = ""
    end: str = ""
    ports: dict[int, int] = field(default_factory=dict)
    plans: tuple[StreamPlan, ...] = ()
    recording: RecordingSession = field(default_factory=RecordingSession)
    headers: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict, repr=False)
    paused: bool = False
    flags: dict[str, None] = field(default_factory=dict)
    offer_outstanding: bool = False
    version: int = 0
    description: list[str] = field(default_factory=list, repr=False)  # it may hold keys
    metadata_seen: bool = False
    takes_update: bool = True
    parties: tuple[CiscoParticipant, ...] = ()
    own_keys: dict[int, tuple[CryptoLine, bytes]] = field(default_factory=dict, repr=False)

    def flag(self, *names: str) -> None:
        """Note that something was odd; each is noted once."""
        self.flags.update(dict.fromkeys(names))

    def hear(self, asked: Request, body: MessageBody) -> bool:
        """Take in what a request tells beside its offer.

        Returns:
            Whether the SESSION record, the headers or what is kept of the streams changed.
        """
        before = self.facts(), dict(self.asked), self.paused
        self.user_agent = readable(asked.header("user-agent") or self.user_agent)[:256]
        self._index({name: readable(value) for name, value in recognition.indexed_headers(asked).items()})
        if allowed := asked.listed("allow"):
            self.takes_update = "UPDATE" in (method.upper() for method in allowed)
        self.parties = cisco_participants.read(asked) or self.parties
        marks = recognition.marks_of_origin(asked)
        self._index(marks)
        self.end = recognition.end_of_call(marks) or self.end
        self.asked = recognition.latest_headers(self.asked, asked)
        if asked.method == "INFO" and (pause := recognition.pause_action(asked)) is not None:
            self.paused = pause
            self.flag(FLAG_PAUSED_BY_SRC)
        self.flag(*body.flags)
        if body.metadata is not None:
            document = metadata.read(body.metadata)
            self.recording = self.recording.merged(document)
            self.flag(*document.flags)
            self.metadata_seen = True
        return (self.facts(), self.asked, self.paused) != before

    def _index(self, news: Mapping[str, str]) -> None:
        """Keep values to find the call by; of names that never end the first stay."""
        self.headers = dict(list({**self.headers, **news}.items())[:MAX_INDEXED])

    def planned(self, offer: SessionDescription | None, terms: SrtpTerms | None = None) -> tuple[StreamPlan, ...]:
        """What the m-lines become by an offer, or by an offer of ours if there is none.

        Args:
            offer: what is offered, or None.
            terms: what of SRTP is accepted; None for all that can be opened.
        """
        if offer is not None:
            self._index(recognition.indexed_attributes(offer))
            known = {item.index: item.crypto for item in self.plans if item.crypto}
            plans = answers.plan(offer, terms, known)
            if terms is not None and terms.taken and any(item.crypto for item in plans):
                self.flag(terms.taken)
            return plans
        return self.plans or answers.own_offer(self.recording.labelled())

    def needs_ports(self, plans: tuple[StreamPlan, ...]) -> tuple[int, ...]:
        """The m-lines to be recorded that have no port yet."""
        return tuple(item.index for item in plans if item.wanted and item.index not in self.ports)

    def answer(
        self,
        offer: SessionDescription | None,
        plans: tuple[StreamPlan, ...],
        ports: Mapping[int, int],
        address: str,
        randomness: Callable[[int], bytes],
    ) -> bytes:
        """Write the description for a 2xx: the answer to an offer, or our own offer.

        Args:
            offer: what is answered, or None.
            plans: what `planned` gave for it.
            ports: RTP ports for m-lines that had none.
            address: our IP address for media.
            randomness: yields that many random octets, for keys of ours.

        Returns:
            The body, `application/sdp`.
        """
        self.ports |= ports
        if self.needs_ports(plans):
            self.flag(FLAG_PORTS_EXHAUSTED)
        self.flag(*(item.flag for item in plans if item.flag))
        if offer is not None and offer.origin.username.lower().startswith(_REVERSED):
            self.flag(FLAG_SENDERS_UNRELIABLE)
        self.plans, self.offer_outstanding = plans, offer is None
        self.own_keys = {item.index: self._own_key(item, item.crypto, randomness) for item in plans if item.crypto}
        keys = {index: key for index, (_, key) in self.own_keys.items()}
        if offer is None:
            lines = answers.write_offer(plans, self.ports, address, keys)
        else:
            lines = answers.write_answer(offer, plans, self.ports, address, keys)
        if lines != self.description:
            self.version, self.description = self.version + 1, lines
        family = "IP6" if ":" in address else "IP4"
        origin = f"o=dualtone {self.origin_id} {self.version} IN {family} {address}"
        return "\r\n".join(["v=0", origin, *lines, ""]).encode()

    @property
    def lacks_keys(self) -> bool:
        """Whether something that is recorded cannot be opened."""
        return any(item.lacks_keys for item in self.plans)

    def question(self, address: str, randomness: Callable[[int], bytes]) -> bytes:
        """Write an offer of the streams as they are, to learn the peer's keys from its answer.

        It is no offer that another one of the peer's would have to wait for: what that says is taken instead.
        """
        text = self.answer(None, self.plans, {}, address, randomness)
        self.offer_outstanding = False
        return text

    def answered_by_peer(self, answer: SessionDescription | None) -> None:
        """The ACK came for our own offer, with an answer or without one."""
        self.offer_outstanding = False
        if answer is None:
            self.flag(FLAG_ANSWER_MISSING)
        else:
            self.plans = answers.apply_answer(self.plans, answer)

    def _own_key(
        self, item: StreamPlan, line: CryptoLine, randomness: Callable[[int], bytes]
    ) -> tuple[CryptoLine, bytes]:
        """Our key for an m-line: the one we answered with as long as the peer's stays, else a fresh one."""
        known = self.own_keys.get(item.index)
        return known if known and known[0] == line else (line, randomness(sdes.KEY_BYTES[line.suite]))

    def streams(self) -> tuple[StreamState, ...]:
        """All streams that ever had a port; one whose m-line is gone or refused, or lacks its keys, is inactive."""
        by_index = {item.index: item for item in self.plans}
        found = []
        for index, port in sorted(self.ports.items()):
            item = by_index.get(index)
            if item is None:
                found.append(StreamState(index, f"mline-{index}", port, False, ()))  # noqa: FBT003 - not active
            else:
                active = item.wanted and item.active and not self.paused and not item.lacks_keys
                crypto = item.crypto if item.crypto and item.crypto.keys else None
                found.append(StreamState(index, item.label, port, active, item.codecs, crypto))
        return tuple(found)

    def facts(self) -> dict[str, Any]:
        """The SESSION record."""
        facts = self.recording.facts(senders=FLAG_SENDERS_UNRELIABLE not in self.flags)
        if self.parties and not self.metadata_seen:
            facts |= cisco_participants.facts(self.parties, [readable(item.label) for item in self.plans])
        flags = list(self.flags) if self.metadata_seen else [*self.flags, FLAG_NO_METADATA]
        return {
            "sip_call_id": readable(self.sip_call_id),
            "user_agent": self.user_agent,
            "src": self.src,
            "end": self.end,
            "flags": flags,
            **facts,
            "extensions": facts["extensions"] | self.headers,
            "media": [_media(stream) for stream in self.streams()],
        }


def _media(stream: StreamState) -> dict[str, Any]:
    """A stream in the SESSION record: what a reader needs if the agent never comes to write the call's manifest."""
    formats = [
        {
            "payload_type": codec.payload_type,
            "codec": codec.name,
            "clock_hz": codec.clock_hz,
            "channels": codec.channels,
        }
        for codec in stream.codecs
    ]
    return {"stream": stream.index, "label": readable(stream.label), "formats": formats}


def read_offer(body: MessageBody) -> SessionDescription | None:
    """The session description of a body, or None if it has none.

    Raises:
        MalformedInput: there is one and it cannot be read.
    """
    return None if body.sdp is None else sdp.parse(body.sdp)
