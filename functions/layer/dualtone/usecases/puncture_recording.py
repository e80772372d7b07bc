"""Puncture a recording: make seconds of it unreadable for good, in every copy, because they were paused too late.

The keys of all segments that a paused span touches are forgotten: the node set is replaced by one that cannot derive
them, sealed under two new shares. Who kept the item of before needs the shares of before, and those the custodians: the
certificate says when that was, and an item that was copied earlier is the limit which the design states. Keys,
certificates, gaps and audit event change in one transaction, so that a punctured second is always a declared one.

A span reaches outward to whole segments, and over one packet of 20 ms on both sides: the encoder looks 6.5 ms ahead,
and its packets overlap by as much (RFC 6716 section 4.2, RFC 7845 section 4.2). Spans are times of arrival, while the
audio lies where its RTP timestamps put it: up to 200 ms after it arrived, if the source began on a slower path
(``audio.placement``). So a span reaches that much further at its end; at its beginning the margin of every pause does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from dualtone.domain import gap_certificate, keytree, pause
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.errors import NotFound, Unavailable
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId
from dualtone.domain.kek import NONCE_BYTES, KeyItem, KeyScope
from dualtone.domain.keytree import NodeSet
from dualtone.domain.pause import How, Pause
from dualtone.domain.pause_ledger import PauseSpan
from dualtone.domain.recording_entry import Gap
from dualtone.domain.signing import Envelope, Signer
from dualtone.usecases import wrap_keys
from dualtone.usecases.wrap_keys import Custody

WHO: Final = "function:cut-paused-spans"
PAUSED_AUDIO_DESTROYED: Final = "paused_audio_destroyed"
"""Flag of a recording of which paused seconds were destroyed."""

CODEC_REACH_MS: Final = 20
PLACED_LATER_MS: Final = 200
"""How long after its arrival a packet may lie on the timeline; ``audio.placement.TOLERANCE``, without numpy."""

_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Times:
    """When a generation's audio is.

    Attributes:
        started_at_ms: Where its timeline begins, Unix time by the agent's clock.
        answered_at_ms: When the call was answered, by the same clock.
        ended_at_ms: When it ended.
        duration_ms: How long the audio is.
        segment_ms: How long a segment is.
    """

    started_at_ms: int
    answered_at_ms: int
    ended_at_ms: int
    duration_ms: int
    segment_ms: int

    def segments(self, from_us: int, to_us: int, count: int) -> tuple[int, int] | None:
        """The first and last segment that hold something of a span; None if none does.

        Args:
            from_us: Where the span begins, by the agent's clock.
            to_us: Where it ends.
            count: How many segments there are.
        """
        first = (from_us // 1000 - self.started_at_ms - CODEC_REACH_MS) // self.segment_ms
        last = (-(-to_us // 1000) - self.started_at_ms + PLACED_LATER_MS + CODEC_REACH_MS) // self.segment_ms
        return (max(first, 0), min(last, count - 1)) if first < count and last >= 0 else None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A generation of a recording, as far as a late pause concerns it.

    Attributes:
        tenant: Owner.
        recording: The recording.
        call: The call that it is of.
        agent: Who recorded it.
        generation: Which version of the recording.
        agent_manifest_sha256: From which manifest it was made.
        times: When its audio is.
        certificates: Of its pauses so far.
        revision: How often these were changed; 0 if there are none.
        is_latest: Whether the index shows this generation.
        channels: Its channels, if it is the latest.
        gaps: Its gaps, if it is the latest.
        flags: Its flags, if it is the latest.
    """

    tenant: TenantId
    recording: RecordingId
    call: CallId
    agent: AgentId
    generation: int
    agent_manifest_sha256: str
    times: Times
    certificates: tuple[Envelope, ...]
    revision: int
    is_latest: bool
    channels: tuple[int, ...]
    gaps: tuple[Gap, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Puncture:
    """What one transaction changes.

    Attributes:
        of: The generation as it was read: what changed since refuses the transaction.
        keys: The next version of its key item; None if its keys cannot derive those seconds already.
        certificates: All certificates, new ones included.
        gaps: All gaps.
        flags: All flags.
        event: The audit event.
    """

    of: Recorded
    keys: KeyItem | None
    certificates: tuple[Envelope, ...]
    gaps: tuple[Gap, ...]
    flags: tuple[str, ...]
    event: AuditEvent


class Recordings(Protocol):
    """The index table, as far as pauses of recordings go."""

    def of_call(self, tenant: TenantId, call: CallId) -> list[Recorded]:
        """Reads the generations of a call, consistently."""

    def change(self, puncture: Puncture) -> bool:
        """Does the transaction; False if something changed since it was read."""


class KeyItems(Protocol):
    """The keys table, for reading."""

    def load(self, tenant: TenantId, recording: RecordingId, generation: int) -> KeyItem:
        """The item of a generation, read consistently; raises NotFound."""


class PunctureRecording:
    """Punctures recordings."""

    def __init__(
        self,
        *,
        recordings: Recordings,
        keys: KeyItems,
        custody: Callable[[TenantId], Custody],
        certifier: Signer,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Takes the tables, what opens a session at the custodians, what signs certificates, clock and randomness."""
        self._recordings = recordings
        self._keys = keys
        self._custody = custody
        self._certifier = certifier
        self._now_ms = now_ms
        self._random_bytes = random_bytes

    def __call__(self, tenant: TenantId, call: CallId, spans: Sequence[PauseSpan]) -> int:
        """Makes all generations of a call agree with spans that must be silent; any number of times, also at once.

        Args:
            tenant: Owner of the call.
            call: The call.
            spans: What must be silent.

        Returns:
            How many generations were changed.

        Raises:
            IntegrityError: If a key item is not what was sealed.
            PolicyViolation: If a custodian refuses.
            Unavailable: If something does not answer, or others change the same recording without end.
        """
        changed = 0
        for _try in range(_TRIES):
            punctures = [
                puncture
                for recorded in self._recordings.of_call(tenant, call)
                if (puncture := self._puncture(recorded, spans)) is not None
            ]
            if not punctures:
                return changed
            changed += sum(self._recordings.change(puncture) for puncture in punctures)
        raise Unavailable("the recording is changed by others without end")

    def _puncture(self, recorded: Recorded, spans: Sequence[PauseSpan]) -> Puncture | None:
        known = [gap_certificate.parse(one.payload).pause for one in recorded.certificates]
        missing = [
            one
            for one in pause.union(
                known,
                spans,
                answered_us=1000 * min(recorded.times.answered_at_ms, recorded.times.started_at_ms),
                ended_us=1000
                * max(recorded.times.ended_at_ms, recorded.times.started_at_ms + recorded.times.duration_ms),
            )
            if not any(other.cause == one.cause and other.covers(one) for other in known)
        ]
        if not missing:
            return None
        try:
            item = self._keys.load(recorded.tenant, recorded.recording, recorded.generation)
        except NotFound:
            return None  # the recording was destroyed as a whole
        custody, scope = self._custody(recorded.tenant), KeyScope(recorded.tenant, recorded.recording, item.version)
        nodes = wrap_keys.unwrap(custody, item, scope)
        kept, places = nodes, list[tuple[int, int] | None]()
        for one in missing:
            places.append(recorded.times.segments(one.from_us, one.to_us, nodes.count))
            if places[-1] is not None:
                kept = keytree.puncture(kept, *places[-1])
        return self._changes(
            recorded, known, missing, places, None if kept == nodes else self._next(custody, item, scope, kept)
        )

    def _next(self, custody: Custody, item: KeyItem, scope: KeyScope, nodes: NodeSet) -> KeyItem:
        """The item's next version: other shares, other nonce, fewer keys."""
        return wrap_keys.wrap(
            custody,
            nodes=nodes,
            scope=replace(scope, version=item.version + 1),
            key_a=item.key_a_arn,
            key_b=item.key_b_arn,
            nonce=self._random_bytes(NONCE_BYTES),
            created_at_ms=self._now_ms(),
        )

    def _changes(
        self,
        recorded: Recorded,
        known: Sequence[Pause],
        missing: Sequence[Pause],
        places: Sequence[tuple[int, int] | None],
        keys: KeyItem | None,
    ) -> Puncture:
        now_ms, certificates, gaps = self._now_ms(), list(recorded.certificates), list(recorded.gaps)
        names = [one.name for one in known]
        seconds: list[int] = []
        for one, segments in zip(missing, places, strict=True):
            envelope = gap_certificate.of_pause(
                replace(one, how=How.REMOVED if segments is None else How.DESTROYED),
                tenant=recorded.tenant,
                recording=recorded.recording,
                call=recorded.call,
                generation=recorded.generation,
                agent_manifest_sha256=recorded.agent_manifest_sha256,
                signed_at_ms=now_ms,
                segments=segments,
            ).sealed_by(self._certifier)
            if one.name in names:
                place = names.index(one.name)
                certificates[place] = envelope
            else:
                place = len(certificates)
                certificates.append(envelope)
                names.append(one.name)
            if segments is not None:
                seconds += segments
                gaps = [gap for gap in gaps if gap.pause != place] + _gaps(recorded, one, segments, place)
        return Puncture(
            of=recorded,
            keys=keys,
            certificates=tuple(certificates),
            gaps=tuple(sorted(gaps, key=lambda gap: (gap.from_ms, gap.channel, gap.to_ms))),
            flags=tuple(sorted({*recorded.flags, *([PAUSED_AUDIO_DESTROYED] if seconds else [])})),
            event=AuditEvent(
                tenant=recorded.tenant,
                who=WHO,
                what=Work.PUNCTURE_RECORDING,
                when_ms=now_ms,
                outcome=Outcome.GRANTED,
                origin="cloud",
                which=recorded.recording,
                request_id="",
                details={
                    "call": recorded.call,
                    "generation": recorded.generation,
                    "segments": seconds,
                    "pauses": len(missing),
                },
            ),
        )


def _gaps(recorded: Recorded, one: Pause, segments: tuple[int, int], place: int) -> list[Gap]:
    """What is silent now, channel by channel: whole segments."""
    from_ms = segments[0] * recorded.times.segment_ms
    to_ms = min((segments[1] + 1) * recorded.times.segment_ms, recorded.times.duration_ms)
    return [Gap(channel, from_ms, max(from_ms, to_ms), one.cause, place) for channel in recorded.channels]
