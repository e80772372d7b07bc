"""Finalise a recording: from the manifest in the ingest bucket to a sealed, signed, locked and indexed recording.

1. Who uploaded it: an active agent of the tenant in whose place the manifest lies. Without a manifest, after long
   silence, what came is declared in its stead (``declare_call``).
2. Whether it was done before: then only what a crash left undone is done. What brings more than the latest generation
   of the call holds, such as a manifest that comes after all, makes the next.
3. Open: verify and unseal (``open_call``). Render: timeline, channels, Opus (``render_audio``).
4. Seal: keys for every second, between two custodians; a signed manifest; certificates of pauses (``prepare_commit``).
5. Commit (``commit_recording``).

What is paused by the agent's manifest or by the cloud's ledger is silent. The commit holds only for the ledger that was
rendered; a pause that comes in meanwhile means rendering again.

What does not verify is left out and declared; such a recording is flagged ``damaged`` and alarmed. It, one whose codec
this version cannot decode (``codec_raw``) and one without a manifest (``interrupted``) keep their upload: nothing is
deleted and the agent gets no receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, Protocol

from dualtone.domain import agent_assertion, call_files, pause, pause_ledger, vault_manifest
from dualtone.domain.call_files import MANIFEST_NAME, IngestKey
from dualtone.domain.commit_attempt import Attempt, Generation, Upload
from dualtone.domain.errors import NotFound, Unavailable
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, AttemptId, CallId, RecordingId, TenantId, recording_id, ulid
from dualtone.domain.pause import Pause
from dualtone.domain.pause_ledger import Ledger
from dualtone.domain.signing import VerifyingKeys
from dualtone.domain.tenancy import Agent, TenantProfile
from dualtone.usecases.commit_recording import CommitRecording, Index
from dualtone.usecases.declare_call import DeclareCall, StoredUploads
from dualtone.usecases.open_call import OpenCall, OpenedCall
from dualtone.usecases.plan_silence import PAUSED_AUDIO_REMOVED
from dualtone.usecases.prepare_commit import Chance, MintTokens, PrepareCommit
from dualtone.usecases.render_audio import RenderAudio, Rendering

FIRST_GENERATION: Final = 1
FIRST_OPENING: Final = call_files.opening_name(0)
"""Its arrival is the first that the cloud hears of a call for certain."""

_MOST_RENDERINGS: Final = 4


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
        ledgers: Ledgers,
        prepare: PrepareCommit,
        tokens: MintTokens,
        index: CallStates,
        commit: CommitRecording,
        alarms: Alarms,
        ingest_key: str,
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
        self._ledgers = ledgers
        self._prepare = prepare
        self._tokens = tokens
        self._index = index
        self._commit = commit
        self._alarms = alarms
        self._ingest_key = ingest_key
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
            agent_key = agent_assertion.verifying_keys(self._directory.agent(place.tenant, place.agent))
            ingest_keys = self._ingest_keys(self._directory.profile(place.tenant))
            call = self._declare_call(place, agent_key, ingest_keys, lasted_until_ms * 1000)
            return self._repeated(place) if call is None else self._next_generation(call, agent_key)
        return self._with_manifest(place, data)

    def again(self, key: str, after: int) -> Finalized:
        """Renders a call anew as its next generation: a later version may decode what an earlier one kept raw.

        Args:
            key: The manifest.
            after: The generation that it follows; the message may come twice.

        Returns:
            RECORDED; REPEATED if there is a later generation, or this one took its upload over wholly.

        Raises:
            IntegrityError, MalformedInput, NotFound, PolicyViolation, Unavailable: As above.
        """
        place = IngestKey.parse(key)
        latest = self._index.latest_generation(place.tenant, place.call)
        if latest is None or latest.number != after or latest.releases:
            return self._repeated(place)
        agent_key = agent_assertion.verifying_keys(self._directory.agent(place.tenant, place.agent))
        call = self._open_call.manifest(place, self._uploads.get(key), agent_key)
        return self._record(call, Upload.of(place, call.manifest, after + 1), agent_key, latest)

    def _with_manifest(self, place: IngestKey, data: bytes) -> Finalized:
        agent_key = agent_assertion.verifying_keys(self._directory.agent(place.tenant, place.agent))
        return self._next_generation(self._open_call.manifest(place, data, agent_key), agent_key)

    def _repeated(self, place: IngestKey) -> Finalized:
        latest = self._index.latest_generation(place.tenant, place.call)
        if latest is None:
            return Finalized.NOTHING
        self._commit.resume(latest, None)
        return Finalized.REPEATED

    def _next_generation(self, call: OpenedCall, agent_key: VerifyingKeys) -> Finalized:
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
        return {self._ingest_key, profile.ingest_key_arn or self._ingest_key}

    def _record(
        self, call: OpenedCall, upload: Upload, agent_key: VerifyingKeys, before: Generation | None
    ) -> Finalized:
        for _rendering in range(_MOST_RENDERINGS):
            outcome = self._recorded(call, upload, agent_key, before)
            if outcome is not None:
                return outcome
        raise Unavailable("pauses of the call come in faster than it can be rendered")

    def _recorded(
        self, call: OpenedCall, upload: Upload, agent_key: VerifyingKeys, before: Generation | None
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
        call, rendering = self._rendered(call, agent_key, self._ingest_keys(profile), pauses)
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
        if self._commit.commit(self._prepare(call, attempt, profile, rendering, sip_tokens, ledger.version)):
            return Finalized.RECORDED
        claimed = self._index.generation(upload.tenant, upload.call, upload.generation)
        if claimed is not None:
            return self._after(claimed, call)
        if self._has_changed(ledger, upload):
            return None
        raise Unavailable("the attempt was abandoned before it could commit")

    def _rendered(
        self, call: OpenedCall, agent_key: VerifyingKeys, ingest_keys: set[str], pauses: Sequence[Pause]
    ) -> tuple[OpenedCall, Rendering]:
        """Reads and renders a call, twice if it had begun narrow when the first wideband packet came."""
        for wideband in (False, True):
            read = call.unread()
            blocks = self._open_call.blocks(read, agent_key, ingest_keys, pauses)
            rendering = self._render(call.manifest, read, blocks, pauses, wideband=wideband)
            if rendering is not None:
                break
        assert rendering is not None
        return read, rendering

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
