"""What the signalling said of a call: the plaintext of a SESSION record, in which the last one wins. Pure.

An agent that was restarted knows of a call what was told since: the last records of its key epochs, one a run, are
``merged`` in their order.

The agent writes it from SIP and rs-metadata (RFC 7865), which are a claim of the SBC. Reading is lenient: an unknown
member is left alone, a missing one is empty, and only what is no JSON object at all is malformed. It holds personal
data and is kept only sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from dualtone.domain.recording_entry import Role

_ROLES: Final = ("caller", "callee", "unknown")
_MOST: Final = 64
_MOST_STREAM: Final = 0xFFFF

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Participant:
    """A party of the call (RFC 7865 section 6.5).

    Attributes:
        participant_id: Its id in the metadata.
        aor: Its address of record as received, empty if it had none.
        name: Its display name, None if it had none.
        role: What it was in the call, as far as a vendor's mark says so.
        extensions: Vendor data about it, as received.
    """

    participant_id: str
    aor: str = field(repr=False)
    name: str | None = field(repr=False)
    role: Role
    extensions: dict[str, Any] = field(repr=False)

    def corrects(self, before: Participant) -> Participant:
        """This word on a party that was known before, blanks filled from that."""
        return Participant(
            self.participant_id,
            self.aor or before.aor,
            self.name or before.name,
            before.role if self.role == "unknown" else self.role,
            before.extensions | self.extensions,
        )


@dataclass(frozen=True, slots=True)
class SessionStream:
    """A media stream (RFC 7865 section 6.6): SDP label, id in the metadata, and the participant who sends it."""

    label: str
    stream_id: str | None
    participant_id: str | None


@dataclass(frozen=True, slots=True)
class SessionMedia:
    """A stream as the agent negotiated it: index in the records, SDP label, meaning of its RTP payload types.

    Attributes:
        stream: Index of the stream in media records.
        label: Its SDP label, empty if it had none.
        formats: Payload type, encoding name, RTP clock rate and channels of each.
    """

    stream: int
    label: str
    formats: tuple[tuple[int, str, int, int], ...]


@dataclass(frozen=True, slots=True)
class LineLink:
    """Where a recording stands among those of one line, by its agent's count.

    Attributes:
        line: Match token of the line.
        sequence: Its number, from 1.
        previous: The call with the number before, empty for the first one.
    """

    line: str
    sequence: int
    previous: str


@dataclass(frozen=True, slots=True)
class CallSession:
    """A recording session as the signalling describes it.

    Attributes:
        sip_call_id: Call-ID of the recording dialog; empty if unknown.
        user_agent: Of the SBC.
        flags: What the agent noticed about the metadata.
        session_ids: Ids of the communication sessions.
        sip_session_ids: Their SIP session ids (RFC 7865 section 6.3).
        groups: Ids of communication session groups.
        participants: The parties.
        streams: The streams.
        extensions: Vendor data about the call, as received.
        media: The streams as negotiated: what stands in for the manifest's if none was ever written.
        src: Network address of the session recording client.
        end: Which end of the call its dialog has, where a telephone records each in a dialog of its own: ``near``,
            ``far``; empty otherwise.
        policy: Why it is kept (``recording_ruling.Kept``); empty if its agent does not say.
        consents: What people chose for it (``recording_ruling.Chosen``).
        chain: Where it stands among the recordings of its lines.
    """

    sip_call_id: str = field(default="", repr=False)
    user_agent: str = ""
    flags: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    sip_session_ids: tuple[str, ...] = field(default=(), repr=False)
    groups: tuple[str, ...] = ()
    participants: tuple[Participant, ...] = ()
    streams: tuple[SessionStream, ...] = ()
    extensions: dict[str, Any] = field(default_factory=dict, repr=False)
    media: tuple[SessionMedia, ...] = ()
    src: str = field(default="", repr=False)
    end: str = ""
    policy: dict[str, Any] = field(default_factory=dict)
    consents: tuple[dict[str, Any], ...] = ()
    chain: tuple[LineLink, ...] = ()

    def stream(self, label: str) -> SessionStream | None:
        """The stream with an SDP label; None if the metadata does not name it, or the label is empty."""
        return next((stream for stream in self.streams if label and stream.label == label), None)

    def tied(self, later: SessionStream) -> SessionStream:
        """A later word on a stream; who sends it stays known."""
        before = self.stream(later.label)
        if before is None:
            return later
        return SessionStream(
            later.label, later.stream_id or before.stream_id, later.participant_id or before.participant_id
        )

    def sender(self, label: str) -> int | None:
        """Place among the participants of the one who sends the stream with a label; None if nobody says so."""
        stream = self.stream(label)
        if stream is None or stream.participant_id is None:
            return None
        ids = [participant.participant_id for participant in self.participants]
        return ids.index(stream.participant_id) if stream.participant_id in ids else None

    def role(self, label: str) -> Role:
        """The role of the one who sends the stream with a label."""
        sender = self.sender(label)
        return "unknown" if sender is None else self.participants[sender].role


def parse(data: bytes) -> CallSession:
    """Reads a SESSION record.

    Raises:
        MalformedInput: If it is no JSON object.
    """
    value = canonical.decode(data)
    if not isinstance(value, dict):
        raise MalformedInput("a session record is a JSON object")
    return from_facts(value)


def from_facts(value: Mapping[str, Any]) -> CallSession:
    """Reads the facts of a SESSION record that are objects already, as the agent has them."""
    sessions = _objects(value.get("sessions"))
    return CallSession(
        sip_call_id=_text(value.get("sip_call_id")),
        user_agent=_text(value.get("user_agent")),
        flags=_texts(value.get("flags")),
        session_ids=_texts([session.get("session_id") for session in sessions]),
        sip_session_ids=_texts([session.get("sip_session_id") for session in sessions]),
        groups=_texts([_group(group) for group in _list(value.get("groups"))]),
        participants=tuple(map(_participant, _objects(value.get("participants")))),
        streams=tuple(map(_stream, _objects(value.get("streams")))),
        extensions=_object(value.get("extensions")),
        media=tuple(media for item in _objects(value.get("media")) if (media := _media(item)) is not None),
        src=_text(value.get("src")),
        end=_text(value.get("end")),
        policy=_object(value.get("policy")),
        consents=tuple(_objects(value.get("consents"))),
        chain=tuple(link for item in _objects(value.get("chain")) if (link := _line_link(item)) is not None),
    )


def merged(sessions: Iterable[CallSession]) -> CallSession:
    """What several runs of an agent were told of one call.

    Args:
        sessions: The last record of each run, in their order; at least one.

    Returns:
        By the later word where there is one: single values that are not empty; parties, streams and vendor data by
        their ids, blanks filled from before; ids and groups together. Flags are the last run's, which had those before.
    """
    first, *others = sessions
    result = first
    for later in others:
        result = CallSession(
            sip_call_id=later.sip_call_id or result.sip_call_id,
            user_agent=later.user_agent or result.user_agent,
            flags=later.flags,
            session_ids=_together(result.session_ids, later.session_ids),
            sip_session_ids=_together(result.sip_session_ids, later.sip_session_ids),
            groups=_together(result.groups, later.groups),
            participants=_corrected(result.participants, later.participants),
            streams=_by(lambda stream: stream.label or stream, result.streams, map(result.tied, later.streams)),
            extensions=result.extensions | later.extensions,
            media=_by(lambda media: media.stream, result.media, later.media),
            src=later.src or result.src,
            end=later.end or result.end,
            policy=later.policy or result.policy,
            consents=_by(canonical.encode, result.consents, later.consents),
            chain=_by(lambda link: link.line, later.chain, result.chain),
        )
    return result


def _corrected(known: tuple[Participant, ...], later: tuple[Participant, ...]) -> tuple[Participant, ...]:
    """Parties by the later word. One without an id is the same only if its address is."""
    parties = {party.participant_id or f"aor {party.aor}": party for party in known}
    for key, party in ((party.participant_id or f"aor {party.aor}", party) for party in later):
        before = parties.get(key)
        parties[key] = party if before is None else party.corrects(before)
    return tuple(parties.values())[-_MOST:]


def _together(known: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*known, *later]))[-_MOST:]


def _by(key: Callable[[_T], object], known: Iterable[_T], later: Iterable[_T]) -> tuple[_T, ...]:
    return tuple({key(item): item for item in [*known, *later]}.values())[-_MOST:]


def _media(value: Mapping[str, Any]) -> SessionMedia | None:
    stream = value.get("stream")
    if not _is_count(stream, _MOST_STREAM):
        return None
    formats = [
        (one["payload_type"], _text(one.get("codec")), one["clock_hz"], one["channels"])
        for one in _objects(value.get("formats"))
        if _is_count(one.get("payload_type"), 127)
        and _is_count(one.get("clock_hz"), 1_000_000)
        and _is_count(one.get("channels"), 255)
    ]
    return SessionMedia(cast("int", stream), _text(value.get("label")), tuple(formats))


def _line_link(value: Mapping[str, Any]) -> LineLink | None:
    sequence = value.get("sequence")
    if not _is_count(sequence, canonical.MAX_SAFE_INTEGER):
        return None
    return LineLink(_text(value.get("line")), cast("int", sequence), _text(value.get("previous")))


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _participant(value: Mapping[str, Any]) -> Participant:
    role = value.get("role")
    return Participant(
        participant_id=_text(value.get("participant_id")),
        aor=_text(value.get("aor")),
        name=_optional(value.get("name")),
        role=cast("Role", role) if role in _ROLES else "unknown",
        extensions=_object(value.get("extensions")),
    )


def _stream(value: Mapping[str, Any]) -> SessionStream:
    return SessionStream(
        _text(value.get("label")), _optional(value.get("stream_id")), _optional(value.get("participant_id"))
    )


def _group(value: object) -> object:
    return value.get("group_id") if isinstance(value, dict) else value


def _list(value: object) -> list[object]:
    return value[:_MOST] if isinstance(value, list) else []


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in _list(value) if isinstance(item, str) and item)
