"""Which pauses leave something to cut, of which span, and which seconds of a recording hold it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.audio.g711 import CLOCK_HZ
from dualtone.domain.audio.placement import TOLERANCE, Anchor
from dualtone.domain.audio.timeline import FRAME
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, LiveCall
from dualtone.usecases.cut_paused_spans import late_pauses
from dualtone.usecases.puncture_recording import CODEC_REACH_MS, PLACED_LATER_MS, Times
from tests.call_samples import AGENT, ANSWERED_US, CALL, TENANT
from tests.pause_samples import at

PAUSE: Final = LedgerCommand(
    command="01JD0000000000000000C00001",
    origin="cloud",
    number=1,
    action="pause",
    cause="payment",
    by="endpoint:pay_1",
    received_at_ms=at(9) // 1000,
    effective_at_ms=at(3.35) // 1000,
    until_ms=None,
    lease_s=900,
    on_expiry="silent",
    outcome="too_late",
    from_us=at(3.1),
    at_us=at(9),
    until_us=None,
)
RESUME: Final = replace(
    PAUSE, command="01JD0000000000000000C00002", number=2, action="resume", outcome="acknowledged", at_us=at(11)
)


def live(state: str, ended_s: float | None) -> LiveCall:
    ended_us = None if ended_s is None else at(ended_s)
    return LiveCall(
        tenant=TENANT,
        call_id=CALL,
        agent_id=AGENT,
        state=state,
        started_at_ms=ANSWERED_US // 1000,
        ended_at_ms=None if ended_us is None else ended_us // 1000,
        ended_at_us=ended_us,
        revision=1,
        sealed=b"",
        causes=(),
        clock=ClockOffset(0, 0),
    )


def ledger(*commands: LedgerCommand, state: str = "spooled", ended_s: float | None = 12) -> Ledger:
    return Ledger(version=1, commands=commands, live=live(state, ended_s), last_number=2)


RUNNING: Final[dict[str, Any]] = {"state": "live", "ended_s": None}


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("too late, still paused", ledger(PAUSE, **RUNNING), [(3.1, 9)]),
        ("too late, resumed since", ledger(PAUSE, RESUME, **RUNNING), [(3.1, 9)]),
        ("too late, over before it was told", ledger(replace(PAUSE, until_us=at(5)), **RUNNING), [(3.1, 5)]),
        ("too late, after the end", ledger(PAUSE), [(3.1, 9)]),
        ("in time", ledger(replace(PAUSE, outcome="acknowledged")), []),
        ("superseded", ledger(replace(PAUSE, outcome="superseded")), []),
        ("unanswered while it lasts", ledger(replace(PAUSE, outcome=None), **RUNNING), []),
        ("unanswered, over", ledger(replace(PAUSE, outcome=None)), [(3.1, 12)]),
        ("unanswered, over, with an end", ledger(replace(PAUSE, outcome=None, until_us=at(5))), [(3.1, 5)]),
        ("unknown to the agent", ledger(replace(PAUSE, outcome="unknown")), [(3.1, 12)]),
        ("a resume alone", ledger(RESUME), []),
        ("of a call that no agent reported", replace(ledger(replace(PAUSE, outcome=None)), live=None), [(3.1, None)]),
    ],
)
def test_what_is_cut(name: str, found: Ledger, expected: list[tuple[float, float | None]]) -> None:
    """What may be stored somewhere, and no more: seconds beside it cannot be brought back."""
    spans = [(span.from_us, span.to_us) for _command, span in late_pauses(found)]
    assert spans == [(at(first), None if last is None else at(last)) for first, last in expected], name


TIMES: Final = Times(
    started_at_ms=ANSWERED_US // 1000,
    answered_at_ms=ANSWERED_US // 1000,
    ended_at_ms=at(12) // 1000,
    duration_ms=12_000,
    segment_ms=1000,
)


@pytest.mark.parametrize(
    ("name", "from_s", "to_s", "expected"),
    [
        ("outward to whole segments", 3.1, 6.4, (3, 6)),
        ("within one", 3.1, 3.2, (3, 3)),
        ("over the encoder's look-ahead before it", 3.01, 3.5, (2, 3)),
        ("over the packet that overlaps behind it", 3.5, 3.99, (3, 4)),
        ("over what lies later than it arrived", 3.5, 3.8, (3, 4)),
        ("on the edges", 3, 4, (2, 4)),
        ("from before the recording", -5, 0.5, (0, 0)),
        ("beyond its end", 11.5, 40, (11, 12)),
        ("before it", -5, -1, None),
        ("after it", 14, 15, None),
    ],
)
def test_which_segments_hold_a_span(name: str, from_s: float, to_s: float, expected: tuple[int, int] | None) -> None:
    """The thirteenth holds the encoder's last 6.5 ms."""
    assert TIMES.segments(at(from_s), at(to_s), 13) == expected, name


@given(st.integers(0, 12_000_000), st.integers(0, 12_000_000), st.sampled_from([1000, 20, 60_000]))
def test_no_sample_of_a_span_lies_outside_its_segments(from_us: int, length_us: int, segment_ms: int) -> None:
    """With 20 ms to spare on both sides, and what placement may be off at the end, whatever was rounded."""
    times = replace(TIMES, segment_ms=segment_ms)
    count = -(-12_007 // segment_ms)
    found = times.segments(ANSWERED_US + from_us, ANSWERED_US + from_us + length_us, count)
    assert found is not None
    first, last = found
    assert first * segment_ms * 1000 <= max(from_us - 1000 * CODEC_REACH_MS, 0)
    reach_us = 1000 * (PLACED_LATER_MS + CODEC_REACH_MS)
    assert (last + 1) * segment_ms * 1000 > from_us + length_us + reach_us or last == count - 1


def test_a_span_reaches_as_far_as_a_packet_may_lie_after_its_arrival() -> None:
    """A source whose first second came 150 ms slower than the rest lies 150 ms late ever after; 200 are the most."""
    assert PLACED_LATER_MS * CLOCK_HZ == TOLERANCE * 1000
    sent = np.arange(500, dtype=np.int64) * FRAME
    arrival = sent + np.where(sent < CLOCK_HZ * 3 // 2, CLOCK_HZ * 15 // 100, 0)
    later = Anchor().place(sent.astype(np.uint32), arrival) - arrival
    assert later.max() == CLOCK_HZ * 15 // 100
