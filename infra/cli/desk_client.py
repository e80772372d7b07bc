"""The agent's LAN endpoint as a desk sees it: HTTPS to one certificate, with the desk's own token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from infra.cli.desk_settings import DeskSettings
from infra.local.client import ApiProblem

WAIT_S: Final = 25
_CONNECT_S: Final = 5.0
_READ_S: Final = 10.0

Json = dict[str, Any]


class _Pinned(HTTPAdapter):
    """Speaks to the certificate with one fingerprint, whatever names stand in it."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the library's own signature
        """Hands the fingerprint on."""
        super().init_poolmanager(*arguments, **options, assert_fingerprint=self._fingerprint)


class DeskClient:
    """Speaks to one agent.

    Every method raises ApiProblem if it refuses and ``requests.RequestException`` if it does not answer.

    Args:
        settings: Which agent, with which token.
    """

    def __init__(self, settings: DeskSettings) -> None:
        self._base = f"{settings.agent}/v1/desk"
        self._tag = ""
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between a desk and its agent, and no .netrc in place of its token
        self._session.verify = False  # the fingerprint is verified instead, at every connection
        self._session.mount("https://", _Pinned(settings.fingerprint))
        self._session.headers["Authorization"] = f"Bearer {settings.token}"

    def calls(self) -> Json:
        """The desk's live calls."""
        return self._json(self._ask("GET", "calls", _READ_S))

    def news(self) -> Json | None:
        """The desk's live calls when they have changed since the last question; None if they have not for a while."""
        headers = {"If-None-Match": self._tag, "Prefer": f"wait={WAIT_S}"} if self._tag else {}
        answer = self._ask("GET", "calls", _READ_S + WAIT_S, headers=headers)
        if answer.status_code == requests.codes.not_modified:
            return None
        found = self._json(answer)
        self._tag = answer.headers.get("ETag", "")
        return found

    def act(self, verb: str, call_id: str | None) -> Json:
        """Pauses, resumes, keeps, or marks as personal."""
        return self._json(self._ask("POST", verb, _READ_S, json={"call_id": call_id} if call_id else {}))

    def _ask(self, method: str, path: str, read_s: float, **sent: Mapping[str, str]) -> requests.Response:
        return self._session.request(
            method,
            f"{self._base}/{path}",
            timeout=(_CONNECT_S, read_s),
            allow_redirects=False,
            headers=sent.get("headers"),
            json=sent.get("json"),
        )

    @staticmethod
    def _json(answer: requests.Response) -> Json:
        try:
            body = answer.json()
        except requests.exceptions.JSONDecodeError:
            body = {}
        if not answer.ok:
            raise ApiProblem(answer.status_code, body if isinstance(body, dict) else {})
        value: Json = body
        return value
