"""Open a call that an agent uploaded: verify it from the manifest down to every record, and unseal what verifies.

1. The manifest is signed by the agent's registered key, and speaks of the place where it lies.
2. Each opening record is signed by that key, is the one whose hash the manifest names, and names an ingest key of the
   tenant; its call key is unwrapped by KMS and bound to tenant and call.
3. Each part has the digest that the manifest names, follows its predecessor in the chain, and is signed.
4. Each record authenticates in its place of the call, and none is missing. One that was cut out since it was signed
   shows itself by its hash; it must lie in a pause, else it is missing.

What fails from step 2 on is damage: it is reported, the rest is kept. Damage never stops a call from being recorded,
and always stops its upload from being deleted. Parts are fetched one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import call_files, call_session, media_record, part
from dualtone.domain.call_files import EpochEntry, IngestKey, Manifest, OpeningFile, PartEntry
from dualtone.domain.call_session import CallSession, SessionMedia
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.part import PartHeader, RecordHead, RecordType, SealedRecord
from dualtone.domain.pause import Pause
from dualtone.domain.signing import VerifyingKeys

LONGEST_CALL_US: Final = 48 * 3600 * 1_000_000
EARLIEST_US: Final = 60 * 1_000_000
"""A minute into 1970: where the clock of a machine without one begins."""


class Uploads(Protocol):
    """The ingest bucket, for reading."""

    def get(self, key: str) -> bytes:
        """Reads an object; raises MalformedInput if it is too large, NotFound or Unavailable."""


class CallKeys(Protocol):
    """Unwraps call keys: KMS."""

    def unwrap_call_key(self, ingest_key: str, wrapped: bytes) -> bytes:
        """Unwraps what was wrapped to an RSA key; raises IntegrityError, PolicyViolation or Unavailable."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of which nothing verifies, microseconds of Unix time."""

    from_us: int
    to_us: int


@dataclass(slots=True)
class OpenedCall:
    """A call that is being opened; what it says grows while its blocks are read.

    Attributes:
        place: Where its files lie.
        manifest: Verified; of an interrupted call what the cloud says in its place.
        manifest_sha256: Of the manifest file, hexadecimal.
        interrupted: Whether there is no manifest (see ``declare_call``).
        session: What the signalling said last.
        damage: What did not verify, in words without personal data.
        holes: Spans that are lost to damage.
        removed: Spans of the records that were cut out because of a pause.
        lacking: Digests of parts that the manifest names and that are not there, hexadecimal.
        negotiated: How each stream was negotiated, change by change.
    """

    place: IngestKey
    manifest: Manifest
    manifest_sha256: str
    interrupted: bool = False
    session: CallSession = field(default_factory=CallSession)
    damage: list[str] = field(default_factory=list)
    holes: list[Gap] = field(default_factory=list)
    removed: list[Gap] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)
    negotiated: dict[int, list[SessionMedia]] = field(default_factory=dict)

    def unread(self) -> OpenedCall:
        """The same call, to be read once more."""
        return replace(
            self,
            damage=list(self.damage),
            holes=list(self.holes),
            removed=list(self.removed),
            lacking=set(self.lacking),
        )

    @property
    def parts(self) -> frozenset[str]:
        """Digests of the parts that were there when they were read."""
        return frozenset(entry.digest for entry in self.manifest.parts) - self.lacking


