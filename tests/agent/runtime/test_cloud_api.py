"""The way to the API: what is sent, what is believed, what is said when it fails."""

from __future__ import annotations

import socket

import pytest

from dualtone.domain.errors import MalformedInput, Unavailable
from sbc_agent.runtime.cloud_api import CloudApi, Refused
from tests.agent.runtime import web


def test_json_and_forms_are_posted() -> None:
    """The body and its type are as asked; the answer is the JSON object."""
    with web.serving(lambda path, body: (200, {"path": path})) as server:
        assert CloudApi().post_json(f"{server.url}/a", {"b": 1}) == {"path": "/a"}
        assert CloudApi().post_form(f"{server.url}/c", {"d": "e f&"}) == {"path": "/c"}
    assert server.requests == [
        ("/a", "application/json", '{"b": 1}'),
        ("/c", "application/x-www-form-urlencoded", "d=e+f%26"),
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_refusal_carries_status_and_problem_detail(status: int) -> None:
    """What RFC 9457 says in the answer reaches the user."""
    with web.serving(lambda *_: (status, {"title": "Forbidden", "detail": "this code is used"})) as server:
        with pytest.raises(Refused, match=f"the API answered {status} this code is used") as caught:
            CloudApi().post_json(server.url, {})
        assert caught.value.status == status


def test_a_refusal_without_problem_detail_has_the_statuss_phrase() -> None:
    """A bare 404 is told as such."""
    with web.serving(lambda *_: (404, b"<html>")) as server, pytest.raises(Refused, match="404 Not Found"):
        CloudApi().post_json(server.url, {})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_later_is_unavailable(status: int) -> None:
    """These answers pass; the caller tries again."""
    with web.serving(lambda *_: (status, {})) as server, pytest.raises(Unavailable):
        CloudApi().post_json(server.url, {})


def test_a_redirect_is_not_followed() -> None:
    """A one-time code is for the host that was named."""
    with (
        web.serving(lambda *_: (200, {})) as elsewhere,
        web.serving(lambda *_: (307, {}), {"Location": elsewhere.url}) as server,
        pytest.raises(Refused, match="307"),
    ):
        CloudApi().post_json(server.url, {})
    assert elsewhere.requests == []


@pytest.mark.parametrize("url", ["http://recorder.example.com/", "ftp://127.0.0.1/", "file:///etc/passwd"])
def test_nothing_but_https_leaves_the_machine(url: str) -> None:
    """Plain http goes to loopback alone."""
    with pytest.raises(MalformedInput, match="https"):
        CloudApi().post_json(url, {})


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"x" * 300_000])
def test_an_answer_that_is_no_object_is_malformed(body: bytes) -> None:
    """A captive portal's page is not taken for an answer."""
    with web.serving(lambda *_: (200, body)) as server, pytest.raises(MalformedInput):
        CloudApi().post_json(server.url, {})


def test_no_answer_is_told_with_its_reason() -> None:
    """Nobody listens: the host and the reason, in a few words."""
    with pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1: connection refused"):
        CloudApi().post_json("http://127.0.0.1:1/", {})


def test_a_silent_server_times_out() -> None:
    """A connection that is accepted and never answered ends by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(Unavailable, match="timed out"):
            CloudApi(timeout_s=0.05).post_json(url, {})


def test_get_asks_for_an_object() -> None:
    """Nothing is sent but the request."""
    with web.serving(lambda path, body: (200, {"path": path, "body": body})) as server:
        assert CloudApi().get_json(f"{server.url}/v1/health") == {"path": "/v1/health", "body": ""}
    assert server.requests == [("/v1/health", "", "")]
