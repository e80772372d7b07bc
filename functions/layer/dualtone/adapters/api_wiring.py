"""The API's use cases, each made once a process and on first use; what other functions share comes from ``wiring``.

Everything is imported at once: a Lambda imports while it has more of a processor than it ever will again, and all of it
together takes a third of a second of it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from dualtone.adapters import clock, wiring
from dualtone.adapters.agent_provisioning import AgentSessions, CommandQueues
from dualtone.adapters.agent_register import AgentRegister
from dualtone.adapters.command_queue import CommandQueue
from dualtone.adapters.cursors import Cursors
from dualtone.adapters.denied_sessions import DeniedSessions
from dualtone.adapters.jwks import CognitoAccessTokens, UserPool
from dualtone.adapters.kms import TrustedSigningKeys
from dualtone.adapters.observability import Alarms
from dualtone.adapters.payment_endpoints import MessageMemory, PaymentEndpoints
from dualtone.adapters.recording_policies import RecordingPolicies
from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.usecases.authenticate import Authenticate
from dualtone.usecases.await_answers import AwaitAnswers
from dualtone.usecases.change_recording_policy import ChangeRecordingPolicy
from dualtone.usecases.create_payment_endpoint import CreatePaymentEndpoint
from dualtone.usecases.decide_calls import DecideCalls
from dualtone.usecases.enrol_agent import EnrolAgent
from dualtone.usecases.follow_calls import FollowCalls
from dualtone.usecases.get_recording import GetRecording
from dualtone.usecases.ingest_key import IngestKeys
from dualtone.usecases.invite_agent import InviteAgent
from dualtone.usecases.issue_agent_credentials import IssueAgentCredentials
from dualtone.usecases.list_agents import ListAgents
from dualtone.usecases.list_linked import ListLinked
from dualtone.usecases.list_recordings import ListRecordings
from dualtone.usecases.live_access import GrantLiveAccess
from dualtone.usecases.open_recording import OpenRecording
from dualtone.usecases.pause_calls import PauseCalls
from dualtone.usecases.play_recording import PlayRecording
from dualtone.usecases.read_evidence import ReadEvidence
from dualtone.usecases.read_recording_policy import ReadRecordingPolicy
from dualtone.usecases.revoke_agent import RevokeAgent
from dualtone.usecases.rotate_agent_key import RotateAgentKey
from dualtone.usecases.search_recordings import SearchRecordings
from dualtone.usecases.take_payment_report import TakePaymentReport

_POOL_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER", "AWS_ENDPOINT_URL")
"""Where boto3, too, would look for another Cognito than AWS's: the local cloud."""


@cache
def authenticate() -> Authenticate:
    """Tokens of our user pool."""
    endpoint = next((os.environ[name] for name in _POOL_ENDPOINTS if os.environ.get(name)), None)
    pool = UserPool.of(wiring.settings().user_pool_id, endpoint)
    return Authenticate(CognitoAccessTokens(pool), wiring.directory())


@cache
def list_recordings() -> ListRecordings:
    """By time."""
    return ListRecordings(_index(), wiring.metadata_store(), _cursors(), Alarms())


@cache
def search_recordings() -> SearchRecordings:
    """By number."""
    return SearchRecordings(_index(), wiring.tokens(), wiring.metadata_store(), _cursors(), Alarms())


@cache
def get_recording() -> GetRecording:
    """One of them."""
    return GetRecording(_index(), wiring.metadata_store())


@cache
def list_linked() -> ListLinked:
    """The others of its call."""
    return ListLinked(_index(), wiring.recording_links())


@cache
def play_recording() -> PlayRecording:
    """Its audio: the one use case that reaches the custodians."""
    vault = OpenRecording(wiring.vault_store(), wiring.key_store(), wiring.vault_access(), _signing_keys())
    return PlayRecording(_index(), vault)


@cache
def read_evidence() -> ReadEvidence:
    """What proves it."""
    return ReadEvidence(_index(), _signing_keys(), _certificate_keys(), wiring.settings().certificate_key)


@cache
def follow_calls() -> FollowCalls:
    """Calls while they last, and what became of them."""
    return FollowCalls(
        calls=wiring.live_calls(),
        ledgers=wiring.call_ledger(),
        choices=wiring.call_choices(),
        recordings=_index(),
        sip_tokens=wiring.tokens(),
        live_keys=wiring.live_keys(),
    )


@cache
def pause_calls() -> PauseCalls:
    """Pauses and resumes, and what agents say to them."""
    answers = AwaitAnswers(wiring.call_ledger(), clock.Patience())
    return PauseCalls(wiring.directory(), wiring.command_calls(), answers, clock.random_bytes)


