"""Declare a call whose manifest never came: say of it what the manifest would say, from what its agent signed.

Openings and parts lie in the ingest bucket; each is signed by the agent and the parts are chained, so what they say of
themselves can be relied on without a manifest. The statement names exactly the files that are there. It is opened,
verified and rendered like a manifest (``open_call``): a part that is missing in between is damage as always.

What nobody knows is left open and said: how the call went on after the last record (a gap of the cause
``interrupted``, as long as its agent told that it lasted), and between two runs of the agent (``restart``). Payload
types mean what the SESSION records say was negotiated, and without those what RFC 3551 says.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Protocol

from dualtone.domain import call_files, canonical, part
from dualtone.domain.call_files import (
    EpochEntry,
    GapEntry,
    IngestKey,
    Manifest,
    OpeningFile,
    PartEntry,
    StreamEntry,
    StreamFormat,
    StreamStatistics,
)
from dualtone.domain.call_session import SessionMedia
from dualtone.domain.call_watch import StoredFile
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput, NotFound
from dualtone.domain.part import PartHeader
from dualtone.domain.signing import VerifyingKeys
from dualtone.usecases.open_call import LONGEST_CALL_US, OpenCall, OpenedCall

INTERRUPTED: Final = "interrupted"
RESTART: Final = "restart"

_OPENING: Final = re.compile(r"opening-(\d{2,5})\.json", re.ASCII)
_PART: Final = re.compile(r"part-(\d{2,5})-(\d{6,9})\.dtp", re.ASCII)
_UNREADABLE: Final = "0" * 64


class StoredUploads(Protocol):
    """The ingest bucket, for reading and looking."""

    def get(self, key: str) -> bytes:
        """Reads an object; raises MalformedInput if it is too large, NotFound or Unavailable."""

    def list(self, prefix: str) -> list[StoredFile]:
        """Lists what lies below a prefix."""


@dataclass(slots=True)
class _Found:
    """What the files of a call say, in the clear, as far as the agent signed it. Microseconds by the agent's clock."""

    epochs: list[EpochEntry] = field(default_factory=list)
    parts: list[PartEntry] = field(default_factory=list)
    restarts: list[tuple[int, int]] = field(default_factory=list)
    started_us: int | None = None
    first_us: int | None = None
    last_us: int = 0
    last_epoch: int = 0

    def add_span(self, epoch: int, from_us: int, to_us: int) -> None:
        """Takes the span of a part's records."""
        if self.first_us is None:
            self.first_us = from_us
        elif epoch != self.last_epoch and from_us > self.last_us:
            self.restarts.append((self.last_us, from_us))
        self.last_us, self.last_epoch = max(self.last_us, to_us), epoch


