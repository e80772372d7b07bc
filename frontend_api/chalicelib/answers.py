"""What an answer says. Docstrings and field descriptions are the API's documentation: `openapi` publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from chalicelib.kept_answers import KeptBy, RecordedChoice
from chalicelib.shapes import Instant, RecordingId, Shape, instant
from dualtone.domain import gap_certificate
from dualtone.domain.direction import Direction
from dualtone.domain.ids import AgentId
from dualtone.domain.recording_entry import Gap as Silence
from dualtone.domain.signing import Envelope
from dualtone.usecases.list_linked import Linked, Relation
from dualtone.usecases.recording_pages import Listed
from dualtone.usecases.recording_pages import RecordingPage as Page

Role = Annotated[
    Literal["caller", "callee", "unknown"],
    Field(description="What the party was in the call; unknown unless the SBC says so."),
]


class Health(Shape):
    """That the API answers."""

    status: Literal["ok"] = "ok"
    version: str
    now_ms: int = Field(description="Our clock: Unix time in milliseconds. Agents measure theirs against it.")


class Participant(Shape):
    """A party of the call, as the SBC's metadata names it."""

    participant_id: str | None = Field(description="Its id in the SIPREC metadata (RFC 7865).")
    aor: str | None = Field(description="Address of record as sent.")
    number: str | None = Field(description="The same, normalised: what search finds.")
    name: str | None
    role: Role

    @classmethod
    def of(cls, value: dict[str, Any]) -> Participant:
        """From the recording's metadata."""
        return cls(
            participant_id=value.get("participant_id"),
            aor=value.get("aor"),
            number=value.get("number"),
            name=value.get("name"),
            role=value.get("role") or "unknown",
        )


class Channel(Shape):
    """One channel of the audio."""

    channel: int = Field(description="Its place in the audio, from 0.")
    label: str = Field(description="The SDP label of the stream (RFC 4574).")
    stream_id: str | None = Field(description="The stream's id in the SIPREC metadata, if it names the label.")
    participant: Participant | None = Field(
        description="Who is heard, if the metadata says so and you may see parties; never guessed."
    )
    role: Role


class SignedEnvelope(Shape):
    """A signed message: `signature` is over `DUALTONE/v1/<kind>`, a NUL byte, and the payload."""

    kind: str
    key_id: str
    payload: str = Field(description="Base64 of canonical JSON.")
    signature: str = Field(description="Base64 of the DER-coded ECDSA signature.")

    @classmethod
    def of(cls, envelope: Envelope) -> SignedEnvelope:
        """From the domain's envelope."""
        return cls(**envelope.to_json())


