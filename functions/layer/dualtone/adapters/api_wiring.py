"""The API's adapters and use cases put together; each is made on its first use and kept for the process's life.

Imports stand in the factories, so that a cold start pays only for the route that is called: boto3 and cryptography take
longer to import than all the rest.
"""

from __future__ import annotations

import os
import secrets
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from dualtone.adapters.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_dynamodb import DynamoDBClient

    from dualtone.adapters.agent_register import AgentRegister
    from dualtone.adapters.audit_outbox import AuditOutbox
    from dualtone.adapters.cursors import Cursors
    from dualtone.adapters.directory import Directory
    from dualtone.adapters.kms import Kms, TrustedSigningKeys
    from dualtone.adapters.metadata_store import MetadataStore
    from dualtone.adapters.recording_queries import RecordingQueries
    from dualtone.adapters.tokens import Tokens
    from dualtone.usecases.authenticate import Authenticate
    from dualtone.usecases.enrol_agent import EnrolAgent
    from dualtone.usecases.find_call import FindCall
    from dualtone.usecases.get_recording import GetRecording
    from dualtone.usecases.ingest_key import IngestKeys
    from dualtone.usecases.invite_agent import InviteAgent
    from dualtone.usecases.issue_agent_credentials import IssueAgentCredentials
    from dualtone.usecases.list_recordings import ListRecordings
    from dualtone.usecases.play_recording import PlayRecording
    from dualtone.usecases.read_evidence import ReadEvidence
    from dualtone.usecases.search_recordings import SearchRecordings

_POOL_ENDPOINTS = ("AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER", "AWS_ENDPOINT_URL")


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@cache
def settings() -> Settings:
    """What the template says."""
    return Settings()


@cache
def client(name: str) -> Any:  # noqa: ANN401 - the type follows from the name
    """A client of an AWS service, with patience that fits into API Gateway's 29 seconds."""
    import boto3  # noqa: PLC0415 - see above
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": 4}
    make: Callable[..., Any] = boto3.client
    return make(name, config=Config(connect_timeout=2, read_timeout=6, retries=retries))


@cache
def authenticate() -> Authenticate:
    """Tokens of our user pool."""
    from dualtone.adapters.jwks import CognitoAccessTokens, UserPool  # noqa: PLC0415
    from dualtone.usecases.authenticate import Authenticate  # noqa: PLC0415

    endpoint = next((os.environ[name] for name in _POOL_ENDPOINTS if os.environ.get(name)), None)
    return Authenticate(CognitoAccessTokens(UserPool.of(settings().user_pool_id, endpoint)), directory())


@cache
def directory() -> Directory:
    """Tenants, their app clients and agents."""
    from dualtone.adapters.directory import Directory  # noqa: PLC0415

    return Directory(_dynamodb(), settings().directory_table)


@cache
def outbox() -> AuditOutbox:
    """The audit outbox."""
    from dualtone.adapters.audit_outbox import AuditOutbox  # noqa: PLC0415

    return AuditOutbox(_dynamodb(), settings().audit_table, secrets.token_bytes)


@cache
def kms() -> Kms:
    """Keys that this function may use itself: MACs, signatures, metadata."""
    from dualtone.adapters.kms import Kms  # noqa: PLC0415

    return Kms(client("kms"))


@cache
def signing_keys() -> TrustedSigningKeys:
    """The keys whose signatures on recordings are trusted."""
    from dualtone.adapters.kms import TrustedSigningKeys  # noqa: PLC0415

    return TrustedSigningKeys(kms(), frozenset({settings().signing_key}))


@cache
def list_recordings() -> ListRecordings:
    """By time."""
    from dualtone.usecases.list_recordings import ListRecordings  # noqa: PLC0415

    return ListRecordings(_index(), _metadata(), _cursors())


@cache
def search_recordings() -> SearchRecordings:
    """By number."""
    from dualtone.usecases.search_recordings import SearchRecordings  # noqa: PLC0415

    return SearchRecordings(_index(), _tokens(), _metadata(), _cursors())


@cache
def get_recording() -> GetRecording:
    """One of them."""
    from dualtone.usecases.get_recording import GetRecording  # noqa: PLC0415

    return GetRecording(_index(), _metadata())


@cache
def read_evidence() -> ReadEvidence:
    """What proves it."""
    from dualtone.usecases.read_evidence import ReadEvidence  # noqa: PLC0415

    return ReadEvidence(_index(), signing_keys())


