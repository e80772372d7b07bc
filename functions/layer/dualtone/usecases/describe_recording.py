"""Describe a recording: from what the agent, the signalling and the audio say to what the index and its metadata hold.

Pure. Numbers, names and Call-IDs go into the metadata, which is sealed; the index entry holds none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from pydantic import TypeAdapter

from dualtone.domain import canonical
from dualtone.domain.audio import channels
from dualtone.domain.call_files import Manifest
from dualtone.domain.call_session import CallSession
from dualtone.domain.direction import Direction, Lines, Party, direction_of
from dualtone.domain.numbers import normalise
from dualtone.domain.pause import Pause
from dualtone.domain.recording_entry import Channel, ChannelQuality, Gap
from dualtone.domain.recording_ruling import Chosen, Kept
from dualtone.usecases.render_audio import Rendering, heard_streams

MOST_GAPS: Final = 2000
"""An item of DynamoDB has at most 400 KB; so many gaps take 150 KB of it."""

_LONGEST_MS: Final = 10 * 86_400_000
_KEPT: Final = TypeAdapter(Kept)
_CHOSEN: Final = TypeAdapter(Chosen)


def metadata(session: CallSession, lines: Sequence[str]) -> dict[str, Any]:
    """What is sealed as the recording's metadata.

    Args:
        session: What the signalling said.
        lines: Patterns of the tenant's lines: those that took part are named.
    """
    kept = kept_by(session)
    own = Lines.parse(lines)
    return {
        "participants": [
            {
                "participant_id": participant.participant_id,
                "aor": participant.aor,
                "name": participant.name,
                "number": normalise(participant.aor),
                "role": participant.role,
                "extensions": participant.extensions,
            }
            for participant in session.participants
        ],
        "sip_call_id": session.sip_call_id,
        "session_ids": list(session.session_ids),
        "sip_session_ids": list(session.sip_session_ids),
        "groups": list(session.groups),
        "user_agent": session.user_agent,
        "extensions": session.extensions,
        "lines": [number for number in numbers(session) if own.include(number)],
        "policy": {} if kept is None else asdict(kept),
        "consents": [asdict(choice) for choice in chosen(session)],
        "chain": [asdict(link) for link in session.chain],
    }


def kept_by(session: CallSession) -> Kept | None:
    """By which rule the call is kept; None if its agent does not say, or not in a form that is known."""
    try:
        return _KEPT.validate_json(canonical.encode(session.policy))
    except ValueError:
        return None


def chosen(session: CallSession) -> list[Chosen]:
    """What people chose for the call, in the order of time, as far as it has a form that is known."""
    found = []
    for choice in session.consents:
        with contextlib.suppress(ValueError):
            found.append(_CHOSEN.validate_json(canonical.encode(choice)))
    return sorted(found, key=lambda choice: choice.at_us)


def numbers(session: CallSession) -> list[str]:
    """The normalised numbers of the parties, each once."""
    return sorted({number for party in session.participants if (number := normalise(party.aor)) is not None})


def direction(session: CallSession, lines: Sequence[str]) -> Direction:
    """Which way the call went, seen from the tenant's lines."""
    parties = [Party(participant.role, normalise(participant.aor)) for participant in session.participants]
    return direction_of(parties, Lines.parse(lines))


def channel_list(manifest: Manifest, session: CallSession, rendering: Rendering) -> tuple[Channel, ...]:
    """What is heard on each channel: one entry per stream, in the order of the channels."""
    entries = []
    for stream in heard_streams(manifest):
        named = session.stream(stream.label)
        entries.append(
            Channel(
                channel=rendering.channel_of[stream.stream],
                label=stream.label,
                stream_id=named.stream_id if named else None,
                participant=session.sender(stream.label),
                role=session.role(stream.label),
            )
        )
    return tuple(sorted(entries, key=lambda entry: entry.channel))


def gaps(rendering: Rendering, certificates: Sequence[int]) -> tuple[Gap, ...]:
    """The declared and damaged spans, by channel, each once.

    Args:
        rendering: Has the spans.
        certificates: For each of its pauses the place of the certificate.

    Of a call with more than ``MOST_GAPS``, spans of one cause that lie closer than a second, two, four and so on are
    one, until so many are left: a gap may say too much, and never too little.
    """
    every = [
        Gap(
            rendering.channel_of[gap.stream],
            gap.from_ms,
            gap.to_ms,
            gap.cause,
            certificates[gap.pause] if gap.pause is not None else None,
            _first_silent(rendering.pauses[gap.pause], gap.stream) if gap.pause is not None else None,
        )
        for gap in rendering.gaps
    ]
    found, apart_ms = list(dict.fromkeys(every)), 1000
    while len(found) > MOST_GAPS and apart_ms <= _LONGEST_MS:
        found, apart_ms = _joined(found, apart_ms), 2 * apart_ms
    return tuple(found)


def _first_silent(pause: Pause, stream: int) -> int | None:
    return next((one.rtp_timestamp for one in pause.silent_from if one.stream == stream), None)


def _joined(found: Sequence[Gap], apart_ms: int) -> list[Gap]:
    joined: list[Gap] = []
    latest: dict[tuple[int, str], int] = {}
    for gap in found:
        place = latest.get((gap.channel, gap.cause))
        if place is not None and gap.from_ms - joined[place].to_ms < apart_ms:
            joined[place] = replace(joined[place], to_ms=max(joined[place].to_ms, gap.to_ms))
        else:
            latest[gap.channel, gap.cause] = len(joined)
            joined.append(gap)
    return joined


def quality(manifest: Manifest, rendering: Rendering) -> tuple[ChannelQuality, ...]:
    """How well each channel arrived. Damaged packets are lost; telephone events that the agent suppressed are not."""
    counted = {counts.stream: counts for counts in manifest.statistics}
    figures = []
    for channel in range(channels.CHANNELS):
        streams = [stream for stream, place in rendering.channel_of.items() if place == channel]
        received = [rendering.reception[stream] for stream in streams]
        packets = sum(reception.packets for reception in received)
        suppressed = sum(counted[stream].events_suppressed for stream in streams if stream in counted)
        figures.append(
            ChannelQuality(
                channel=channel,
                packets=packets,
                lost=max(0, sum(reception.lost + reception.damaged for reception in received) - suppressed),
                duplicates=sum(reception.duplicates for reception in received)
                + sum(counted[stream].duplicates for stream in streams if stream in counted),
                jitter_ms=round(max((reception.jitter_ms for reception in received), default=0.0), 2),
                silence_ratio=round(rendering.silence_ratio[channel], 4),
                one_sided=rendering.one_sided[channel] and len(rendering.channel_of) > 1,
            )
        )
    return tuple(figures)


def flags(*groups: Iterable[str]) -> tuple[str, ...]:
    """All flags, each once, in alphabetical order."""
    return tuple(sorted({flag for group in groups for flag in group}))
