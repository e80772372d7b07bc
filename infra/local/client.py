"""A small client of the public API, for the demo and the end-to-end tests: what a customer's script would do."""

from __future__ import annotations

import json
from typing import Any, Final

import requests

_TIMEOUT_S: Final = 35


class ApiProblem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """The API answered with an error.

    Attributes:
        status: The HTTP status.
        problem: The problem detail, empty if there was none.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"HTTP {status}: {problem.get('title') or problem.get('message') or 'no problem detail'}")
        self.status = status
        self.problem = problem


class ApiClient:
    """Speaks to one API with one access token.

    Args:
        base: The API's base URL.
        token: An access token, or None to go without.
        verify: A certificate file to trust instead of the system's, for an agent's own endpoint.
    """

    def __init__(self, base: str, token: str | None = None, *, verify: str | bool = True) -> None:
        self._base = base.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = verify
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        """GETs JSON; raises ApiProblem."""
        return self._json(self.request("GET", path, params=query))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POSTs JSON and returns the answer's JSON; raises ApiProblem."""
        return self._json(self.request("POST", path, json=body))

    def put(self, path: str, body: dict[str, Any], *, if_match: str) -> dict[str, Any]:
        """PUTs JSON in place of one version (RFC 9110 section 13.1.1) and returns the answer's; raises ApiProblem."""
        return self._json(self.request("PUT", path, json=body, headers={"If-Match": if_match}))

    def status(self, path: str) -> int:
        """The status that a GET is answered with."""
        return self.request("GET", path).status_code

    def audio(self, recording_id: str) -> bytes:
        """Fetches a recording's Ogg/Opus file, range by range; raises ApiProblem."""
        data = b""
        total = 1
        while len(data) < total:
            answer = self.request(
                "GET", f"/v1/recordings/{recording_id}/audio", headers={"Range": f"bytes={len(data)}-"}
            )
            if answer.status_code != requests.codes.partial_content:
                raise _problem(answer)
            data += answer.content
            total = int(answer.headers["Content-Range"].rpartition("/")[2])
        return data

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request, whatever the answer."""
        return self._session.request(method, self._base + path, timeout=_TIMEOUT_S, **options)

    @staticmethod
    def _json(answer: requests.Response) -> dict[str, Any]:
        if not answer.ok:
            raise _problem(answer)
        value: dict[str, Any] = answer.json()
        return value


def _problem(answer: requests.Response) -> ApiProblem:
    try:
        problem = answer.json()
    except (json.JSONDecodeError, requests.exceptions.JSONDecodeError):
        problem = {}
    return ApiProblem(answer.status_code, problem if isinstance(problem, dict) else {})