class OpenCall:
    """Opens calls."""

    def __init__(self, uploads: Uploads, keys: CallKeys) -> None:
        """Takes where uploads lie and what unwraps call keys."""
        self._uploads = uploads
        self._keys = keys

    def manifest(self, place: IngestKey, data: bytes, agent_key_der: VerifyingKeys) -> OpenedCall:
        """Verifies a manifest (step 1).

        Args:
            place: Where it lies.
            data: The manifest file.
            agent_key_der: The agent's public key as registered, SubjectPublicKeyInfo.

        Raises:
            IntegrityError: If the signature is not the agent's, or it is the manifest of another call.
            MalformedInput: If it is no manifest.
        """
        manifest = call_files.verified_manifest(data, agent_key_der)
        if (manifest.tenant, manifest.agent, manifest.call) != (place.tenant, place.agent, place.call):
            raise IntegrityError("a manifest that lies in another call's place")
        if not 0 <= manifest.ended_at_us - manifest.answered_at_us <= LONGEST_CALL_US:
            raise MalformedInput("a manifest of a call that ends before it began, or lasts for days")
        if manifest.answered_at_us < EARLIEST_US:
            raise MalformedInput("a manifest of a call before 1970")
        if manifest.generation < 1:
            raise MalformedInput("a manifest of no generation")
        return OpenedCall(place, manifest, hashlib.sha256(data).hexdigest())

    def blocks(
        self,
        call: OpenedCall,
        agent_key_der: VerifyingKeys,
        ingest_keys: AbstractSet[str],
        pauses: Sequence[Pause] = (),
    ) -> Iterator[list[StreamBlock]]:
        """Reads the parts of a call (steps 2 to 4).

        Args:
            call: The call, whose session, damage and holes are filled in.
            agent_key_der: The agent's public key.
            ingest_keys: ARNs of the KMS keys to which this tenant's agents may wrap call keys.
            pauses: Because of which records may have been cut out.

        Yields:
            The media of each part, empty where nothing verifies.

        Raises:
            PolicyViolation: If KMS refuses.
            Unavailable: If KMS or the bucket do not answer.
        """
        reader = _PartReader(call, pauses)
        for epoch, aead in self._epochs(call, agent_key_der, ingest_keys).items():
            reader.keys[epoch] = aead
        previous = part.NO_PREVIOUS
        for entry in call.manifest.parts:
            try:
                data = self._uploads.get(self._key(call.place, call_files.part_name(entry.epoch, entry.index)))
            except NotFound:
                call.lacking.add(entry.digest)
                reader.lost(entry, "is missing")
                yield []
            except MalformedInput as error:
                reader.lost(entry, f"cannot be read: {error}")
                yield []
            else:
                yield reader.read(entry, data, previous, agent_key_der)
            previous = entry.digest
        reader.close()

    def _epochs(
        self, call: OpenedCall, agent_key_der: VerifyingKeys, ingest_keys: AbstractSet[str]
    ) -> dict[int, AESGCM]:
        keys: dict[int, AESGCM] = {}
        for entry in call.manifest.epochs:
            try:
                keys[entry.epoch] = self._epoch(call, entry, agent_key_der, ingest_keys)
            except NotFound:
                call.damage.append(f"opening {entry.epoch} is missing")
            except (IntegrityError, MalformedInput) as error:
                call.damage.append(f"opening {entry.epoch} does not verify: {error}")
        return keys

    def _epoch(
        self, call: OpenedCall, entry: EpochEntry, agent_key_der: VerifyingKeys, ingest_keys: AbstractSet[str]
    ) -> AESGCM:
        data = self._uploads.get(self._key(call.place, call_files.opening_name(entry.epoch)))
        if hashlib.sha256(data).hexdigest() != entry.opening_sha256:
            raise IntegrityError("its hash is another than the manifest's")
        file = OpeningFile.decode(data)
        opening = file.verified(agent_key_der)
        place = call.place
        if (opening.tenant, opening.agent, opening.call, opening.epoch) != (
            place.tenant,
            place.agent,
            place.call,
            entry.epoch,
        ):
            raise IntegrityError("it was made for another call")
        if opening.key_arn not in ingest_keys:
            raise IntegrityError("it names a key that is not the tenant's")
        unwrapped = self._keys.unwrap_call_key(opening.key_arn, file.wrapped_key)
        return AESGCM(call_files.unbound_call_key(place.tenant, place.call, unwrapped))

    @staticmethod
    def _key(place: IngestKey, name: str) -> str:
        return call_files.ingest_prefix(place.tenant, place.agent, place.call) + name


