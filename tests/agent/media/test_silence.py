"""Why a call is silent: a set of causes, numbered commands, leases; and the windows and spans that follow."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.media.clock import FOREVER
from sbc_agent.media.silence import CallPause, Lapse, Silence
from tests.agent.media.sealed_call import CALL


def pause(
    from_us: int,
    cause: str = "payment",
    *,
    until: int | None = None,
    lease: int | None = None,
    on_expiry: str = "silent",
) -> CallPause:
    return CallPause(cause, from_us, "cloud", CALL, 1, "someone", from_us, from_us, until, lease, on_expiry)


def test_a_call_is_heard_again_when_its_last_cause_is_gone() -> None:
    silence = Silence()
    silence.begin(pause(100))
    silence.begin(pause(200, "hold"))
    assert silence.causes == ("hold", "payment")
    silence.end("payment", 300, "a")
    assert silence.window(0) == (300, 199)
    silence.end("hold", 400, "b")
    assert (tuple(silence.causes), silence.window(0)) == ((), (400, FOREVER))
    assert silence.spans(0, 1_000) == [("hold", 200, 400), ("payment", 100, 300)]


def test_numbers_count_for_each_origin_and_cause_alone() -> None:
    """An old resume never reopens a newer pause, whoever repeats it; other origins and causes count for themselves."""
    silence = Silence()
    assert [silence.takes("cloud", "payment", number) for number in (5, 5, 4, 6)] == [True, False, False, True]
    assert silence.takes("lan", "payment", 1)
    assert silence.takes("cloud", "manual", 1)


def test_what_is_owed_to_a_pause_that_was_overtaken() -> None:
    """To the newer resume; to the one that is still to come where a newer pause was first; nothing when it was done."""
    silence = Silence()
    assert silence.takes("cloud", "payment", 2)
    assert silence.owed_until("cloud", "payment", 1) == FOREVER
    silence.lift("cloud", "payment", 3, 300, "a")
    assert silence.owed_until("cloud", "payment", 2) == 300
    silence.begin(pause(100))
    assert silence.owed_until("cloud", "payment", 1) is None


def test_a_resume_ends_all_pauses_of_its_cause_and_no_other() -> None:
    silence = Silence()
    for one in (pause(100), pause(150), pause(120, "manual")):
        silence.begin(one)
    silence.end("payment", 200, "a")
    assert silence.causes == ("manual",)
    assert silence.spans(0, 300) == [("manual", 120, 300), ("payment", 100, 200)]


def test_an_end_that_was_given_with_the_pause_is_kept_to_the_microsecond() -> None:
    silence = Silence()
    silence.begin(pause(100, until=250))
    assert silence.due_us == 250
    assert silence.pass_time(249) == []
    assert silence.causes == ("payment",)
    assert silence.pass_time(900) == []
    assert (silence.pauses[0].to_us, silence.pauses[0].resumed_by, silence.due_us) == (250, "until", FOREVER)


def test_a_lease_that_runs_out_follows_the_line() -> None:
    """Silent: it stays so, and that is told once. Resume: it ends with the lease."""
    silence = Silence()
    silence.begin(pause(100, lease=500))
    silence.begin(pause(100, "hold", lease=600, on_expiry="resume"))
    assert silence.pass_time(700) == [Lapse("payment", "silent", 500), Lapse("hold", "resume", 600)]
    assert silence.pass_time(800) == []
    assert silence.causes == ("payment",)
    assert [(one.to_us, one.resumed_by, one.lease_expired) for one in silence.pauses] == [
        (None, "", True),
        (600, "lease", True),
    ]


def test_another_pause_of_a_cause_renews_its_lease() -> None:
    silence = Silence()
    silence.begin(pause(100, lease=500))
    silence.begin(pause(400, lease=900))
    assert silence.pass_time(600) == []
    assert silence.pass_time(900) == [Lapse("payment", "silent", 900)]


def test_a_pause_that_is_taken_back_before_it_begins_silences_nothing() -> None:
    silence = Silence()
    silence.begin(pause(1_000))
    silence.end("payment", 500, "a")
    assert (silence.window(0), silence.spans(0, 5_000)) == ((0, FOREVER), [])


def test_the_end_of_the_call_ends_every_pause() -> None:
    silence = Silence()
    silence.begin(pause(100))
    silence.begin(pause(100, "hold", until=300))
    silence.begin(pause(100, "manual", until=900))
    silence.close(500)
    assert [(one.to_us, one.resumed_by) for one in silence.pauses] == [(500, ""), (300, ""), (500, "")]


@pytest.mark.parametrize(
    ("span", "is_covered"), [((100, 299), True), ((100, 300), False), ((99, 200), False), ((250, 260), True)]
)
def test_a_span_is_covered_where_pauses_touch(span: tuple[int, int], is_covered: bool) -> None:
    silence = Silence()
    silence.begin(pause(200, "hold", until=300))
    silence.begin(pause(100, until=200))
    silence.pass_time(1_000)
    assert silence.covers(*span) is is_covered


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from(["payment", "hold"])), max_size=8))
def test_spans_say_what_the_pauses_said(pauses: list[tuple[int, int, str]]) -> None:
    """Each moment is in a span of a cause if and only if a pause of that cause silenced it; spans never touch."""
    silence = Silence()
    for from_us, length, cause in pauses:
        silence.begin(pause(from_us, cause, until=from_us + length))
    silence.pass_time(1_000)
    spans = silence.spans(0, 1_000)
    for cause in ("payment", "hold"):
        mine = [(from_us, to_us) for one, from_us, to_us in spans if one == cause]
        assert {moment for span in mine for moment in range(*span)} == {
            moment for from_us, length, one in pauses if one == cause for moment in range(from_us, from_us + length)
        }
        assert all(before[1] < after[0] for before, after in itertools.pairwise(mine))
