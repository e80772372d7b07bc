"""Routes of payment systems: what they report, and where they get to report it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from chalicelib import call_answers, call_routes, policy_answers, policy_routes, requests, shapes
from chalicelib.operation import Access, Answer, Call, Operation, Source
from chalicelib.routes import Routes
from dualtone.adapters import api_wiring, wiring
from dualtone.domain import standard_webhooks
from dualtone.domain.call_command import Action
from dualtone.domain.problem import ProblemType
from dualtone.domain.recording_policy import Fate
from dualtone.domain.recording_ruling import Cause
from dualtone.domain.tenancy import Verb
from dualtone.usecases.pause_calls import Asked

routes: Final = Routes()

WEBHOOK_PATH: Final = "/v1/webhooks/payments/{endpoint_id}"
_ACTIONS: Final[dict[str, Action]] = {"card_entry.started": "pause", "card_entry.ended": "resume"}
DECISIONS: Final[dict[str, tuple[Fate, Cause]]] = {
    "consent.given": ("keep", "consent"),
    "consent.refused": ("discard", "consent"),
    "recording.keep": ("keep", "on_demand"),
}


class Reported(shapes.OneOf):
    """What became of the pause or resume, or of the decision."""

    root: call_answers.Commanded | policy_answers.Decided


@routes.operation(
    Operation(
        method="POST",
        path=WEBHOOK_PATH,
        name="report_payment",
        summary="Report that card entry begins or ends, that a party consents or refuses, or that a call is to be kept "
        "(Standard Webhooks)",
        verb=Verb.REPORT_PAYMENT,
        access=Access.SIGNED_MESSAGE,
        parameters=requests.PaymentReport,
        source=Source.JSON,
        answer=Reported,
        also=(HTTPStatus.ACCEPTED,),
        problems=(
            ProblemType.SIGNATURE_REFUSED,
            ProblemType.TIMESTAMP_REFUSED,
            ProblemType.NOT_FOUND,
            ProblemType.MESSAGE_ID_REUSED,
            ProblemType.MESSAGE_IN_PROGRESS,
        ),
    )
)
def report_payment(call: Call) -> Answer:
    """Acts on each message once; the same message again gets the same answer."""
    report: requests.PaymentReport = call.parameters

    def act(command: str, received_at_ms: int) -> tuple[int, str]:
        if report.type in DECISIONS:
            decision, cause = DECISIONS[report.type]
            endpoint, named = call.endpoint, report.data.call
            shown = policy_routes.decided(
                call, endpoint.tenant, endpoint.actor, decision, cause, named, how="webhook", command=command
            )
            return Answer(shown, status=shown.status).as_text()
        wanted = Asked(
            tenant=call.endpoint.tenant,
            by=call.endpoint.actor,
            action=_ACTIONS[report.type],
            cause="payment",
            received_at_ms=received_at_ms,
            effective_at_ms=report.data.effective_at_ms,
            until_ms=report.data.until_ms,
            lease_s=report.data.lease_s,
            command=command,
        )
        return call_routes.commanded(call, wanted, report.data.call).as_text()

    message_id = call.request.headers.get("webhook-id", "")
    received_at_ms = call_routes.received_at_ms(call)
    reply = api_wiring.take_payment_report().once(call.endpoint, message_id, call.request.body, received_at_ms, act)
    answer = json.loads(reply.answer)
    return Answer(
        answer,
        status=HTTPStatus(reply.status),
        which=call.endpoint.endpoint_id,
        details={"outcome": answer["outcome"], "calls": len(answer["calls"]), "repeated": int(reply.repeated)},
    )


@routes.operation(
    Operation(
        method="POST",
        path="/v1/payment-endpoints",
        name="create_payment_endpoint",
        summary="Create an endpoint for a payment system: get its URL, and the secret that it signs with",
        verb=Verb.CREATE_PAYMENT_ENDPOINT,
        parameters=requests.EndpointBody,
        source=Source.JSON,
        answer=call_answers.NewPaymentEndpoint,
        status=HTTPStatus.CREATED,
        records_itself=True,
    )
)
def create_payment_endpoint(call: Call) -> Answer:
    """The secret is shown this once, and kept sealed."""
    body: requests.EndpointBody = call.parameters
    created = api_wiring.create_payment_endpoint().create(call.principal, body.name, call.facts)
    base = wiring.settings().public_url or call.request.base_url
    return Answer(
        call_answers.NewPaymentEndpoint(
            endpoint_id=created.endpoint_id,
            url=base + WEBHOOK_PATH.format(endpoint_id=created.endpoint_id),
            secret=standard_webhooks.write_secret(created.secret),
        )
    )