@cache
def decide_calls() -> DecideCalls:
    """Decisions on calls, and what agents say to them."""
    return DecideCalls(
        ledgers=wiring.call_ledger(),
        matches=wiring.live_calls(),
        choices=wiring.call_choices(),
        agents=wiring.directory(),
        queues=CommandQueue(wiring.sqs()),
        audit=wiring.audit_outbox(),
        signer=wiring.signer(),
        patience=clock.Patience(),
        random_bytes=clock.random_bytes,
    )


@cache
def read_recording_policy() -> ReadRecordingPolicy:
    """The policy, its versions, and what it would say of a call."""
    return ReadRecordingPolicy(recording_policies(), wiring.directory())


@cache
def change_recording_policy() -> ChangeRecordingPolicy:
    """New versions of the policy."""
    return ChangeRecordingPolicy(
        policies=recording_policies(),
        directory=wiring.directory(),
        queues=CommandQueue(wiring.sqs()),
        signer=wiring.signer(),
        random_bytes=clock.random_bytes,
    )


@cache
def recording_policies() -> RecordingPolicies:
    """Where policies are kept."""
    return RecordingPolicies(wiring.dynamodb(), wiring.settings().directory_table, wiring.audit_outbox())


@cache
def create_payment_endpoint() -> CreatePaymentEndpoint:
    """Endpoints for payment systems."""
    return CreatePaymentEndpoint(_payment_endpoints(), clock.random_bytes)


@cache
def take_payment_report() -> TakePaymentReport:
    """What payment systems report."""
    memory = MessageMemory(wiring.dynamodb(), wiring.settings().index_table)
    return TakePaymentReport(_payment_endpoints(), memory, clock.Patience(), clock.random_bytes)


@cache
def list_agents() -> ListAgents:
    """Agents and how they are."""
    return ListAgents(wiring.directory(), wiring.agent_health())


@cache
def grant_live_access() -> GrantLiveAccess:
    """What agents are told beside their identity."""
    return GrantLiveAccess(wiring.directory(), wiring.live_keys(), _payment_endpoints(), recording_policies())


@cache
def invite_agent() -> InviteAgent:
    """Codes for agents."""
    return InviteAgent(_register(), signing_public_key, clock.random_bytes)


@cache
def enrol_agent() -> EnrolAgent:
    """Agents from codes."""
    return EnrolAgent(
        _register(), CommandQueues(wiring.sqs(), wiring.settings().agent_role_arn, region()), _ingest_keys()
    )


@cache
def rotate_agent_key() -> RotateAgentKey:
    """Agents' next keys."""
    return RotateAgentKey(wiring.directory(), _register())


@cache
def revoke_agent() -> RevokeAgent:
    """The end of an agent."""
    return RevokeAgent(
        agents=wiring.directory(),
        register=_register(),
        sessions=DeniedSessions(wiring.iam(), wiring.settings().agent_role_arn),
        queues=CommandQueue(wiring.sqs()),
        signer=wiring.signer(),
        random_bytes=clock.random_bytes,
    )


@cache
def issue_agent_credentials() -> IssueAgentCredentials:
    """Credentials from assertions."""
    settings = wiring.settings()
    sessions = AgentSessions(
        wiring.sts(),
        settings.agent_role_arn,
        bucket=settings.ingest_bucket,
        events_queue_url=settings.agent_events_queue_url,
        region=region(),
    )
    return IssueAgentCredentials(wiring.directory(), _register(), sessions, _ingest_keys())


def signing_public_key() -> bytes:
    """The key by which agents recognise us: SubjectPublicKeyInfo in DER."""
    return _signing_keys().public_key(wiring.settings().signing_key)


def region() -> str:
    """Where all of this is."""
    return wiring.sts().meta.region_name


@cache
def _index() -> RecordingQueries:
    return RecordingQueries(wiring.dynamodb(), wiring.settings().index_table)


@cache
def _payment_endpoints() -> PaymentEndpoints:
    return PaymentEndpoints(
        dynamodb=wiring.dynamodb(),
        table=wiring.settings().directory_table,
        kms=wiring.kms(),
        metadata_key=wiring.settings().metadata_key,
        outbox=wiring.audit_outbox(),
        monotonic_s=clock.monotonic_s,
    )


@cache
def _cursors() -> Cursors:
    return Cursors(wiring.kms(), wiring.settings().hmac_key)


@cache
def _signing_keys() -> TrustedSigningKeys:
    return TrustedSigningKeys(wiring.kms(), frozenset({wiring.settings().signing_key}))


@cache
def _certificate_keys() -> TrustedSigningKeys:
    return TrustedSigningKeys(wiring.kms(), frozenset({wiring.settings().certificate_key}))


@cache
def _register() -> AgentRegister:
    return AgentRegister(wiring.dynamodb(), wiring.settings().directory_table, wiring.audit_outbox())


@cache
def _ingest_keys() -> IngestKeys:
    return IngestKeys(wiring.directory(), wiring.kms(), wiring.signer(), wiring.settings().ingest_key)
