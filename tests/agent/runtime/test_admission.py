"""Whether one more call is taken."""

import pytest

from sbc_agent.runtime.admission import Admission, Capacity, Queue, Standing

QUICK = Standing(late_s=0.04, for_s=0.25, again_s=0.05, known_s=0.25)
SLOW = Standing(late_s=0.5, for_s=0.9, again_s=0.9, known_s=2.5)


def test_as_many_calls_as_were_set_and_no_more() -> None:
    """The bound counts calls that live now."""
    calls = 1
    admission = Admission(Capacity(2), lambda: calls)
    assert admission.refusal(0.0) is None
    calls = 2
    assert admission.refusal(0.0) == "max_calls"
    calls = 1
    assert admission.refusal(0.0) is None


def test_without_a_bound_calls_are_not_counted() -> None:
    """0 leaves it to the ports."""
    assert Admission(Capacity(0), lambda: 1_000_000).refusal(0.0) is None


@pytest.mark.parametrize("queue", ["sip_late", "loop_late"])
def test_messages_that_stand_refuse_calls_until_one_is_in_time(queue: Queue) -> None:
    """A burst that is worked off refuses nobody; work that stands for a quarter of a second does."""
    admission = Admission(Capacity(sip=QUICK), lambda: 0)
    for step in range(3):
        admission.served(queue, 0.1, 1.0 + step / 10)
    assert admission.refusal(1.2) is None
    admission.served(queue, 0.3, 1.3)
    assert admission.refusal(1.3) == queue
    admission.served(queue, 0.01, 1.31)
    assert admission.refusal(1.31) is None


def test_a_queue_that_stood_a_moment_ago_is_believed_sooner() -> None:
    """Under an overload that lasts, what waits stays short; long afterwards a burst refuses nobody again."""
    admission = Admission(Capacity(sip=QUICK), lambda: 0)
    for at in (1.0, 1.2, 1.4):
        admission.served("sip_late", 0.1, at)
    assert admission.refusal(1.4) == "sip_late"
    admission.served("sip_late", 0.01, 1.5)
    admission.served("sip_late", 0.1, 1.6)
    assert admission.refusal(1.6) is None
    admission.served("sip_late", 0.1, 1.7)
    assert admission.refusal(1.7) == "sip_late"
    admission.served("sip_late", 0.01, 1.8)
    for at in (20.0, 20.1):
        admission.served("sip_late", 0.1, at)
    assert admission.refusal(20.1) is None


def test_what_was_late_and_is_not_heard_of_again_is_forgotten() -> None:
    """A queue in which nothing is served any more is empty."""
    admission = Admission(Capacity(sip=QUICK), lambda: 0)
    admission.served("sip_late", 0.1, 1.0)
    admission.served("sip_late", 0.1, 1.3)
    assert admission.refusal(1.3) == "sip_late"
    assert admission.refusal(1.6) is None


def test_a_media_process_that_is_late_again_and_again_refuses_calls() -> None:
    """One slow tick is no overload; two reports in a row are, until one is in time or none has come for long."""
    admission = Admission(Capacity(media=SLOW), lambda: 0)
    admission.served("media_late", 0.8, 10.0)
    assert admission.refusal(10.1) is None
    admission.served("media_late", 0.8, 11.0)
    assert admission.refusal(11.0) == "media_late"
    assert admission.refusal(13.0) == "media_late"
    admission.served("media_late", 0.1, 13.1)
    assert admission.refusal(13.1) is None