class Gap(Shape):
    """A span that is silent because nothing was kept. What follows `cause` is null unless it is a pause."""

    channel: int
    from_ms: int = Field(description="From the start of the audio.")
    to_ms: int
    cause: str = Field(
        description="payment, manual, hold, consent, dtmf: a pause. inactive: on hold in the call. restart and "
        "interrupted: lost while no agent ran. damaged: lost to damage."
    )
    by: str | None = Field(description="Who asked for the pause: a person's or a payment system's opaque id.")
    origin: Literal["cloud", "lan", "agent"] | None = Field(
        description="By which way the agent was told; agent: it heard a card's number."
    )
    command: str | None = Field(description="The command's id.")
    effective_at: Instant | None = Field(description="The moment from which on nothing was to be kept.")
    from_: Instant | None = Field(alias="from", description="Where the pause begins, by the agent's clock.")
    to: Instant | None = Field(description="Where it ends.")
    rtp_timestamp: int | None = Field(description="Of the channel's first silent packet; null if none had come.")
    how: Literal["withheld", "removed", "destroyed"] | None = Field(
        description="Withheld: no copy ever left the agent's memory. Removed: what had been kept was taken out before "
        "there was a recording. Destroyed: it was recorded, and the keys of its seconds were destroyed."
    )
    certificate: SignedEnvelope | None = Field(
        description="Proves it: kind `gap-certificate`, signed by the key that the evidence names."
    )

    @classmethod
    def of(cls, gap: Silence, certificates: Sequence[Envelope]) -> Gap:
        """From the index's gap and the recording's certificates."""
        envelope = certificates[gap.pause] if gap.pause is not None and gap.pause < len(certificates) else None
        said = gap_certificate.parse(envelope.payload) if envelope is not None else None
        return cls.model_validate(
            {
                "channel": gap.channel,
                "from_ms": gap.from_ms,
                "to_ms": gap.to_ms,
                "cause": gap.cause,
                "by": said and said.by,
                "origin": said and said.origin,
                "command": said and said.command,
                "effective_at": said and instant(said.effective_at_ms),
                "from": said and instant(said.from_us // 1000),
                "to": said and instant(said.to_us // 1000),
                "rtp_timestamp": gap.rtp_timestamp,
                "how": said and said.how.value,
                "certificate": envelope and SignedEnvelope.of(envelope),
            }
        )


class Quality(Shape):
    """How well a channel arrived."""

    channel: int
    packets: int
    lost: int
    duplicates: int
    jitter_ms: float
    silence_ratio: float
    one_sided: bool = Field(description="True if this party was never heard although the other was.")


class Vault(Shape):
    """The sealed object."""

    sha256: str
    size_bytes: int
    segment_ms: int = Field(description="What is opened, and audited, at a time.")
    segment_count: int


class RecordingSummary(Shape):
    """A row of a list."""

    recording_id: RecordingId
    call_id: str = Field(description="The agent's id of the recording session.")
    agent_id: str
    generation: int
    state: str
    direction: Direction
    started_at: Instant = Field(description="Where the audio begins.")
    answered_at: Instant
    ended_at: Instant
    duration_ms: int
    media_type: str
    flags: tuple[str, ...]
    participants: tuple[Participant, ...] | None = Field(
        description="Null unless you may see parties, and if the metadata is damaged."
    )
    metadata_damaged: bool = Field(description="True if the sealed metadata is missing or not what was sealed.")
    copy_of: RecordingId | None = Field(
        description="The recording that stands for the call, if this is another recorder's copy of it. Copies are "
        "kept, and are in no list."
    )
    policy_rule: str | None = Field(
        description="Id of the rule of the recording policy by which it is kept; null if its agent did not say."
    )
    policy_version: int | None = Field(description="The version that was in force; 0 if there was no policy.")

    @classmethod
    def of(cls, listed: Listed) -> RecordingSummary:
        """From the index and, if it may be seen, the metadata."""
        return cls(**_summary(listed))


class Recording(RecordingSummary):
    """Everything about a recording but its audio."""

    channels: tuple[Channel, ...]
    gaps: tuple[Gap, ...]
    quality: tuple[Quality, ...]
    sip_call_id: str | None = Field(description="Null unless you may see parties.")
    sip_session_ids: tuple[str, ...] | None = Field(description="RFC 7989. Null unless you may see parties.")
    user_agent: str | None = Field(description="Of the SBC. Null unless you may see parties.")
    lines: tuple[str, ...] | None = Field(
        description="The tenant's own lines that took part, normalised. Null unless you may see parties."
    )
    policy: KeptBy | None = Field(description="Why it is kept. Null unless you may see parties.")
    choices: tuple[RecordedChoice, ...] | None = Field(
        description="What people chose for the call: who, when, how. Null unless you may see parties."
    )
    retention_until: Instant
    vault: Vault

    @classmethod
    def of(cls, listed: Listed) -> Recording:
        """From the index and, if it may be seen, the metadata."""
        entry, metadata = listed.entry, listed.metadata or {}
        participants = [Participant.of(value) for value in metadata.get("participants", ())]
        return cls(
            **_summary(listed),
            channels=tuple(
                Channel(
                    channel=channel.channel,
                    label=channel.label,
                    stream_id=channel.stream_id,
                    participant=_at(participants, channel.participant),
                    role=channel.role,
                )
                for channel in entry.channels
            ),
            gaps=tuple(Gap.of(gap, entry.certificates) for gap in entry.gaps),
            quality=tuple(
                Quality(
                    channel=quality.channel,
                    packets=quality.packets,
                    lost=quality.lost,
                    duplicates=quality.duplicates,
                    jitter_ms=quality.jitter_ms,
                    silence_ratio=quality.silence_ratio,
                    one_sided=quality.one_sided,
                )
                for quality in entry.quality
            ),
            sip_call_id=metadata.get("sip_call_id"),
            sip_session_ids=metadata.get("sip_session_ids"),
            user_agent=metadata.get("user_agent"),
            lines=metadata.get("lines"),
            policy=KeptBy.recorded(metadata["policy"]) if metadata.get("policy") else None,
            choices=None
            if listed.metadata is None
            else tuple(map(RecordedChoice.recorded, metadata.get("consents", ()))),
            retention_until=instant(entry.retention_until_ms),
            vault=Vault(
                sha256=entry.vault_sha256,
                size_bytes=entry.vault_size_bytes,
                segment_ms=entry.segment_ms,
                segment_count=entry.segment_count,
            ),
        )


class SpanOfAudio(Shape):
    """A span of a recording's audio, from its start."""

    from_ms: int
    to_ms: int


class LinkedRecording(Shape):
    """Another recording of the same call."""

    recording_id: RecordingId
    call_id: str = Field(description="The agent's id of the recording session.")
    agent_id: str
    relation: Relation = Field(
        description="copy: the same streams, from another recorder or SBC. same_call: its other end, or another time "
        "of it, as after a transfer."
    )
    copy_of: RecordingId | None = Field(description="The copy that stands for the call, if it is not this one.")
    started_at: Instant
    duration_ms: int
    flags: tuple[str, ...]
    completes: tuple[SpanOfAudio, ...] = Field(
        description="What the recording that you asked about lost, and this copy has."
    )

    @classmethod
    def of(cls, linked: Linked) -> LinkedRecording:
        """From the use case's."""
        entry = linked.entry
        return cls(
            recording_id=entry.recording_id,
            call_id=entry.call_id,
            agent_id=entry.agent_id,
            relation=linked.relation,
            copy_of=entry.copy_of,
            started_at=instant(entry.started_at_ms),
            duration_ms=entry.duration_ms,
            flags=entry.flags,
            completes=tuple(SpanOfAudio(from_ms=from_ms, to_ms=to_ms) for from_ms, to_ms in linked.completes),
        )


class LinkedRecordings(Shape):
    """The other recordings of a call, the oldest first."""

    recordings: tuple[LinkedRecording, ...]


class RecordingPage(Shape):
    """A page of recordings, newest first."""

    from_: Instant = Field(alias="from", description="The period that was looked at.")
    to: Instant
    recordings: tuple[RecordingSummary, ...]
    next_cursor: str | None = Field(description="Ask again with it for the next page; null on the last one.")

    @classmethod
    def of(cls, page: Page) -> RecordingPage:
        """From the use case's page."""
        return cls.model_validate(
            {
                "from": instant(page.period.from_ms),
                "to": instant(page.period.to_ms),
                "recordings": tuple(RecordingSummary.of(listed) for listed in page.rows),
                "next_cursor": page.next_cursor,
            }
        )


class Evidence(Shape):
    """What proves a recording: `openssl dgst -sha256 -verify public_key -signature signature message`."""

    manifest: str = Field(description="Base64 of the signed manifest (canonical JSON).")
    message: str = Field(description="Base64 of the exact bytes that were signed.")
    signature: str = Field(description="Base64 of the DER-coded ECDSA signature (P-256, SHA-256) over them.")
    public_key: str = Field(description="PEM of the key that verifies it.")
    key_id: str = Field(description="The name of that key.")
    gap_certificates: tuple[SignedEnvelope, ...] = Field(
        description="One for each pause. Signed are `DUALTONE/v1/gap-certificate`, a NUL byte, and the payload."
    )
    gap_public_key: str = Field(description="PEM of the key that verifies them.")
    gap_key_id: str = Field(description="The name of that key.")


class Call(Shape):
    """What became of a call."""

    call_id: str = Field(description="The agent's id of the recording session.")
    state: Literal["live", "ended", "finalising", "recorded", "damaged", "interrupted"] = Field(
        description="Ended: the dialog is over, and the agent has not uploaded all of it yet."
    )
    recording_id: RecordingId | None = Field(description="Null until there is a recording.")


class Invitation(Shape):
    """What to type into the machine that is to record; shown once."""

    agent_id: str
    code: str = Field(description="One-time code: authenticates the machine to us and our signing key to the machine.")
    expires_at: Instant

    @classmethod
    def at(cls, agent_id: AgentId, code: str, expires_at_ms: int) -> Invitation:
        """From the use case's invitation."""
        return cls(agent_id=agent_id, code=code, expires_at=instant(expires_at_ms))


class EndpointSecret(Shape):
    """A payment endpoint whose messages the agent takes on its LAN."""

    endpoint_id: str
    secret: str = Field(description="`whsec_` and base64.")


class PauseDefaults(Shape):
    """What holds for a pause that the agent takes on its LAN."""

    lease_s: int = Field(description="How long a pause lasts without another word, if it names no lease.")
    on_expiry: Literal["silent", "resume"] = Field(description="What then: stay silent and alarm, or resume and flag.")


class LiveAccess(Shape):
    """What every agent of a tenant is told."""

    events_queue_url: str = Field(description="Where it reports.")
    live_key: str = Field(description="Base64 of the key under which live calls are named.")
    payment_endpoints: tuple[EndpointSecret, ...]
    pause: PauseDefaults
    recording_policy: SignedEnvelope | None = Field(
        description="Kind `recording-policy`: which calls are kept. Null: every call is."
    )


class Enrolment(LiveAccess):
    """What a new agent needs to know."""

    agent_id: str
    tenant: str
    region: str
    token_url: str = Field(description="Where to exchange assertions for credentials.")
    ingest_bucket: str
    prefix: str = Field(description="The start of every object key that the agent may put.")
    command_queue_url: str
    signing_public_key: str = Field(description="PEM; check it against the code, then trust nothing else.")
    signing_key_id: str
    ingest_key: SignedEnvelope = Field(description="Kind `ingest-key`: tenant, key_arn, public_key_der.")


class Credentials(LiveAccess):
    """Temporary AWS credentials of an agent."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: str
    ingest_key: SignedEnvelope = Field(description="The tenant's current ingest key.")


def _summary(listed: Listed) -> dict[str, Any]:
    entry, metadata = listed.entry, listed.metadata
    participants = None
    if metadata is not None:
        participants = tuple(Participant.of(value) for value in metadata.get("participants", ()))
    return {
        "recording_id": entry.recording_id,
        "call_id": entry.call_id,
        "agent_id": entry.agent_id,
        "generation": entry.generation,
        "state": entry.state,
        "direction": entry.direction,
        "started_at": instant(entry.started_at_ms),
        "answered_at": instant(entry.answered_at_ms),
        "ended_at": instant(entry.ended_at_ms),
        "duration_ms": entry.duration_ms,
        "media_type": entry.media_type,
        "flags": entry.flags,
        "participants": participants,
        "metadata_damaged": listed.metadata_damaged,
        "copy_of": entry.copy_of,
        "policy_rule": entry.policy_rule,
        "policy_version": entry.policy_version,
    }


def _at(participants: list[Participant], index: int | None) -> Participant | None:
    return participants[index] if index is not None and index < len(participants) else None
