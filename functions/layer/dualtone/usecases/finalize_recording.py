"""Finalise a recording: from the manifest in the ingest bucket to a sealed, signed, locked and indexed recording.

1. Who uploaded it: an active agent of the tenant in whose place the manifest lies. Without a manifest, after long
   silence, what came is declared in its stead (``declare_call``).
2. Whether it was done before: then only what a crash left undone is done. What brings more than the latest generation
   of the call holds, such as a manifest that comes after all, makes the next.
3. Open: verify and unseal (``open_call``). Render: timeline, channels, Opus (``render_audio``).
4. Seal: a fresh root, one leaf key a second, a signed manifest (``seal_recording``); the keys between two custodians.
5. Commit (``commit_recording``).

What is paused by the agent's manifest or by the cloud's ledger is silent. The commit holds only for the ledger that was
rendered; a pause that comes in meanwhile means rendering again.

What does not verify is left out and declared; such a recording is flagged ``damaged`` and alarmed. It, one whose codec
this version cannot decode (``codec_raw``) and one without a manifest (``interrupted``) keep their upload: nothing is
deleted and the agent gets no receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from dualtone.domain import call_files, gap_certificate, pause, pause_ledger, signing, vault_manifest
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.call_files import MANIFEST_NAME, IngestKey
from dualtone.domain.commit_attempt import Attempt, Generation, Upload
from dualtone.domain.errors import NotFound, PolicyViolation, Unavailable
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, AttemptId, CallId, RecordingId, TenantId, recording_id, ulid
from dualtone.domain.kek import NONCE_BYTES, KeyScope
from dualtone.domain.keytree import KEY_BYTES
from dualtone.domain.pause_ledger import Ledger
from dualtone.domain.period import DAY_MS, month_of
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.signing import Signer
from dualtone.domain.tenancy import Agent, AgentState, TenantProfile
from dualtone.usecases import describe_recording, seal_recording, wrap_keys
from dualtone.usecases.commit_recording import Commit, CommitRecording, Index
from dualtone.usecases.declare_call import INTERRUPTED, DeclareCall, StoredUploads
from dualtone.usecases.open_call import OpenCall, OpenedCall
from dualtone.usecases.plan_silence import PAUSED_AUDIO_REMOVED
from dualtone.usecases.render_audio import RenderAudio, Rendering
from dualtone.usecases.seal_recording import SealedRecording
from dualtone.usecases.wrap_keys import Custody

STATE_RECORDED: Final = "recorded"
STATE_DAMAGED: Final = "damaged"

CLOCK_AHEAD_MS: Final = DAY_MS
"""By how much an agent's clock may be ahead: no lock can be lifted, so no wrong clock may set one for decades."""

FIRST_GENERATION: Final = 1
FIRST_OPENING: Final = call_files.opening_name(0)
"""Its arrival is the first that the cloud hears of a call for certain."""

_MOST_RENDERINGS: Final = 4
_KEEPS_UPLOAD: Final = frozenset({"damaged", "codec_raw", INTERRUPTED})


class Finalized(StrEnum):
    """What came of an event."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    """The recording existed already; what a crash had left undone is done now."""
    WATCHED = "watched"
    """A call has begun: if it goes silent, the sweeper will see to it."""
    NOTHING = "nothing"
    """There is nothing to make a recording of, and none was ever made."""


class Directory(Protocol):
    """The directory of tenants and agents."""

    def profile(self, tenant: TenantId) -> TenantProfile:
        """Reads what is configured for a tenant; raises NotFound."""

    def agent(self, tenant: TenantId, agent: AgentId) -> Agent:
        """Reads an agent of a tenant; raises NotFound."""


class SealMetadata(Protocol):
    """Seals what names people."""

    def seal(self, tenant: TenantId, recording: RecordingId, month: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the attributes of the metadata item."""


