"""The REST API of Dualtone, on AWS Lambda behind API Gateway. Routes translate; use cases decide.

Each route is declared by an operation: who may call it, what it takes, what it answers. `chalicelib.edge` does the rest
around it. Nothing here reads the environment or makes a client before the first request.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any, Final

from chalicelib import answers, call_answers, call_routes, openapi, payment_routes, policy_routes, requests
from chalicelib.api import Api
from chalicelib.edge import Surroundings
from chalicelib.operation import Access, Answer, Call, Operation, Source
from dualtone import __version__
from dualtone.adapters import api_wiring, clock, observability, wiring
from dualtone.domain import standard_webhooks
from dualtone.domain.audit_event import Outcome
from dualtone.domain.errors import MalformedInput, NotFound
from dualtone.domain.ids import RecordingId, TenantId, parse_agent_id, parse_recording_id
from dualtone.domain.problem import ProblemType
from dualtone.domain.tenancy import Verb
from dualtone.usecases.play_recording import Release
from dualtone.usecases.recording_pages import RecordingPage

AGENT_KEY_PATH: Final = "/v1/agents/key"
TOKEN_PATH: Final = "/v1/token"  # noqa: S105 - a path

app = Api(
    "dualtone",
    Surroundings(
        principal_of=lambda token, now_s: api_wiring.authenticate().principal_of(token, now_s),
        endpoint_of=lambda request, facts: api_wiring.take_payment_report().sender(
            request.path.get("endpoint_id", ""), request.headers, request.body, facts
        ),
        record=lambda event: wiring.audit_outbox().write(event),
        failed=lambda error, facts: observability.failed(observability.API_FAILED, error, **facts),
        now_ms=clock.now_ms,
    ),
)


@app.operation(
    Operation(
        method="GET",
        path="/v1/health",
        name="health",
        summary="Say that the API answers",
        verb=Verb.READ_PUBLIC,
        access=Access.PUBLIC,
        answer=answers.Health,
    )
)
def health(_call: Call) -> Answer:
    """Touches no store: it tells a load balancer about this function and about nothing behind it."""
    return Answer(answers.Health(version=__version__, now_ms=clock.now_ms()))


@app.operation(
    Operation(
        method="GET",
        path="/v1/openapi.json",
        name="openapi",
        summary="Describe the API",
        verb=Verb.READ_PUBLIC,
        access=Access.PUBLIC,
    )
)
def describe(_call: Call) -> Answer:
    """The description that is also checked in as frontend_api/openapi.json."""
    return Answer(openapi.describe(app.operations, __version__))


@app.operation(
    Operation(
        method="GET",
        path="/v1/recordings",
        name="list_recordings",
        summary="List recordings by time, newest first",
        verb=Verb.LIST_RECORDINGS,
        parameters=requests.ListQuery,
        answer=answers.RecordingPage,
        problems=(ProblemType.INTEGRITY,),
    )
)
def list_recordings(call: Call) -> Answer:
    """By start time; parties only for officers."""
    query: requests.ListQuery = call.parameters
    return _page(api_wiring.list_recordings().page(call.principal, query.page_request(), call.facts.now_ms))


@app.operation(
    Operation(
        method="POST",
        path="/v1/recordings/search",
        name="search_recordings",
        summary="Find the recordings in which a number takes part, newest first",
        verb=Verb.SEARCH_RECORDINGS,
        parameters=requests.SearchBody,
        source=Source.JSON,
        answer=answers.RecordingPage,
        problems=(ProblemType.INTEGRITY,),
    )
)
def search_recordings(call: Call) -> Answer:
    """A POST, so that no number stands in a URL, a log or a history."""
    body: requests.SearchBody = call.parameters
    search = api_wiring.search_recordings()
    return _page(search.page(call.principal, body.number, body.page_request(), call.facts.now_ms))


@app.operation(
    Operation(
        method="GET",
        path="/v1/recordings/{recording_id}",
        name="get_recording",
        summary="Get everything about a recording but its audio",
        verb=Verb.READ_RECORDING,
        answer=answers.Recording,
        problems=(ProblemType.NOT_FOUND, ProblemType.INTEGRITY),
    )
)
def get_recording(call: Call) -> Answer:
    """Channels with their speakers, gaps, quality."""
    recording = _recording_named(call)
    return Answer(answers.Recording.of(api_wiring.get_recording().get(call.principal, recording)), which=recording)


@app.operation(
    Operation(
        method="GET",
        path="/v1/recordings/{recording_id}/linked",
        name="list_linked_recordings",
        summary="List the other recordings of the same call: copies, its other end, what followed a transfer",
        verb=Verb.READ_RECORDING,
        answer=answers.LinkedRecordings,
        problems=(ProblemType.NOT_FOUND,),
    )
)
def list_linked_recordings(call: Call) -> Answer:
    """At most 50, of the twelve hours around it."""
    recording = _recording_named(call)
    linked = api_wiring.list_linked().list(call.principal, recording)
    shown = tuple(map(answers.LinkedRecording.of, linked))
    return Answer(answers.LinkedRecordings(recordings=shown), which=recording, details={"rows": len(shown)})


@app.operation(
    Operation(
        method="GET",
        path="/v1/recordings/{recording_id}/audio",
        name="play_recording",
        summary="Play a recording, or a part of it: Ogg/Opus, one channel per party",
        verb=Verb.PLAY_RECORDING,
        audio=True,
        records_itself=True,
        problems=(
            ProblemType.NOT_FOUND,
            ProblemType.INTEGRITY,
            ProblemType.RANGE_REQUIRED,
            ProblemType.RANGE_NOT_SATISFIABLE,
        ),
    )
)
def play_recording(call: Call) -> Answer:
    """Opens only the seconds that are asked for; which ones is on record before a key is touched."""
    recording, principal = _recording_named(call), call.principal

    def about_to_release(release: Release) -> None:
        details: dict[str, int | list[int]] = {"bytes": [release.range.first, release.range.last]}
        if release.span_ms is not None:
            details["span_ms"] = list(release.span_ms)
        wiring.audit_outbox().write(
            call.facts.event(
                Verb.PLAY_RECORDING,
                Outcome.GRANTED,
                tenant=principal.tenant,
                who=principal.actor,
                which=recording,
                details=details,
            )
        )

    sound = api_wiring.play_recording().play(
        principal.tenant,
        recording,
        range_field=call.request.headers.get("range"),
        if_range=call.request.headers.get("if-range"),
        about_to_release=about_to_release,
    )
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": sound.etag,
        "Content-Disposition": f'inline; filename="{recording}.opus"',
    }
    if not sound.range.partial:
        return Answer(sound.data, sound.media_type, headers=headers, which=recording)
    headers["Content-Range"] = sound.range.content_range(sound.total_bytes)
    return Answer(sound.data, sound.media_type, HTTPStatus.PARTIAL_CONTENT, headers, recording)


@app.operation(
    Operation(
        method="GET",
        path="/v1/recordings/{recording_id}/evidence",
        name="read_evidence",
        summary="Get what proves a recording: signed manifest, signature, public key",
        verb=Verb.READ_EVIDENCE,
        answer=answers.Evidence,
        problems=(ProblemType.NOT_FOUND, ProblemType.INTEGRITY),
    )
)
def read_evidence(call: Call) -> Answer:
    """Enough for a stranger to check the signature with openssl alone."""
    recording = _recording_named(call)
    evidence = api_wiring.read_evidence().read(call.principal.tenant, recording)
    return Answer(
        answers.Evidence(
            manifest=_base64(evidence.manifest),
            message=_base64(evidence.message),
            signature=_base64(evidence.signature),
            public_key=_pem(evidence.public_key_der),
            key_id=evidence.key_id,
            gap_certificates=tuple(map(answers.SignedEnvelope.of, evidence.gap_certificates)),
            gap_public_key=_pem(evidence.gap_public_key_der),
            gap_key_id=evidence.gap_key_id,
        ),
        which=recording,
    )


app.include(call_routes.routes)
app.include(payment_routes.routes)
app.include(policy_routes.routes)


@app.operation(
    Operation(
        method="GET",
        path="/v1/agents",
        name="list_agents",
        summary="List agents, and how they were when they last said so",
        verb=Verb.LIST_AGENTS,
        answer=call_answers.Agents,
    )
)
def list_agents(call: Call) -> Answer:
    """Invited ones included."""
    found = api_wiring.list_agents().list(call.principal.tenant)
    agents = tuple(call_answers.Agent.of(agent, health) for agent, health in found)
    return Answer(call_answers.Agents(agents=agents), details={"agents": len(agents)})


@app.operation(
    Operation(
        method="POST",
        path="/v1/agents",
        name="invite_agent",
        summary="Invite an agent: get a one-time code for the machine that is to record",
        verb=Verb.INVITE_AGENT,
        parameters=requests.InviteBody,
        source=Source.JSON,
        answer=answers.Invitation,
        status=HTTPStatus.CREATED,
        records_itself=True,
    )
)
def invite_agent(call: Call) -> Answer:
    """The code is good for one day and one enrolment, and is shown this once."""
    body: requests.InviteBody = call.parameters
    invitation = api_wiring.invite_agent().invite(call.principal, body.name, call.facts)
    return Answer(answers.Invitation.at(invitation.agent_id, invitation.code, invitation.expires_at_ms))


@app.operation(
    Operation(
        method="POST",
        path="/v1/agents/{agent_id}/revoke",
        name="revoke_agent",
        summary="Revoke an agent for good: within a minute it records nothing new and nothing of it is taken",
        verb=Verb.REVOKE_AGENT,
        answer=call_answers.RevokedAgent,
        problems=(ProblemType.NOT_FOUND,),
        records_itself=True,
    )
)
def revoke_agent(call: Call) -> Answer:
    """What it had uploaded and was not finalised stays where it is, and its spool stays on its disk."""
    try:
        agent_id = parse_agent_id(call.request.path.get("agent_id", ""))
    except MalformedInput as error:
        raise NotFound("no such agent") from error
    agent = api_wiring.revoke_agent().revoke(call.principal, agent_id, call.facts)
    return Answer(call_answers.RevokedAgent(agent_id=agent.agent_id, name=agent.name, state=agent.state.value))


@app.operation(
    Operation(
        method="POST",
        path="/v1/agents/enrol",
        name="enrol_agent",
        summary="Enrol an agent: exchange a one-time code and a public key for an identity",
        verb=Verb.ENROL_AGENT,
        access=Access.CREDENTIAL_IN_BODY,
        parameters=requests.EnrolBody,
        source=Source.JSON,
        answer=answers.Enrolment,
        status=HTTPStatus.CREATED,
        records_itself=True,
        problems=(ProblemType.CODE_REFUSED,),
    )
)
def enrol_agent(call: Call) -> Answer:
    """The answer is the same for an unknown, a used and an expired code."""
    body: requests.EnrolBody = call.parameters
    enrolment = api_wiring.enrol_agent().enrol(body.code, body.public_key, body.name, call.facts)
    settings = wiring.settings()
    return Answer(
        answers.Enrolment(
            agent_id=enrolment.agent.agent_id,
            tenant=enrolment.agent.tenant,
            region=api_wiring.region(),
            token_url=_token_url(call),
            ingest_bucket=settings.ingest_bucket,
            prefix=enrolment.prefix,
            command_queue_url=enrolment.agent.command_queue_url,
            signing_public_key=_pem(api_wiring.signing_public_key()),
            signing_key_id=settings.signing_key,
            ingest_key=answers.SignedEnvelope.model_validate(enrolment.ingest_key.to_json()),
            **_live_access(enrolment.agent.tenant),
        )
    )


@app.operation(
    Operation(
        method="POST",
        path=AGENT_KEY_PATH,
        name="rotate_agent_key",
        summary="Give an agent its next key, announced by the present one",
        verb=Verb.ROTATE_AGENT_KEY,
        access=Access.CREDENTIAL_IN_BODY,
        parameters=requests.RotateBody,
        source=Source.JSON,
        answer=call_answers.RotatedKey,
        records_itself=True,
        problems=(ProblemType.GRANT_REFUSED,),
    )
)
def rotate_agent_key(call: Call) -> Answer:
    """What the earlier key signed is still believed; credentials are given to the next one alone."""
    body: requests.RotateBody = call.parameters
    audience = _own_url(call, AGENT_KEY_PATH)
    agent_id = api_wiring.rotate_agent_key().rotate(body.assertion, body.public_key, body.proof, audience, call.facts)
    return Answer(call_answers.RotatedKey(agent_id=agent_id))


@app.operation(
    Operation(
        method="POST",
        path=TOKEN_PATH,
        name="issue_agent_credentials",
        summary="Exchange an agent's signed assertion for temporary credentials (RFC 7523)",
        verb=Verb.ISSUE_CREDENTIALS,
        access=Access.CREDENTIAL_IN_BODY,
        parameters=requests.TokenForm,
        source=Source.FORM,
        answer=answers.Credentials,
        records_itself=True,
        problems=(ProblemType.GRANT_REFUSED, ProblemType.AGENT_REVOKED),
    )
)
def issue_agent_credentials(call: Call) -> Answer:
    """Good for a quarter of an hour, below the agent's own prefix, on its own queue, and to report."""
    form: requests.TokenForm = call.parameters
    issued = api_wiring.issue_agent_credentials().issue(form.assertion, _token_url(call), call.facts)
    credentials = issued.credentials
    return Answer(
        answers.Credentials(
            access_key_id=credentials.access_key_id,
            secret_access_key=credentials.secret_access_key,
            session_token=credentials.session_token,
            expires_at=credentials.expires_at,
            ingest_key=answers.SignedEnvelope.model_validate(issued.ingest_key.to_json()),
            **_live_access(issued.tenant),
        )
    )


