"""Makes the real things, once a process and on first use: settings, clients, adapters, use cases.

What needs numpy and ffmpeg is wired in ``finalizer``, since only one function ships them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

from dualtone.adapters import clock
from dualtone.adapters.agent_health import AgentHealthTable
from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.call_choices import CallChoices
from dualtone.adapters.call_ledger import CallLedger
from dualtone.adapters.call_watches import CallWatches
from dualtone.adapters.command_queue import CommandQueue
from dualtone.adapters.cut_queue import CutQueue
from dualtone.adapters.denied_sessions import IamClient
from dualtone.adapters.directory import Directory
from dualtone.adapters.finalize_queue import FinalizeQueue
from dualtone.adapters.ingest_store import IngestStore
from dualtone.adapters.key_store import KeyStore
from dualtone.adapters.kms import Kms, KmsSigner
from dualtone.adapters.live_calls import LiveCalls
from dualtone.adapters.metadata_store import MetadataStore
from dualtone.adapters.observability import Alarms
from dualtone.adapters.recording_index import RecordingIndex
from dualtone.adapters.recording_links import RecordingLinks
from dualtone.adapters.settings import Settings
from dualtone.adapters.table import Table
from dualtone.adapters.tokens import LiveKeys, Tokens
from dualtone.adapters.vault_access import VaultAccess, kms_client_maker
from dualtone.adapters.vault_store import VaultStore
from dualtone.domain import call_watch
from dualtone.domain.call_watch import HOUR_MS, Rules
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.usecases.command_calls import CommandCalls
from dualtone.usecases.commit_recording import CommitRecording
from dualtone.usecases.reconcile_recordings import ReconcileRecordings
from dualtone.usecases.sweep_calls import SweepCalls
from dualtone.usecases.take_agent_events import TakeAgentEvents

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient


# An answer that comes after the API's 29 seconds helps nobody: give up sooner, and say so in our own words.
_PATIENCE: Final = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})


@cache
def settings() -> Settings:
    """The environment, read once."""
    return Settings()


@cache
def dynamodb() -> DynamoDBClient:
    """DynamoDB."""
    return boto3.client("dynamodb", config=_PATIENCE)


@cache
def s3() -> S3Client:
    """S3."""
    return boto3.client("s3", config=_PATIENCE)


@cache
def sqs() -> SQSClient:
    """SQS."""
    return boto3.client("sqs", config=_PATIENCE)


@cache
def sts() -> STSClient:
    """STS."""
    return boto3.client("sts", config=_PATIENCE)


@cache
def iam() -> IamClient:
    """IAM."""
    client: IamClient = boto3.client("iam", config=_PATIENCE)
    return client


@cache
def kms() -> Kms:
    """KMS with the function's own rights: no vault key answers them."""
    return Kms(boto3.client("kms", config=_PATIENCE))


@cache
def vault_access() -> VaultAccess:
    """Sessions at the custodians."""
    return VaultAccess(sts(), settings().vault_access_role_arn, kms_client_maker(boto3.client), clock.monotonic_s)


@cache
def vault_store() -> VaultStore:
    """The vault bucket."""
    return VaultStore(s3(), settings().vault_bucket)


@cache
def key_store() -> KeyStore:
    """The keys table."""
    return KeyStore(dynamodb(), settings().keys_table)


@cache
def directory() -> Directory:
    """The directory table."""
    return Directory(dynamodb(), settings().directory_table)


@cache
def audit_outbox() -> AuditOutbox:
    """The audit outbox."""
    return AuditOutbox(dynamodb(), settings().audit_table, clock.random_bytes)


@cache
def metadata_store() -> MetadataStore:
    """Sealed metadata."""
    return MetadataStore(
        table=Table(dynamodb(), settings().index_table),
        kms=kms(),
        metadata_key=settings().metadata_key,
        monotonic_s=clock.monotonic_s,
        random_bytes=clock.random_bytes,
    )


@cache
def tokens() -> Tokens:
    """Search tokens."""
    return Tokens(kms(), settings().hmac_key)