class MintTokens(Protocol):
    """Makes the tokens under which numbers and Call-IDs are found."""

    def number(self, tenant: TenantId, month: str, number: str) -> str:
        """Token of a normalised number in a month."""

    def sip_call_id(self, tenant: TenantId, sip_call_id: str) -> str:
        """Token of a SIP Call-ID."""


class CallStates(Index, Protocol):
    """The index table, also for telling that a call is being finalised."""

    def announce(self, tenant: TenantId, call: CallId, sip_tokens: Sequence[str]) -> None:
        """Writes that a call is being finalised, unless its state is known already."""


class Ledgers(Protocol):
    """The cloud's ledgers of pauses."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger, consistently; an unknown call has an empty one."""


class Alarms(Protocol):
    """Tells the people on duty."""

    def paused_audio_arrived(self, place: IngestKey, recording: RecordingId) -> None:
        """Packets of a paused span had been uploaded; they are left out."""

    def recording_damaged(self, place: IngestKey, recording: RecordingId, damage: Sequence[str]) -> None:
        """A recording is kept as far as it verifies, and its upload is kept as it is."""


@dataclass(frozen=True, slots=True)
class KeyArns:
    """Keys that the deployment names.

    Attributes:
        ingest: The RSA key to which agents wrap call keys, unless the tenant has its own.
        custodian_a: Custodian A's vault key.
        custodian_b: Custodian B's vault key.
    """

    ingest: str
    custodian_a: str
    custodian_b: str


@dataclass(frozen=True, slots=True)
class Chance:
    """What only the outside world has.

    Attributes:
        now_ms: Unix time.
        random_bytes: So many random bytes.
    """

    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]


