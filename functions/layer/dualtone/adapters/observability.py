"""Logs and metrics of the functions: ids, counts and kinds of errors. Never a number, a name, audio, or a payload."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from aws_lambda_powertools import Logger, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from dualtone.domain.call_files import IngestKey
from dualtone.domain.call_watch import Watch
from dualtone.domain.commit_attempt import Attempt
from dualtone.domain.errors import DualtoneError
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId

NAMESPACE: Final = "Dualtone"
RECORDING_DAMAGED: Final = "RecordingDamaged"
RECORDING_FINALIZED: Final = "RecordingFinalized"
FINALIZE_FAILED: Final = "FinalizeFailed"
RECONCILE_FAILED: Final = "ReconcileFailed"
CALL_INTERRUPTED: Final = "CallInterrupted"
SWEEP_FAILED: Final = "SweepFailed"
API_FAILED: Final = "ApiFailed"
METADATA_DAMAGED: Final = "MetadataDamaged"
CUT_FAILED: Final = "CutFailed"
PAUSED_AUDIO_ARRIVED: Final = "PausedAudioArrived"
AGENT_EVENTS_FAILED: Final = "AgentEventsFailed"
AGENT_EVENT_REFUSED: Final = "AgentEventRefused"
PAUSE_LEASE_EXPIRED: Final = "PauseLeaseExpired"
PAYMENT_WITHOUT_PAUSE: Final = "PaymentWithoutPause"

_MOST_DAMAGE: Final = 20


@cache
def logger() -> Logger:
    """The structured log of this process."""
    return Logger(service="dualtone")


def count(metric: str, value: int = 1) -> None:
    """Adds to a metric, in CloudWatch's embedded metric format on standard output."""
    with single_metric(name=metric, unit=MetricUnit.Count, value=value, namespace=NAMESPACE) as single:
        single.add_dimension(name="service", value="dualtone")


def failed(metric: str, error: Exception, **ids: str) -> None:
    """Logs what went wrong and counts it; only our own errors' texts are known to hold nothing personal."""
    text = str(error) if isinstance(error, DualtoneError) else ""
    logger().error(metric, extra={"error": type(error).__name__, "reason": text, **ids})
    count(metric)


class Alarms:
    """Tells the people on duty, by metrics that alarms watch and by error logs that say what it is about."""

    def recording_damaged(self, place: IngestKey, recording: RecordingId, damage: Sequence[str]) -> None:
        """A recording is kept as far as it verifies, and its upload is kept as it is."""
        logger().error(
            RECORDING_DAMAGED,
            extra={
                "tenant": place.tenant,
                "agent": place.agent,
                "call": place.call,
                "recording": recording,
                "damage": list(damage[:_MOST_DAMAGE]),
                "damage_count": len(damage),
            },
        )
        count(RECORDING_DAMAGED)

    def paused_audio_arrived(self, place: IngestKey, recording: RecordingId) -> None:
        """Packets of a paused span had been uploaded; they are left out."""
        logger().error(PAUSED_AUDIO_ARRIVED, extra={"tenant": place.tenant, "call": place.call, "recording": recording})
        count(PAUSED_AUDIO_ARRIVED)

    def metadata_damaged(self, tenant: TenantId, recording: RecordingId) -> None:
        """The sealed metadata of a recording is missing, or is not what was sealed."""
        logger().error(METADATA_DAMAGED, extra={"tenant": tenant, "recording": recording})
        count(METADATA_DAMAGED)

    def call_interrupted(self, watch: Watch) -> None:
        """A call went silent before it ended: its agent died, or lost its uplink."""
        ids = {"tenant": watch.tenant, "agent": watch.agent, "call": watch.call}
        logger().error(CALL_INTERRUPTED, extra={**ids, "heard_at_ms": watch.heard_at_ms})
        count(CALL_INTERRUPTED)

    def not_swept(self, watch: Watch, error: Exception) -> None:
        """A call could not be looked at; the next run tries again."""
        failed(SWEEP_FAILED, error, tenant=watch.tenant, call=watch.call)

    def event_refused(self, tenant: str, agent: str, kind: str, error: Exception) -> None:
        """An agent's event, or a whole report of unknown sender, was damaged and is dropped."""
        failed(AGENT_EVENT_REFUSED, error, tenant=tenant, agent=agent, kind=kind)

    def lease_expired(self, tenant: TenantId, call: CallId, on_expiry: str) -> None:
        """Nobody renewed or ended a pause in time: the call is silent still, or recorded again."""
        logger().error(PAUSE_LEASE_EXPIRED, extra={"tenant": tenant, "call": call, "on_expiry": on_expiry})
        count(PAUSE_LEASE_EXPIRED)

    def payment_without_pause(self, tenant: TenantId, call: CallId) -> None:
        """Somebody typed a card's number, and nobody had paused the call: it has paused itself."""
        logger().error(PAYMENT_WITHOUT_PAUSE, extra={"tenant": tenant, "call": call})
        count(PAYMENT_WITHOUT_PAUSE)

    def call_lost(self, tenant: TenantId, call: CallId, agent: AgentId) -> None:
        """An agent records a call no more of which it never reported the end; the sweeper sees to what was uploaded."""
        logger().warning("call lost", extra={"tenant": tenant, "call": call, "agent": agent})

    def not_reconciled(self, attempt: Attempt, error: Exception) -> None:
        """An attempt could not be reconciled; the next run tries again."""
        failed(RECONCILE_FAILED, error, attempt=attempt.attempt, recording=attempt.recording)
