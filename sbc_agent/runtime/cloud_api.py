"""HTTPS to the Dualtone API: JSON and forms out, JSON in. The only effect is the request.

https is verified against the system's certificates; plain http is spoken to loopback alone (the local cloud).
Redirects are not followed: what is sent here is a one-time code or a signed assertion, and belongs to nobody else.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput, PolicyViolation, Unavailable
from sbc_agent.runtime.config import is_loopback
from sbc_agent.runtime.system_errors import plain

_ANSWER_LIMIT_BYTES: Final = 1024 * 1024
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Refused(PolicyViolation):
    """The API answered with an error that asking again does not change.

    Attributes:
        status: The HTTP status.
        title: The title of the problem detail (RFC 9457), or the status's own phrase.
        type: The problem's type, empty if it has none.
    """

    def __init__(self, status: int, title: str, problem_type: str = "") -> None:
        super().__init__(f"the API answered {status} {title}")
        self.status = status
        self.title = title
        self.type = problem_type


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class CloudApi:
    """Speaks to one API.

    Args:
        timeout_s: How long to wait for a connection and for each read.
    """

    def __init__(self, *, timeout_s: float = 15.0) -> None:
        self._timeout_s = timeout_s
        direct: list[urllib.request.BaseHandler] = [
            _NoRedirect(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        ]
        self._proxied = urllib.request.build_opener(*direct)
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), *direct)

    def post_json(self, url: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Posts a JSON object; see :meth:`post_form` for what it returns and raises."""
        return self._post(url, json.dumps(body).encode(), "application/json")

    def post_form(self, url: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Posts a form.

        Returns:
            The JSON object of a 2xx answer.

        Raises:
            Refused: The API said no.
            Unavailable: No answer, or one that says "later".
            MalformedInput: The URL may not be used, or the answer is no JSON object.
        """
        return self._post(url, urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def get_json(self, url: str) -> dict[str, Any]:
        """Asks for a JSON object; see :meth:`post_form` for what it returns and raises."""
        return self._exchange(url, None, {})

    def _post(self, url: str, data: bytes, content_type: str) -> dict[str, Any]:
        return self._exchange(url, data, {"Content-Type": content_type})

    def _exchange(self, url: str, data: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        loopback = is_loopback(host)
        if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
            raise MalformedInput("the API is reached by https; plain http is for loopback alone")
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            url, data, {**headers, "Accept": "application/json"}, method="GET" if data is None else "POST"
        )
        opener = self._direct if loopback else self._proxied
        try:
            with opener.open(request, timeout=self._timeout_s) as response:
                body = response.read(_ANSWER_LIMIT_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"no answer from {host}: {_plain(error)}") from error
        if len(body) > _ANSWER_LIMIT_BYTES:
            raise MalformedInput("the API's answer is too long")
        value = canonical.decode(body)
        if not isinstance(value, dict):
            raise MalformedInput("the API's answer is no JSON object")
        return value


def _refusal(error: urllib.error.HTTPError) -> Refused | Unavailable:
    if error.code in _TRY_AGAIN:
        return Unavailable(f"the API answered {error.code}")
    title, problem_type = http.client.responses.get(error.code, "error"), ""
    try:
        problem = json.loads(error.read(_ANSWER_LIMIT_BYTES))
        title = str(problem.get("detail") or problem.get("title") or title)[:200]
        problem_type = str(problem.get("type", ""))[:200]
    except (ValueError, AttributeError, OSError):
        pass  # a problem detail is a courtesy; the status is the answer
    return Refused(error.code, title, problem_type)


def _plain(error: BaseException) -> str:
    """The reason of a failed connection in a few words."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate does not verify ({reason.verify_message})"
    return plain(reason) if isinstance(reason, OSError) else type(reason).__name__