@cache
def find_call() -> FindCall:
    """What became of a call."""
    from dualtone.usecases.find_call import FindCall  # noqa: PLC0415

    return FindCall(_index(), _tokens())


@cache
def play_recording() -> PlayRecording:
    """Its audio: the one use case that reaches the custodians."""
    import boto3  # noqa: PLC0415

    from dualtone.adapters.key_store import KeyStore  # noqa: PLC0415
    from dualtone.adapters.vault_access import VaultAccess, kms_client_maker  # noqa: PLC0415
    from dualtone.adapters.vault_store import VaultStore  # noqa: PLC0415
    from dualtone.usecases.open_recording import OpenRecording  # noqa: PLC0415
    from dualtone.usecases.play_recording import PlayRecording  # noqa: PLC0415

    access = VaultAccess(
        client("sts"), settings().vault_access_role_arn, kms_client_maker(boto3.client), time.monotonic
    )
    vault = OpenRecording(
        VaultStore(client("s3"), settings().vault_bucket),
        KeyStore(_dynamodb(), settings().keys_table),
        access,
        signing_keys(),
    )
    return PlayRecording(_index(), vault)


@cache
def invite_agent() -> InviteAgent:
    """Codes for agents."""
    from dualtone.usecases.invite_agent import InviteAgent  # noqa: PLC0415

    return InviteAgent(_register(), signing_public_key, secrets.token_bytes)


def signing_public_key() -> bytes:
    """The key by which agents recognise us: SubjectPublicKeyInfo in DER."""
    return signing_keys().public_key(settings().signing_key)


@cache
def enrol_agent() -> EnrolAgent:
    """Agents from codes."""
    from dualtone.adapters.agent_provisioning import CommandQueues  # noqa: PLC0415
    from dualtone.usecases.enrol_agent import EnrolAgent  # noqa: PLC0415

    return EnrolAgent(_register(), CommandQueues(client("sqs")), _ingest_keys())


@cache
def issue_agent_credentials() -> IssueAgentCredentials:
    """Credentials from assertions."""
    from dualtone.adapters.agent_provisioning import AgentSessions  # noqa: PLC0415
    from dualtone.usecases.issue_agent_credentials import IssueAgentCredentials  # noqa: PLC0415

    sessions = AgentSessions(client("sts"), settings().agent_role_arn, bucket=settings().ingest_bucket, region=region())
    return IssueAgentCredentials(directory(), _register(), sessions, _ingest_keys())


def region() -> str:
    """Where all of this is."""
    name: str = client("sts").meta.region_name
    return name


def _dynamodb() -> DynamoDBClient:
    dynamodb: DynamoDBClient = client("dynamodb")
    return dynamodb


@cache
def _index() -> RecordingQueries:
    from dualtone.adapters.recording_queries import RecordingQueries  # noqa: PLC0415

    return RecordingQueries(_dynamodb(), settings().index_table)


@cache
def _tokens() -> Tokens:
    from dualtone.adapters.tokens import Tokens  # noqa: PLC0415

    return Tokens(kms(), settings().hmac_key)


@cache
def _cursors() -> Cursors:
    from dualtone.adapters.cursors import Cursors  # noqa: PLC0415

    return Cursors(kms(), settings().hmac_key)


@cache
def _register() -> AgentRegister:
    from dualtone.adapters.agent_register import AgentRegister  # noqa: PLC0415

    return AgentRegister(_dynamodb(), settings().directory_table, outbox())


@cache
def _ingest_keys() -> IngestKeys:
    from dualtone.adapters.kms import KmsSigner  # noqa: PLC0415
    from dualtone.usecases.ingest_key import IngestKeys  # noqa: PLC0415

    return IngestKeys(directory(), kms(), KmsSigner(kms(), settings().signing_key), settings().ingest_key)


@cache
def _metadata() -> MetadataStore:
    from dualtone.adapters.metadata_store import MetadataStore  # noqa: PLC0415
    from dualtone.adapters.table import Table  # noqa: PLC0415

    return MetadataStore(
        table=Table(_dynamodb(), settings().index_table),
        kms=kms(),
        metadata_key=settings().metadata_key,
        monotonic_s=time.monotonic,
        random_bytes=secrets.token_bytes,
    )
