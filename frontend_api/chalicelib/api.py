"""Chalice, made to answer everything in one voice.

What Chalice answers itself (unknown route, wrong method) becomes a problem detail too. Accept is not negotiated: each
resource has one representation, RFC 9110 section 12.5.1 lets a server send it regardless, and Chalice would otherwise
refuse audio to a client that sends no Accept field at all, which means "anything".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Final

from chalice.app import Chalice, Response

from chalicelib import edge, problems
from chalicelib.edge import HttpAnswer, Surroundings
from chalicelib.operation import Operation, View
from chalicelib.routes import Routes
from dualtone.domain.problem import MEDIA_TYPE, Problem, ProblemType

# Chalice keeps the current request on the app, where two threads of one process would meet.
_event: ContextVar[Mapping[str, Any]] = ContextVar("_event")

_OF_CHALICE: Final = {
    HTTPStatus.BAD_REQUEST: ProblemType.MALFORMED,
    HTTPStatus.METHOD_NOT_ALLOWED: ProblemType.METHOD_NOT_ALLOWED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ProblemType.UNSUPPORTED_MEDIA_TYPE,
}


class Api(Chalice):
    """The REST API: a Chalice app whose routes are operations.

    Attributes:
        operations: Every route, in order of declaration.
    """

    def __init__(self, app_name: str, surroundings: Surroundings) -> None:
        """Takes the app's name and what the edge needs."""
        super().__init__(app_name=app_name)
        self.operations: list[Operation] = []
        self._surroundings = surroundings
        self.register_middleware(_in_our_words, "http")

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """Serves one proxy event."""
        headers = {name: value for name, value in (event.get("headers") or {}).items() if name.lower() != "accept"}
        token = _event.set(event)
        try:
            answer: dict[str, Any] = super().__call__({**event, "headers": {**headers, "accept": "*/*"}}, context)
        finally:
            _event.reset(token)
        return answer

    def operation(self, operation: Operation) -> Callable[[View], View]:
        """Registers a view under a route."""

        def register(view: View) -> View:
            def serve(**_path_parameters: str) -> Response:
                return _response(edge.handle(operation, view, _event.get(), self._surroundings))

            # Chalice's own check of content types would come before anyone is authenticated: the edge does it.
            self.route(operation.path, methods=[operation.method], content_types=[], name=operation.name)(serve)
            self.operations.append(operation)
            return view

        return register

    def include(self, routes: Routes) -> None:
        """Serves routes that were declared elsewhere."""
        for operation, view in routes.declared:
            self.operation(operation)(view)


def _response(answer: HttpAnswer) -> Response:
    return Response(body=answer.body, status_code=answer.status, headers=dict(answer.headers))


def _in_our_words(request: object, get_response: Callable[[object], Response]) -> Response:
    response = get_response(request)
    if response.status_code < HTTPStatus.BAD_REQUEST or response.headers.get("Content-Type") == MEDIA_TYPE:
        return response
    allow = {name: str(value) for name, value in response.headers.items() if name.lower() == "allow" and value}
    kind = _OF_CHALICE.get(HTTPStatus(response.status_code), ProblemType.INTERNAL)
    if kind is ProblemType.METHOD_NOT_ALLOWED and not allow:
        kind = ProblemType.NOT_FOUND  # Chalice finds no method on a path that it does not know
    request_id = (_event.get().get("requestContext") or {}).get("requestId", "")
    return _response(edge.problem_answer(Problem(kind, None, problems.instance(request_id), headers=allow)))
