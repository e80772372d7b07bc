"""The metadata of a recording session as it stands after several documents. Pure; standard: RFC 7865 section 6.1.

A document changes what it names, whether it calls itself complete or partial. What was ever named is kept: a party
that left a transferred call was still recorded. Likewise the sender of a stream stays its sender when a hold takes the
`send` away, until another participant sends that stream.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from sbc_agent.protocol.metadata import (
    MAX_EXTENSION_CHARACTERS,
    MAX_EXTENSIONS,
    Metadata,
    Participant,
    Session,
    Stream,
)

# What one recording session remembers of each kind; of more the oldest go (the messages themselves are all kept).
MAX_REMEMBERED: Final = 256
# And in characters, so that all of it fits into one SESSION record.
MAX_CHARACTERS: Final = 32_768

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordingSession:
    """What is known of the communication sessions that one recording session carries."""

    groups: tuple[str, ...] = ()
    sessions: dict[str, Session] = field(default_factory=dict)
    participants: dict[str, Participant] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    senders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)

    def merged(self, update: Metadata) -> "RecordingSession":
        """What is known after one more document.

        Args:
            update: its facts.

        Returns:
            A new state; this one is left as it is.
        """
        streams = dict(self.streams)
        for stream in update.streams:
            known = streams.get(stream.stream_id)
            label = stream.label or (known.label if known else "")
            if label:
                # A label names one stream at a time: what it named before is history.
                streams = {key: value for key, value in streams.items() if value.label != label}
                streams[stream.stream_id or f"label {label}"] = replace(stream, label=label)
        return RecordingSession(
            groups=tuple(_latest(dict.fromkeys(self.groups), dict.fromkeys(update.groups))),
            sessions=_latest(self.sessions, {session.session_id: session for session in update.sessions}),
            participants=_latest(
                self.participants, {person.participant_id: self._corrected(person) for person in update.participants}
            ),
            streams=_latest(streams, {}),
            senders=_latest(self.senders, _named(update)),
            extensions=_latest(self.extensions, update.extensions, MAX_EXTENSIONS),
        )

    def sender_of(self, stream_id: str) -> str | None:
        """The participant who sends a stream, if exactly one is said to."""
        senders = self.senders.get(stream_id, ())
        return senders[0] if len(senders) == 1 else None

    def labelled(self) -> tuple[str, ...]:
        """The labels that the metadata names, in its order."""
        return tuple(stream.label for stream in self.streams.values())

    def facts(self, *, senders: bool = True) -> dict[str, Any]:
        """The part of the SESSION record that metadata gives: sessions, groups, participants, streams, extensions.

        Args:
            senders: whether what it says of who sends a stream can be believed.
        """
        return {
            "sessions": [
                {"session_id": session.session_id, "sip_session_id": session.sip_session_id}
                for session in self.sessions.values()
            ],
            "groups": list(self.groups),
            "participants": [
                {
                    "participant_id": person.participant_id,
                    "aor": person.aor,
                    "name": person.name,
                    "role": person.role,
                    "extensions": dict(person.extensions),
                }
                for person in self.participants.values()
            ],
            "streams": [
                {
                    "label": stream.label,
                    "stream_id": stream.stream_id or None,
                    "participant_id": self.sender_of(stream.stream_id) if senders else None,
                }
                for stream in self.streams.values()
            ],
            "extensions": dict(self.extensions),
        }

    def _corrected(self, update: Participant) -> Participant:
        """A participant by the latest word, blanks filled from what was known."""
        known = self.participants.get(update.participant_id)
        if known is None:
            return update
        return replace(
            update,
            aor=update.aor or known.aor,
            name=update.name or known.name,
            role=known.role if update.role == "unknown" else update.role,
            extensions=_latest(known.extensions, update.extensions, MAX_EXTENSIONS, MAX_EXTENSION_CHARACTERS),
        )


def _named(update: Metadata) -> dict[str, tuple[str, ...]]:
    """Stream to those who are said to send it."""
    named: dict[str, tuple[str, ...]] = {}
    for participant, sent in update.sends.items():
        for stream in sent:
            named[stream] = (*named.get(stream, ()), participant)[:2]  # of two it is as unknown as of more
    return named


def _latest(
    known: dict[str, _T], news: dict[str, _T], most: int = MAX_REMEMBERED, characters: int = MAX_CHARACTERS
) -> dict[str, _T]:
    """What was known, with the news; of more than `most`, or more than so many characters, the oldest go."""
    merged = list((known | news).items())[-most:]
    first, room = len(merged), characters
    while first and (room := room - len(repr(merged[first - 1]))) >= 0:
        first -= 1
    return dict(merged[first:])
