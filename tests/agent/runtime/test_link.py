"""The link: who may send when, and how long it is left alone after what."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from dualtone.domain.errors import DualtoneError, PolicyViolation, Unavailable
from sbc_agent.runtime.link import Link

URL = "https://bucket.example"
CODE = "SlowDown"


def caused(error: DualtoneError, cause: Exception | None) -> DualtoneError:
    error.__cause__ = cause
    return error


def busy() -> DualtoneError:
    answer = ClientError({"Error": {"Code": CODE}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject")  # type: ignore[typeddict-item]
    return caused(Unavailable("answered 503"), answer)


def broken() -> DualtoneError:
    return caused(Unavailable("x"), ConnectionClosedError(endpoint_url=URL))


def unreachable() -> DualtoneError:
    return caused(Unavailable("x"), EndpointConnectionError(endpoint_url=URL))


def failing(link: Link, error: DualtoneError, times: int) -> float:
    """Fails so often, each time as soon as it may; returns how long it is left alone in the end."""
    now, wait_s = 0.0, 0.0
    for _ in range(times):
        wait_s = link.failed(error, now) or 0.0
        now += wait_s
    return wait_s


@pytest.mark.parametrize(
    ("error", "word", "reason", "longest_s"),
    [
        (broken(), "down", "ConnectionClosedError", 5),
        (unreachable(), "down", "EndpointConnectionError", 30),
        (busy(), "down", CODE, 300),
        (Unavailable("the token endpoint"), "down", "Unavailable", 300),
        (PolicyViolation("revoked"), "refused", "PolicyViolation", 300),
    ],
)
def test_how_long_it_is_left_alone(error: DualtoneError, word: str, reason: str, longest_s: float) -> None:
    """A network that broke is tried soon, one that is not there often, whoever says no or later seldom."""
    link = Link(lambda: 1.0)
    assert failing(link, error, 20) == longest_s
    assert (link.word, link.reason, link.failures) == (word, reason, 20)


def test_a_hundred_breaks_in_a_row_cost_minutes_not_hours() -> None:
    """What keeps breaking is tried on, with no more than five seconds between."""
    link, now = Link(lambda: 1.0), 0.0
    for _ in range(100):
        now += link.failed(broken(), now) or 0.0
    assert now < 100 * 5


def test_the_limit_is_that_of_the_last_failure() -> None:
    """After hours of refusals a connection that breaks is tried again soon."""
    link = Link(lambda: 1.0)
    failing(link, busy(), 20)
    assert link.failed(broken(), 1e6) == 5


def test_one_probes_and_opens_the_way_for_all() -> None:
    """Down, nobody sends before its time, then one; a success lets everybody send."""
    link = Link(lambda: 1.0)
    assert link.may_send(0)
    assert link.failed(broken(), 0) == 1
    assert link.failed(broken(), 0.5) is None, "another thread has met the same failure"
    assert not link.may_send(0.9)
    assert link.not_before == 1
    assert link.may_send(1)
    link.probing = True
    assert not link.may_send(1)
    assert link.not_before is None
    assert link.succeeded()
    assert link.may_send(1)
    assert (link.word, link.reason, link.retry_s(0)) == ("up", "", 0)
    assert not link.succeeded()


def test_nobody_has_to_wait_who_is_about_to_leave() -> None:
    """A drain tries a lost link at once."""
    link = Link(lambda: 1.0)
    link.failed(unreachable(), 0)
    assert link.retry_s(0) == 1
    link.probe_now(0.1)
    assert link.may_send(0.1)