class FinalizeRecording:
    """Finalises calls."""

    def __init__(
        self,
        *,
        uploads: StoredUploads,
        directory: Directory,
        watch: Callable[[TenantId, AgentId, CallId], None],
        open_call: OpenCall,
        declare_call: DeclareCall,
        render: RenderAudio,
        custody: Callable[[TenantId], Custody],
        signer: Signer,
        certifier: Signer,
        ledgers: Ledgers,
        metadata: SealMetadata,
        tokens: MintTokens,
        index: CallStates,
        commit: CommitRecording,
        alarms: Alarms,
        keys: KeyArns,
        chance: Chance,
    ) -> None:
        """Takes the parts of the work.

        ``watch`` begins to watch a call, ``custody`` opens a tenant's session at the custodians.
        """
        self._uploads = uploads
        self._directory = directory
        self._watch = watch
        self._open_call = open_call
        self._declare_call = declare_call
        self._render = render
        self._custody = custody
        self._signer = signer
        self._certifier = certifier
        self._ledgers = ledgers
        self._metadata = metadata
        self._tokens = tokens
        self._index = index
        self._commit = commit
        self._alarms = alarms
        self._keys = keys
        self._chance = chance

    def __call__(self, key: str) -> Finalized:
        """Finalises the call whose manifest is named; any number of times, at once or one after the other.

        Args:
            key: What arrived in the ingest bucket: a manifest, or the first opening record of a call.

        Returns:
            What came of it.

        Raises:
            IntegrityError: If the manifest is not what the agent signed.
            MalformedInput: If it is no manifest, or not in its place.
            NotFound: If there is no such tenant or agent.
            PolicyViolation: If the agent is not active, or a key refuses.
            Unavailable: If something did not answer: the event should come again.
        """
        place = IngestKey.parse(key)
        if place.name == FIRST_OPENING:
            self._watch(place.tenant, place.agent, place.call)
            return Finalized.WATCHED
        if place.name != MANIFEST_NAME:
            return Finalized.NOTHING
        try:
            data = self._uploads.get(key)
        except NotFound:
            return self._repeated(place)
        return self._with_manifest(place, data)

    def interrupted(self, key: str, lasted_until_ms: int) -> Finalized:
        """Finalises a call that went silent, with its manifest if that came after all, else with what is there.

        Args:
            key: Where the manifest would lie.
            lasted_until_ms: Until when it lasted by its agent's word, Unix time; 0 if it never said.

        Returns:
            What came of it; NOTHING if nothing is there that its agent signed.

        Raises:
            IntegrityError, MalformedInput, NotFound, PolicyViolation, Unavailable: As above.
        """
        place = IngestKey.parse(key)
        try:
            data = self._uploads.get(key)
        except NotFound:
            agent_key = _public_key(self._directory.agent(place.tenant, place.agent))
            ingest_keys = self._ingest_keys(self._directory.profile(place.tenant))
            call = self._declare_call(place, agent_key, ingest_keys, lasted_until_ms * 1000)
            return self._repeated(place) if call is None else self._next_generation(call, agent_key)
        return self._with_manifest(place, data)

    def _with_manifest(self, place: IngestKey, data: bytes) -> Finalized:
        agent_key = _public_key(self._directory.agent(place.tenant, place.agent))
        return self._next_generation(self._open_call.manifest(place, data, agent_key), agent_key)

    def _repeated(self, place: IngestKey) -> Finalized:
        latest = self._index.latest_generation(place.tenant, place.call)
        if latest is None:
            return Finalized.NOTHING
        self._commit.resume(latest, None)
        return Finalized.REPEATED

    def _next_generation(self, call: OpenedCall, agent_key: bytes) -> Finalized:
        """Numbers what came: the first generation of a call, or the one after the latest if it brings more."""
        place, latest = call.place, self._index.latest_generation(call.place.tenant, call.place.call)
        if latest is None:
            return self._record(call, Upload.of(place, call.manifest, FIRST_GENERATION), agent_key, None)
        if self._is_held(call, latest):
            return self._resumed(call, latest)
        return self._record(call, Upload.of(place, call.manifest, latest.number + 1), agent_key, latest)

    def _is_held(self, call: OpenedCall, latest: Generation) -> bool:
        there = call.parts
        if latest.lacking:
            prefix = call_files.ingest_prefix(call.place.tenant, call.place.agent, call.place.call)
            names = {file.name for file in self._uploads.list(prefix)}
            there = frozenset(
                entry.digest for entry in call.manifest.parts if call_files.part_name(entry.epoch, entry.index) in names
            )
        return latest.holds(call.manifest_sha256, interrupted=call.interrupted, parts=there)

    def _resumed(self, call: OpenedCall, latest: Generation) -> Finalized:
        upload = None if call.interrupted else Upload.of(call.place, call.manifest, latest.number)
        self._commit.resume(latest, upload)
        return Finalized.REPEATED

    def _ingest_keys(self, profile: TenantProfile) -> set[str]:
        return {self._keys.ingest, profile.ingest_key_arn or self._keys.ingest}

    def _record(self, call: OpenedCall, upload: Upload, agent_key: bytes, before: Generation | None) -> Finalized:
        for _rendering in range(_MOST_RENDERINGS):
            outcome = self._recorded(call.unread(), upload, agent_key, before)
            if outcome is not None:
                return outcome
        raise Unavailable("pauses of the call come in faster than it can be rendered")

    def _recorded(
        self, call: OpenedCall, upload: Upload, agent_key: bytes, before: Generation | None
    ) -> Finalized | None:
        """Records a call as its ledger stands; None if that changed meanwhile, and nothing was committed."""
        attempt = self._new_attempt(call, upload)
        self._commit.begin(attempt)
        profile, manifest = self._directory.profile(upload.tenant), call.manifest
        ledger = self._ledgers.read(upload.tenant, upload.call)
        pauses = pause.union(
            pause.declared(manifest.pauses),
            pause_ledger.spans(ledger.commands, None),
            answered_us=manifest.answered_at_us,
            ended_us=manifest.ended_at_us,
        )
        blocks = self._open_call.blocks(call, agent_key, self._ingest_keys(profile), pauses)
        rendering = self._render(manifest, call, blocks, pauses)
        if self._has_changed(ledger, upload):
            return None
        if call.damage and (winner := self._index.generation(upload.tenant, upload.call, upload.generation)):
            # What is missing was deleted by whoever committed meanwhile: no damage, and nothing to alarm about.
            return self._after(winner, call)
        if before is not None:
            before.require_within(call.parts)
        sip_tokens = [self._tokens.sip_call_id(upload.tenant, call.session.sip_call_id)] * bool(
            call.session.sip_call_id
        )
        self._index.announce(upload.tenant, upload.call, sip_tokens)
        if call.damage:
            self._alarms.recording_damaged(call.place, attempt.recording, call.damage)
        if PAUSED_AUDIO_REMOVED in rendering.flags:
            self._alarms.paused_audio_arrived(call.place, attempt.recording)
        if self._commit.commit(self._prepared(call, attempt, profile, rendering, sip_tokens, ledger.version)):
            return Finalized.RECORDED
        claimed = self._index.generation(upload.tenant, upload.call, upload.generation)
        if claimed is not None:
            return self._after(claimed, call)
        if self._has_changed(ledger, upload):
            return None
        raise Unavailable("the attempt was abandoned before it could commit")

    def _has_changed(self, ledger: Ledger, upload: Upload) -> bool:
        return self._ledgers.read(upload.tenant, upload.call).version != ledger.version

    def _after(self, winner: Generation, call: OpenedCall) -> Finalized:
        """What is left to do when another attempt at the same generation was first."""
        if winner.holds(call.manifest_sha256, interrupted=call.interrupted, parts=call.parts):
            return self._resumed(call, winner)
        raise Unavailable("another generation was committed meanwhile: this one follows it, with the event's return")

    def _new_attempt(self, call: OpenedCall, upload: Upload) -> Attempt:
        now_ms = self._chance.now_ms()
        attempt = AttemptId(ulid(now_ms, self._chance.random_bytes(ULID_RANDOM_BYTES)))
        recording = recording_id(upload.tenant, upload.call)
        return Attempt(
            attempt=attempt,
            created_at_ms=now_ms,
            recording=recording,
            vault_key=vault_manifest.object_key(upload.tenant, recording, upload.generation, attempt),
            upload=upload,
            manifest_sha256=call.manifest_sha256,
            interrupted=call.interrupted,
        )

    def _prepared(
        self,
        call: OpenedCall,
        attempt: Attempt,
        profile: TenantProfile,
        rendering: Rendering,
        sip_tokens: Sequence[str],
        ledger_version: int,
    ) -> Commit:
        """Seals and stores the object (step 4), and gathers what the transaction writes."""
        tenant, session = profile.tenant, call.session
        now_ms = self._chance.now_ms()
        started_at_ms = rendering.started_at_us // 1000
        month = month_of(started_at_ms)
        sealed = seal_recording.seal(
            rendering.header_pages,
            rendering.pages,
            tenant=tenant,
            recording=attempt.recording,
            generation=attempt.upload.generation,
            attempt=attempt.attempt,
            call=attempt.upload.call,
            started_at_ms=started_at_ms,
            created_at_ms=now_ms,
            agent_manifest_sha256=call.manifest_sha256,
            root=self._chance.random_bytes(KEY_BYTES),
        )
        version_id = self._commit.store(attempt, sealed.data, sealed.sha256)
        entry = self._entry(call, attempt, profile, rendering, sealed, version_id, now_ms)
        return Commit(
            attempt=replace(
                attempt,
                releases=not _KEEPS_UPLOAD & set(entry.flags),
                lacking=tuple(sorted(call.lacking)),
                vault_version_id=version_id,
                # A call that waited longer than it is retained is locked all the same: a lock lies in the future.
                lock_until_ms=max(entry.retention_until_ms, now_ms + DAY_MS),
            ),
            entry=entry,
            metadata=self._metadata.seal(tenant, attempt.recording, month, describe_recording.metadata(session)),
            keys=wrap_keys.wrap(
                self._custody(tenant),
                nodes=sealed.nodes,
                scope=KeyScope(tenant, attempt.recording),
                key_a=self._keys.custodian_a,
                key_b=self._keys.custodian_b,
                nonce=self._chance.random_bytes(NONCE_BYTES),
                created_at_ms=now_ms,
            ),
            number_tokens=[
                self._tokens.number(tenant, month, number) for number in describe_recording.numbers(session)
            ],
            sip_tokens=sip_tokens,
            ledger_version=ledger_version,
            call_state=STATE_DAMAGED if call.damage else STATE_RECORDED,
            event=AuditEvent(
                tenant=tenant,
                who=f"agent:{attempt.upload.agent}",
                what=Work.FINALIZE_RECORDING,
                when_ms=now_ms,
                outcome=Outcome.GRANTED,
                origin="cloud",
                which=attempt.recording,
                request_id=attempt.attempt,
                details={"call": attempt.upload.call, "segments": sealed.segment_count, "damage": len(call.damage)},
            ),
        )

    def _entry(
        self,
        call: OpenedCall,
        attempt: Attempt,
        profile: TenantProfile,
        rendering: Rendering,
        sealed: SealedRecording,
        version_id: str,
        now_ms: int,
    ) -> RecordingEntry:
        manifest, session = call.manifest, call.session
        pauses, certificates = pause.joined(rendering.pauses)
        damage = {"damaged"} if call.damage else set()
        ended_at_ms = manifest.ended_at_us // 1000
        return RecordingEntry(
            tenant=profile.tenant,
            recording_id=attempt.recording,
            call_id=attempt.upload.call,
            agent_id=attempt.upload.agent,
            generation=attempt.upload.generation,
            attempt=attempt.attempt,
            state=STATE_RECORDED,
            started_at_ms=rendering.started_at_us // 1000,
            answered_at_ms=manifest.answered_at_us // 1000,
            ended_at_ms=ended_at_ms,
            duration_ms=rendering.duration_ms,
            direction=describe_recording.direction(session, profile.lines),
            media_type=sealed.manifest.media_type,
            vault_key=sealed.vault_key,
            vault_version_id=version_id,
            vault_sha256=sealed.sha256,
            vault_size_bytes=len(sealed.data),
            segment_count=sealed.segment_count,
            segment_ms=sealed.manifest.segment_ms,
            manifest=sealed.manifest_payload,
            manifest_signature=self._signer.sign(signing.message(vault_manifest.KIND, sealed.manifest_payload)),
            signing_key_arn=self._signer.key_id,
            channels=describe_recording.channel_list(manifest, session, rendering),
            gaps=describe_recording.gaps(rendering, certificates),
            quality=describe_recording.quality(manifest, rendering),
            flags=describe_recording.flags(manifest.flags, session.flags, rendering.flags, damage),
            retention_until_ms=min(ended_at_ms, now_ms + CLOCK_AHEAD_MS) + profile.retention_days * DAY_MS,
            certificates=tuple(
                gap_certificate.of_pause(
                    one,
                    tenant=profile.tenant,
                    recording=attempt.recording,
                    call=attempt.upload.call,
                    generation=attempt.upload.generation,
                    agent_manifest_sha256=call.manifest_sha256,
                    signed_at_ms=now_ms,
                ).sealed_by(self._certifier)
                for one in pauses
            ),
        )


def _public_key(agent: Agent) -> bytes:
    """The key with which an active agent signs, SubjectPublicKeyInfo; raises PolicyViolation for any other agent."""
    if agent.state is not AgentState.ACTIVE or agent.public_key_pem is None:
        raise PolicyViolation("the agent is not active")
    return load_pem_public_key(agent.public_key_pem.encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