class _PartReader:
    """Follows the records of a call from part to part, and remembers where something is missing."""

    def __init__(self, call: OpenedCall, pauses: Sequence[Pause]) -> None:
        self._call = call
        self._pauses = pauses
        self._told: dict[int, CallSession] = {}  # the last word of each epoch, in their order
        self._expected: dict[int, int] = {}
        self._promised: dict[int, int] = {}
        self._latest_us = call.manifest.answered_at_us
        self._hole = False
        self.keys: dict[int, AESGCM] = {}

    def lost(self, entry: PartEntry, why: str) -> None:
        """Notes that a part is lost as a whole."""
        self._damaged(entry, why)
        self._promised[entry.epoch] = self._promised.get(entry.epoch, 0) + entry.records
        self._expected[entry.epoch] = self._promised[entry.epoch]
        self._hole = True

    def read(self, entry: PartEntry, data: bytes, previous: str, agent_key_der: VerifyingKeys) -> list[StreamBlock]:
        """Unseals what authenticates of a part's records."""
        aead = self.keys.get(entry.epoch)
        if aead is None:
            self.lost(entry, "has no key")
            return []
        header = PartHeader(
            self._call.place.tenant, self._call.place.agent, self._call.place.call, entry.epoch, entry.index, previous
        )
        try:
            found = part.read(data)
        except MalformedInput as error:
            self.lost(entry, f"cannot be read: {error}")
            return []
        if found.digest.hex() != entry.digest:
            self._damaged(entry, "has another digest than the manifest's")
        elif found.header != header:
            self._damaged(entry, "does not follow its predecessor")
        elif len(found.records) != entry.records:
            self._damaged(entry, "has another number of records than the manifest's")
        else:
            try:
                found.verify(agent_key_der)
            except IntegrityError:
                self._damaged(entry, "is not signed by the agent")
        # What a record is bound to is taken from the manifest, never from the part's own head.
        blocks = [
            block
            for record in found.records
            if (plaintext := self._unsealed(entry, aead, header, record)) is not None
            for block in self._content(entry, record.head.type, plaintext)
        ]
        self._complete(entry)
        return blocks

    def close(self) -> None:
        """Ends the call: a hole that nothing follows lasts until its end."""
        if self._hole:
            self._call.holes.append(Gap(self._latest_us, max(self._latest_us, self._call.manifest.ended_at_us)))

    def _unsealed(self, entry: PartEntry, aead: AESGCM, header: PartHeader, record: SealedRecord) -> bytes | None:
        sequence, plaintext = record.head.sequence, None
        if record.head.type is not RecordType.REMOVED:
            try:
                plaintext = part.unseal(aead, header, record)
            except IntegrityError:
                self._damaged(entry, f"holds a record that does not authenticate: {sequence}")
                self._hole = True
                return None
        expected = self._expected.get(entry.epoch, 0)
        if sequence < expected:
            self._damaged(entry, f"repeats record {sequence}")
            return None
        if sequence > expected:
            self._damaged(entry, f"lacks records before {sequence}")
            self._hole = True
        self._expected[entry.epoch] = sequence + 1
        if record.head.type is RecordType.REMOVED:
            self._removed(entry, record.head)
        return plaintext

    def _removed(self, entry: PartEntry, head: RecordHead) -> None:
        to_us = head.from_us + head.span_us
        if any(pause.explains(head.from_us, to_us) for pause in self._pauses):
            self._call.removed.append(Gap(head.from_us, to_us))
            self._latest_us = max(self._latest_us, to_us)
        else:
            self._damaged(entry, f"lacks record {head.sequence}, which was cut out for no pause")
            self._hole = True

    def _content(self, entry: PartEntry, record_type: RecordType, plaintext: bytes) -> list[StreamBlock]:
        try:
            if record_type is RecordType.SESSION:
                told = self._told[entry.epoch] = call_session.parse(plaintext)
                self._call.session = call_session.merged(self._told.values())
                for media in told.media:
                    self._call.negotiated.setdefault(media.stream, []).append(media)
            elif record_type is RecordType.MEDIA:
                return self._media(media_record.decode(plaintext))
        except MalformedInput as error:
            self._damaged(entry, f"holds a malformed record: {error}")
            self._hole = True
        return []

    def _media(self, blocks: list[StreamBlock]) -> list[StreamBlock]:
        filled = [block for block in blocks if block.arrival_us.size]
        if filled:
            if self._hole:
                first_us = min(int(block.arrival_us[0]) for block in filled)
                self._call.holes.append(Gap(self._latest_us, max(self._latest_us, first_us)))
                self._hole = False
            self._latest_us = max(self._latest_us, *(int(block.arrival_us[-1]) for block in filled))
        return filled

    def _complete(self, entry: PartEntry) -> None:
        """Notes the records at a part's end that the manifest promises and that did not come."""
        self._promised[entry.epoch] = promised = self._promised.get(entry.epoch, 0) + entry.records
        if self._expected.get(entry.epoch, 0) < promised:
            self._damaged(entry, f"lacks records before {promised}")
            self._expected[entry.epoch] = promised
            self._hole = True

    def _damaged(self, entry: PartEntry, why: str) -> None:
        self._call.damage.append(f"part {entry.epoch}-{entry.index} {why}")