def _live_access(tenant: TenantId) -> dict[str, Any]:
    access = api_wiring.grant_live_access().to(tenant)
    policy = access.recording_policy
    return {
        "events_queue_url": wiring.settings().agent_events_queue_url,
        "live_key": _base64(access.live_key),
        "payment_endpoints": tuple(
            answers.EndpointSecret(endpoint_id=endpoint_id, secret=standard_webhooks.write_secret(secret))
            for endpoint_id, secret in access.payment_endpoints
        ),
        "recording_policy": None if policy is None else answers.SignedEnvelope.of(policy),
        "pause": answers.PauseDefaults(lease_s=access.profile.pause_lease_s, on_expiry=access.profile.pause_on_expiry),
    }


def _recording_named(call: Call) -> RecordingId:
    """A malformed id names no recording: it is answered like any other that does not exist."""
    try:
        return parse_recording_id(call.request.path.get("recording_id", ""))
    except MalformedInput as error:
        raise NotFound("no such recording") from error


def _page(page: RecordingPage) -> Answer:
    period, rows = page.period, len(page.rows)
    return Answer(
        answers.RecordingPage.of(page),
        details={"from_ms": period.from_ms, "to_ms": period.to_ms, "rows": rows},
    )


def _token_url(call: Call) -> str:
    return _own_url(call, TOKEN_PATH)


def _own_url(call: Call, path: str) -> str:
    return (wiring.settings().public_url or call.request.base_url) + path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _pem(der: bytes) -> str:
    lines = [_base64(der)[start : start + 64] for start in range(0, (len(der) + 2) // 3 * 4, 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