class DeclareCall:
    """Declares calls."""

    def __init__(self, uploads: StoredUploads, open_call: OpenCall) -> None:
        """Takes where uploads lie, and what opens them."""
        self._uploads = uploads
        self._open_call = open_call

    def __call__(
        self, place: IngestKey, agent_key_der: VerifyingKeys, ingest_keys: AbstractSet[str], lasted_until_us: int
    ) -> OpenedCall | None:
        """Declares one call. Its parts are read twice: once to see which streams there are, later to be rendered.

        Args:
            place: Where its files lie.
            agent_key_der: The agent's public key as registered, SubjectPublicKeyInfo.
            ingest_keys: ARNs of the KMS keys to which this tenant's agents may wrap call keys.
            lasted_until_us: Until when the call lasted by its agent's word, microseconds; 0 if it never said.

        Returns:
            The call, to be opened; None if nothing of it can be relied on.

        Raises:
            PolicyViolation: If KMS or the bucket refuses.
            Unavailable: If one of them does not answer.
        """
        found = self._look(place, agent_key_der)
        if found.first_us is None:
            return None
        answered_us = min(found.first_us, found.started_us or found.first_us)
        # A clock that ran wild must not make a recording of days of silence.
        ended_us = min(max(found.last_us, lasted_until_us), answered_us + LONGEST_CALL_US)
        statement = Manifest(
            tenant=place.tenant,
            agent=place.agent,
            call=place.call,
            generation=1,
            epochs=found.epochs,
            parts=found.parts,
            streams=[],
            answered_at_us=answered_us,
            ended_at_us=ended_us,
            end_reason=INTERRUPTED,
            gaps=[],
            statistics=[],
            flags=[INTERRUPTED],
            version="",
        )
        streams, received = self._streams(place, statement, agent_key_der, ingest_keys)
        spans = [(*span, RESTART) for span in found.restarts]
        if ended_us > found.last_us:
            spans.append((found.last_us, ended_us, INTERRUPTED))
        return _opened(
            place,
            replace(
                statement,
                streams=streams,
                gaps=[GapEntry(stream.stream, *span) for span in spans for stream in streams],
                statistics=[
                    StreamStatistics(stream.stream, received[stream.stream], 0, 0, 0, 0, 0) for stream in streams
                ],
            ),
        )

    def _look(self, place: IngestKey, agent_key_der: VerifyingKeys) -> _Found:
        prefix, found = call_files.ingest_prefix(place.tenant, place.agent, place.call), _Found()
        names = [file.name for file in self._uploads.list(prefix)]
        for match in filter(None, map(_OPENING.fullmatch, names)):
            self._add_opening(found, prefix + match[0], int(match[1]), agent_key_der)
        parts = [(int(match[2]), int(match[1]), match[0]) for match in filter(None, map(_PART.fullmatch, names))]
        for index, epoch, name in sorted(parts):
            self._add_part(
                found, PartHeader(place.tenant, place.agent, place.call, epoch, index, ""), prefix + name, agent_key_der
            )
        return found

    def _add_opening(self, found: _Found, key: str, epoch: int, agent_key_der: VerifyingKeys) -> None:
        try:
            data = self._uploads.get(key)
        except (NotFound, MalformedInput):
            return
        found.epochs.append(EpochEntry(epoch, hashlib.sha256(data).hexdigest()))
        try:
            started_us = OpeningFile.decode(data).verified(agent_key_der).started_at_us
        except (IntegrityError, MalformedInput):
            return  # opening it will say so
        found.started_us = min(started_us, found.started_us or started_us)

    def _add_part(self, found: _Found, place: PartHeader, key: str, agent_key_der: VerifyingKeys) -> None:
        try:
            data = self._uploads.get(key)
        except NotFound:
            return
        except MalformedInput:
            data = b""
        try:
            read = part.read(data)
        except MalformedInput:
            found.parts.append(PartEntry(place.epoch, place.index, _UNREADABLE, len(data), 0))
            return
        found.parts.append(PartEntry(place.epoch, place.index, read.digest.hex(), len(data), len(read.records)))
        try:
            read.verify(agent_key_der)
        except DualtoneError:
            return  # opening it will say so
        heads = [record.head for record in read.records]
        if heads and replace(read.header, previous="") == place:
            ends = [head.from_us + head.span_us for head in heads]
            found.add_span(place.epoch, min(head.from_us for head in heads), max(ends))

    def _streams(
        self, place: IngestKey, statement: Manifest, agent_key_der: VerifyingKeys, ingest_keys: AbstractSet[str]
    ) -> tuple[list[StreamEntry], Counter[int]]:
        """Opens the call once to see which streams its records hold, and how many packets of each."""
        call, received = _opened(place, statement), Counter[int]()
        for blocks in self._open_call.blocks(call, agent_key_der, ingest_keys):
            for block in blocks:
                received[block.stream] += block.sequence.size
        return [
            _stream(stream, call.negotiated.get(stream, ()), statement.answered_at_us)
            for stream in sorted({*received, *call.negotiated})
        ], received


def _opened(place: IngestKey, statement: Manifest) -> OpenedCall:
    digest = hashlib.sha256(canonical.encode(asdict(statement))).hexdigest()
    return OpenedCall(place, statement, digest, interrupted=True)


def _stream(stream: int, negotiated: Sequence[SessionMedia], from_us: int) -> StreamEntry:
    """A stream as it was negotiated; of a payload type that changed its meaning, the first counts."""
    formats: dict[int, StreamFormat] = {}
    for payload_type, codec, clock_hz, channels in (one for media in negotiated for one in media.formats):
        formats.setdefault(payload_type, StreamFormat(payload_type, codec, clock_hz, channels, from_us))
    return StreamEntry(stream, negotiated[-1].label if negotiated else "", list(formats.values()))
