"""Who speaks, as Cisco's gateways say it without metadata (network-based recording). Pure; no standard.

`X-Cisco-Recording-Participant: sip:1000@198.51.100.2;media-index="0 2"`, once a party: the address of a party, and the
places of the m-lines, from 0, that carry what it sends. It is a vendor's mark of the kind that INTEROP prefers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol.grammar import readable
from sbc_agent.protocol.message import Request
from sbc_agent.protocol.sdp import MAX_MEDIA

HEADER: Final = "X-Cisco-Recording-Participant"
MAX_PARTIES: Final = 16
MAX_ADDRESS_CHARACTERS: Final = 1_024


@dataclass(frozen=True, slots=True)
class CiscoParticipant:
    """A party: its address as claimed, and the m-lines of what it sends."""

    aor: str = field(repr=False)
    media: tuple[int, ...]


def read(asked: Request) -> tuple[CiscoParticipant, ...]:
    """The parties that a request names, in its order; one that cannot be read is passed over."""
    found = []
    for value in asked.listed(HEADER.lower())[:MAX_PARTIES]:
        try:
            party = addresses.parse(value)
        except MalformedInput:
            continue
        places = party.parameters.get("media-index", "").split()
        media = [int(place) for place in places if place.isascii() and place.isdigit() and len(place) <= 2]  # noqa: PLR2004
        kept = tuple(place for place in dict.fromkeys(media) if place < MAX_MEDIA)
        found.append(CiscoParticipant(readable(party.uri)[:MAX_ADDRESS_CHARACTERS], kept))
    return tuple(found)


def facts(parties: Sequence[CiscoParticipant], labels: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Participants and streams of the SESSION record.

    Args:
        parties: what `read` found.
        labels: the label of each m-line, in their order. A stream that two parties claim is neither's.
    """
    senders: dict[int, list[int]] = {}
    for number, party in enumerate(parties):
        for place in party.media:
            senders.setdefault(place, []).append(number)
    return {
        "participants": [
            {"participant_id": f"cisco-{number}", "aor": party.aor, "name": "", "role": "unknown", "extensions": {}}
            for number, party in enumerate(parties)
        ],
        "streams": [
            {
                "label": label,
                "stream_id": None,
                "participant_id": f"cisco-{senders[place][0]}" if len(senders.get(place, ())) == 1 else None,
            }
            for place, label in enumerate(labels)
        ],
    }
