"""Prepare a commit: seal a rendered call, store the object, and gather what makes it a recording.

A fresh root, one leaf key a second, a signed manifest (``seal_recording``); the keys between two custodians
(``wrap_keys``); metadata, tokens and description (``describe_recording``); a certificate for each pause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from dualtone.domain import gap_certificate, pause, signing, vault_manifest
from dualtone.domain.audit_event import AuditEvent, Outcome, Work
from dualtone.domain.commit_attempt import Attempt
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.kek import NONCE_BYTES, KeyScope
from dualtone.domain.keytree import KEY_BYTES
from dualtone.domain.pause import Pause
from dualtone.domain.period import DAY_MS, month_of
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.domain.signing import Envelope, Signer
from dualtone.domain.tenancy import TenantProfile
from dualtone.usecases import describe_recording, seal_recording, wrap_keys
from dualtone.usecases.commit_recording import Commit
from dualtone.usecases.declare_call import INTERRUPTED
from dualtone.usecases.link_recording import LinkRecording
from dualtone.usecases.open_call import OpenedCall
from dualtone.usecases.render_audio import Rendering
from dualtone.usecases.seal_recording import SealedRecording
from dualtone.usecases.wrap_keys import Custody

STATE_RECORDED: Final = "recorded"
STATE_DAMAGED: Final = "damaged"

CLOCK_AHEAD_MS: Final = DAY_MS
"""By how much an agent's clock may be ahead: no lock can be lifted, so no wrong clock may set one for decades."""

_KEEPS_UPLOAD: Final = frozenset({"damaged", "codec_raw", INTERRUPTED})


class StoreObjects(Protocol):
    """The vault, for attempts; ``commit_recording.CommitRecording`` is one."""

    def store(self, attempt: Attempt, data: bytes, sha256: str) -> str:
        """Stores an attempt's object, unlocked; returns its version id."""


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


@dataclass(frozen=True, slots=True)
class CustodianKeys:
    """The vault keys that the deployment names.

    Attributes:
        custodian_a: Custodian A's.
        custodian_b: Custodian B's.
    """

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


class PrepareCommit:
    """Prepares commits."""

    def __init__(
        self,
        *,
        objects: StoreObjects,
        custody: Callable[[TenantId], Custody],
        signer: Signer,
        certifier: Signer,
        metadata: SealMetadata,
        tokens: MintTokens,
        link: LinkRecording,
        keys: CustodianKeys,
        chance: Chance,
    ) -> None:
        """Takes what it works with; ``custody`` opens a session at the custodians."""
        self._objects = objects
        self._custody = custody
        self._signer = signer
        self._certifier = certifier
        self._metadata = metadata
        self._tokens = tokens
        self._link = link
        self._keys = keys
        self._chance = chance

    def __call__(
        self,
        call: OpenedCall,
        attempt: Attempt,
        profile: TenantProfile,
        rendering: Rendering,
        sip_tokens: Sequence[str],
        ledger_version: int,
    ) -> Commit:
        """Prepares one.

        Args:
            call: What was uploaded, as it was opened.
            attempt: The attempt, begun.
            profile: What is configured for the tenant.
            rendering: The audio.
            sip_tokens: Under which the call is followed.
            ledger_version: Of the ledger of pauses with which it was rendered.

        Returns:
            What the transaction writes; the object is stored, unlocked.

        Raises:
            IntegrityError: If the vault got other bytes.
            PolicyViolation: If a key or the vault refuses.
            Unavailable: If something does not answer.
        """
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
        described = describe_recording.metadata(session, profile.lines)
        version_id = self._objects.store(attempt, sealed.data, sealed.sha256)
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
            metadata=self._metadata.seal(tenant, attempt.recording, month, described),
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
            linkage=self._link(entry, session),
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
        kept = describe_recording.kept_by(session)
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
            certificates=self._certified(pauses, attempt, call.manifest_sha256, now_ms),
            policy_rule=kept.rule if kept is not None else None,
            policy_version=kept.version if kept is not None else None,
        )

    def _certified(
        self, pauses: Sequence[Pause], attempt: Attempt, manifest_sha256: str, now_ms: int
    ) -> tuple[Envelope, ...]:
        upload = attempt.upload
        certificates = (
            gap_certificate.of_pause(
                one,
                tenant=upload.tenant,
                recording=attempt.recording,
                call=upload.call,
                generation=upload.generation,
                agent_manifest_sha256=manifest_sha256,
                signed_at_ms=now_ms,
            )
            for one in pauses
        )
        return tuple(certificate.sealed_by(self._certifier) for certificate in certificates)
