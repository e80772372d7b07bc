"""One REST API: decides what answers a request, in the order in which API Gateway decides."""

import json
import logging
from collections.abc import Callable, Mapping

from infra.local.functions import FunctionError, Functions, FunctionTimeout
from infra.local.gateway import events, routes
from infra.local.gateway.authorizer import CognitoAuthorizer
from infra.local.gateway.message import GatewayResponses, HttpRequest, HttpResponse, Refused
from infra.local.intrinsics import TemplateError
from infra.local.resources.compute import Api

REQUEST_LIMIT_BYTES = 10 * 1024 * 1024
TIMEOUT_S = 29.0
_HEADERS_LIMIT_BYTES = 10_240

_log = logging.getLogger(__name__)


class RestApi:
    """An API and what is behind it.

    Args:
        api: as the template describes it.
        stage: name of its stage.
        account_id: of its owner.
        functions: what its integrations call.
        authorizer: makes the authorizer of a user pool id.
    """

    def __init__(
        self,
        api: Api,
        stage: str,
        account_id: str,
        functions: Functions,
        authorizer: Callable[[str], CognitoAuthorizer],
    ) -> None:
        self._api = api
        self._stage = stage
        self._account_id = account_id
        self._functions = functions
        read = routes.read(api.body)
        self._table = routes.RouteTable(read)
        self._responses = GatewayResponses(api.body)
        self._authorizer = authorizer(_pool_id(api.body)) if any(route.scopes is not None for route in read) else None
        for route in read:
            spec = functions.by_arn(route.function_arn).spec
            if spec.timeout_s > TIMEOUT_S:
                _log.warning("%s may run %g s, the API waits %g s", spec.logical_id, spec.timeout_s, TIMEOUT_S)

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a request; never raises for anything that a request or a function does."""
        route_path = "-"
        try:
            route, parameters = self._matched(request)
            route_path = route.path
            claims = None
            if route.scopes is not None and self._authorizer is not None:
                claims = self._authorizer.claims(request, route.scopes)
            answer = self._proxied(request, route, parameters, claims)
        except Refused as refused:
            answer = self._responses.answer(refused, request.request_id)
        # Neither path nor query nor body: they name people and recordings.
        _log.info(
            json.dumps(
                {
                    "requestId": request.request_id,
                    "method": request.method,
                    "route": route_path,
                    "status": answer.status,
                    "responseBytes": len(answer.body),
                }
            )
        )
        return answer

    def refuse(self, refused: Refused, request_id: str) -> HttpResponse:
        """Return the API's own answer to a request that could not even be read."""
        return self._responses.answer(refused, request_id)

    def _matched(self, request: HttpRequest) -> tuple[routes.Route, dict[str, str]]:
        if len(request.body) > REQUEST_LIMIT_BYTES:
            raise Refused("REQUEST_TOO_LARGE", 413, "Request Too Long")
        if sum(len(name) + len(value) for name, value in request.headers) > _HEADERS_LIMIT_BYTES:
            raise Refused("BAD_REQUEST_PARAMETERS", 400, "Bad Request")
        matched = self._table.match(request.method, request.path)
        if matched is None:
            raise Refused("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")
        return matched

    def _proxied(
        self,
        request: HttpRequest,
        route: routes.Route,
        parameters: Mapping[str, str],
        claims: Mapping[str, str] | None,
    ) -> HttpResponse:
        event = events.proxy_event(
            request,
            route,
            parameters,
            claims=claims,
            api_id=self._api.api_id,
            account_id=self._account_id,
            stage=self._stage,
            binary_media_types=self._api.binary_media_types,
        )
        try:
            answer = self._functions.by_arn(route.function_arn).invoke(event, wait_s=TIMEOUT_S)
        except FunctionTimeout as error:
            raise Refused("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out") from error
        except FunctionError as error:
            raise Refused("INTEGRATION_FAILURE", 502, "Internal server error") from error
        return events.response(answer, request, self._api.binary_media_types)


def _pool_id(body: Mapping[str, object]) -> str:
    """Return the user pool of the definition's one authorizer."""
    components = body.get("components")
    schemes = components.get("securitySchemes", {}) if isinstance(components, dict) else {}
    schemes = schemes or body.get("securityDefinitions", {})
    arns = {
        arn
        for scheme in (schemes.values() if isinstance(schemes, dict) else ())
        for arn in scheme.get("x-amazon-apigateway-authorizer", {}).get("providerARNs", [])
    }
    if len(arns) != 1:
        message = "the local cloud knows APIs of one user pool"
        raise TemplateError(message)
    return str(arns.pop()).rsplit("/", 1)[-1]
