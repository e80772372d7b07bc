"""A recording as the index knows it: all that can be said about it without opening it. Pure; times are Unix ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dualtone.domain.direction import Direction
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId
from dualtone.domain.signing import Envelope

Role = Literal["caller", "callee", "unknown"]

CANARY = "canary"
"""The flag of a recording that is an agent's own call: in no list, and found by no number."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of the audio.

    Attributes:
        channel: Its place, from 0.
        label: The SDP label of the recorded stream (RFC 4574).
        stream_id: The stream's id in the SIPREC metadata (RFC 7865 section 6.6), if it names the label.
        participant: Place of its sender in the recording's participants; None if the metadata does not say.
        role: What that participant was in the call.
    """

    channel: int
    label: str
    stream_id: str | None
    participant: int | None
    role: Role


@dataclass(frozen=True, slots=True)
class Gap:
    """A span that is silent because nothing was kept, on the recording's timeline.

    Attributes:
        pause: Place of the certificate that says more; None if the gap is no pause's.
        rtp_timestamp: Of the first packet of the channel's stream that was not kept; None if nobody knows.
    """

    channel: int
    from_ms: int
    to_ms: int
    cause: str
    pause: int | None = None
    rtp_timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class ChannelQuality:
    """How well a channel arrived."""

    channel: int
    packets: int
    lost: int
    duplicates: int
    jitter_ms: float
    silence_ratio: float
    one_sided: bool


@dataclass(frozen=True, slots=True)
class RecordingEntry:
    """One recording, at its latest generation.

    Attributes:
        started_at_ms: Where the timeline of the audio begins.
        duration_ms: How long it is.
        vault_key: Name of the vault object; with ``vault_version_id`` it names exactly one sequence of bytes.
        vault_sha256: Of the vault object, lower-case hexadecimal.
        segment_ms: How long a separately opened segment of it is.
        manifest: Payload that the cloud signed.
        manifest_signature: DER-coded ECDSA signature over it.
        signing_key_arn: The KMS key that signed.
        retention_until_ms: Until when it is kept.
        certificates: A signed certificate for each pause; where many recordings are read at once, they are left out.
        links: Tokens that it shares with the other recordings of its call (``linked_calls``).
        copy_of: The recording that stands for the call, if this is another copy of it.
        policy_rule: Id of the rule of the recording policy by which it is kept; None if its agent did not say.
        policy_version: The version of the policy that was in force; 0 if there was none.
    """

    tenant: TenantId
    recording_id: RecordingId
    call_id: CallId
    agent_id: AgentId
    generation: int
    attempt: str
    state: str
    started_at_ms: int
    answered_at_ms: int
    ended_at_ms: int
    duration_ms: int
    direction: Direction
    media_type: str
    vault_key: str
    vault_version_id: str
    vault_sha256: str
    vault_size_bytes: int
    segment_count: int
    segment_ms: int
    manifest: bytes
    manifest_signature: bytes
    signing_key_arn: str
    channels: tuple[Channel, ...]
    gaps: tuple[Gap, ...]
    quality: tuple[ChannelQuality, ...]
    flags: tuple[str, ...]
    retention_until_ms: int
    certificates: tuple[Envelope, ...] = ()
    links: tuple[str, ...] = ()
    copy_of: RecordingId | None = None
    policy_rule: str | None = None
    policy_version: int | None = None


@dataclass(frozen=True, slots=True)
class CallState:
    """What became of a call that an SBC knows by its SIP Call-ID."""

    call_id: CallId
    state: str
    recording_id: RecordingId | None