@cache
def signer() -> KmsSigner:
    """The key that signs recordings and receipts."""
    return KmsSigner(kms(), settings().signing_key)


@cache
def certifier() -> KmsSigner:
    """The key that signs the certificates of gaps."""
    return KmsSigner(kms(), settings().certificate_key)


@cache
def ingest_store() -> IngestStore:
    """The ingest bucket."""
    return IngestStore(s3(), settings().ingest_bucket)


@cache
def recording_index() -> RecordingIndex:
    """The index table, for writing."""
    return RecordingIndex(dynamodb(), settings().index_table, key_store(), audit_outbox(), call_ledger())


@cache
def recording_links() -> RecordingLinks:
    """Which recordings belong to one call."""
    return RecordingLinks(dynamodb(), settings().index_table)


@cache
def live_keys() -> LiveKeys:
    """Tenants' live keys."""
    return LiveKeys(kms(), settings().hmac_key)


@cache
def commit_recording() -> CommitRecording:
    """The steps of a commit."""
    return CommitRecording(
        index=recording_index(),
        vault=vault_store(),
        ingest=ingest_store(),
        agents=directory(),
        queues=CommandQueue(sqs()),
        signer=signer(),
    )


@cache
def call_watches() -> CallWatches:
    """Watched calls."""
    return CallWatches(dynamodb(), settings().index_table, audit_outbox())


@cache
def watch_rules() -> Rules:
    """How long a silence is too long."""
    return Rules(
        interrupted_after_ms=1000 * settings().interrupted_after_s, finalize_after_ms=HOUR_MS * settings().sweep_after_h
    )


def begin_watch(tenant: TenantId, agent: AgentId, call: CallId) -> None:
    """Begins to watch a call, now; one that is watched already goes on as it is."""
    call_watches().begin(call_watch.begun(tenant, agent, call, clock.now_ms(), watch_rules()))


@cache
def sweeper() -> SweepCalls:
    """The sweeper."""
    return SweepCalls(
        watches=call_watches(),
        agents=call_watches(),
        generations=recording_index(),
        uploads=ingest_store(),
        finalizer=FinalizeQueue(sqs(), settings().finalize_queue_url),
        alarms=Alarms(),
        rules=watch_rules(),
    )


@cache
def call_ledger() -> CallLedger:
    """The ledgers of calls' pauses."""
    return CallLedger(dynamodb(), settings().index_table, audit_outbox())


@cache
def live_calls() -> LiveCalls:
    """Calls while they last."""
    return LiveCalls(dynamodb(), settings().index_table, audit_outbox())


@cache
def call_choices() -> CallChoices:
    """What people chose for calls."""
    return CallChoices(dynamodb(), settings().index_table, audit_outbox())


@cache
def agent_health() -> AgentHealthTable:
    """How agents are."""
    return AgentHealthTable(dynamodb(), settings().index_table)


@cache
def cut_queue() -> CutQueue:
    """Where calls are named of which a paused span may have been kept."""
    return CutQueue(sqs(), settings().cut_queue_url)


@cache
def command_calls() -> CommandCalls:
    """Pauses and resumes."""
    return CommandCalls(
        matches=live_calls(),
        ledgers=call_ledger(),
        agents=directory(),
        queues=CommandQueue(sqs()),
        cuts=cut_queue(),
        signer=signer(),
        now_ms=clock.now_ms,
    )


@cache
def take_agent_events() -> TakeAgentEvents:
    """Agents' reports."""
    return TakeAgentEvents(
        agents=directory(),
        watch=begin_watch,
        calls=live_calls(),
        ledgers=call_ledger(),
        choices=call_choices(),
        health=agent_health(),
        orders=command_calls(),
        cuts=cut_queue(),
        audit=audit_outbox(),
        alarms=Alarms(),
    )


@cache
def reconciler() -> ReconcileRecordings:
    """The reconciler."""
    return ReconcileRecordings(
        attempts=recording_index(), vault=vault_store(), completion=commit_recording(), failures=Alarms()
    )
