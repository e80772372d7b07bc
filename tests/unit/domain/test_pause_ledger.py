"""What the ledger makes silent, whatever became of the commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import ClockOffset
from dualtone.domain.ids import CallId
from dualtone.domain.pause_ledger import LedgerCommand, LiveCall, spans
from tests.call_samples import AGENT, CALL, TENANT

SECOND: Final = 1_000_000
ENDED: Final = 600 * SECOND


def command(number: int, action: str, at_s: float, **changed: Any) -> LedgerCommand:
    """A command that acted at a second of the call; the agent's clock is right."""
    at_us = int(at_s * SECOND)
    return replace(
        LedgerCommand(
            command=f"{action}-{number}",
            origin="cloud",
            number=number,
            action=action,
            cause="payment",
            by="endpoint:e1",
            received_at_ms=at_us // 1000,
            effective_at_ms=at_us // 1000,
            until_ms=None,
            lease_s=900,
            on_expiry="silent",
            outcome="acknowledged",
            from_us=at_us - 250_000,
            at_us=at_us,
            until_us=None,
        ),
        **changed,
    )


PAUSE: Final = command(1, "pause", 10)
RESUME: Final = command(2, "resume", 40)


@pytest.mark.parametrize(
    ("name", "commands", "silent"),
    [
        ("nothing", [], []),
        ("a pause and its resume", [PAUSE, RESUME], [(9.75, 40, "resume-2")]),
        ("in any order", [RESUME, PAUSE], [(9.75, 40, "resume-2")]),
        ("a pause that nobody ends", [PAUSE], [(9.75, 600, "")]),
        ("a resume of another cause ends nothing", [PAUSE, replace(RESUME, cause="manual")], [(9.75, 600, "")]),
        ("a resume alone", [RESUME], []),
        ("an explicit end", [replace(PAUSE, until_us=20 * SECOND)], [(9.75, 20, "")]),
        ("resumed before the explicit end", [replace(PAUSE, until_us=50 * SECOND), RESUME], [(9.75, 40, "resume-2")]),
        ("a span that ended before it began", [replace(PAUSE, until_us=5 * SECOND)], []),
        ("a lease, silent", [replace(PAUSE, lease_s=5)], [(9.75, 600, "")]),
        ("a lease, resumed", [replace(PAUSE, lease_s=5, on_expiry="resume")], [(9.75, 15, "")]),
        (
            "a lease, renewed",
            [replace(PAUSE, lease_s=5, on_expiry="resume"), command(2, "pause", 14, lease_s=5, on_expiry="resume")],
            [(9.75, 15, ""), (13.75, 19, "")],
        ),
        (
            "two causes overlap, each for itself",
            [PAUSE, command(2, "pause", 20, cause="manual"), command(3, "resume", 30)],
            [(9.75, 30, "resume-3"), (19.75, 600, "")],
        ),
        (
            "one resume ends both pauses of its cause",
            [PAUSE, command(2, "pause", 20), command(3, "resume", 30)],
            [(9.75, 30, "resume-3"), (19.75, 30, "resume-3")],
        ),
        (
            "a resume by LAN lifts the cause that the cloud set",
            [PAUSE, command(1, "resume", 30, origin="lan")],
            [(9.75, 30, "resume-1")],
        ),
        (
            "a superseded resume ends nothing",
            [PAUSE, command(2, "pause", 50), replace(RESUME, outcome="superseded", at_us=55 * SECOND)],
            [(9.75, 600, ""), (49.75, 600, "")],
        ),
        ("what came too late must be silent too", [replace(PAUSE, outcome="too_late")], [(9.75, 600, "")]),
        ("what nobody answered must be silent too", [replace(PAUSE, outcome=None)], [(9.75, 600, "")]),
        ("an agent that knows nothing of it changes nothing", [replace(PAUSE, outcome="unknown")], [(9.75, 600, "")]),
        (
            "numbers of an origin order what reckoned times do not",
            [replace(PAUSE, at_us=12 * SECOND), replace(RESUME, at_us=11 * SECOND)],
            [(9.75, 12, "resume-2")],
        ),
        (
            "a back-dated pause reaches behind an earlier resume",
            [PAUSE, RESUME, command(3, "pause", 60, from_us=30 * SECOND)],
            [(9.75, 40, "resume-2"), (30, 600, "")],
        ),
    ],
)
def test_what_is_silent(name: str, commands: list[LedgerCommand], silent: list[tuple[float, float, str]]) -> None:
    """Spans in seconds of the call, and what ended them."""
    found = spans(commands, ENDED)
    assert [(span.from_us / SECOND, span.to_us and span.to_us / SECOND, span.resumed_by) for span in found] == silent, (
        name
    )


def test_a_call_that_lasts_has_open_spans() -> None:
    """Nothing ends a silent pause but a word."""
    (span,) = spans([PAUSE], None)
    assert span.to_us is None
    assert span.acknowledged
    assert (span.cause, span.by, span.command, span.number, span.origin) == (
        "payment",
        "endpoint:e1",
        "pause-1",
        1,
        "cloud",
    )


COMMANDS = st.builds(
    command,
    st.integers(1, 30),
    st.sampled_from(["pause", "resume"]),
    st.integers(1, 500),
    cause=st.sampled_from(["payment", "manual"]),
    origin=st.sampled_from(["cloud", "lan", "agent"]),
    outcome=st.sampled_from([None, "acknowledged", "too_late", "superseded", "unknown"]),
    on_expiry=st.sampled_from(["silent", "resume"]),
    lease_s=st.integers(1, 100),
)
LEDGERS = st.lists(COMMANDS, max_size=8, unique_by=lambda each: (each.origin, each.number))


@given(LEDGERS, st.randoms(use_true_random=False))
def test_order_of_arrival_means_nothing(commands: list[LedgerCommand], chance: Any) -> None:
    """A ledger is a set."""
    mixed = list(commands)
    chance.shuffle(mixed)
    assert spans(commands, ENDED) == spans(mixed, ENDED)


@given(LEDGERS)
def test_every_pause_that_acted_is_silent_at_its_moment(commands: list[LedgerCommand]) -> None:
    """Whatever else is in the ledger: from where the gap was to begin up to when the command acted."""
    found = spans(commands, None)
    for pause in commands:
        if pause.action == "pause" and pause.outcome != "superseded":
            assert any(
                span.from_us <= pause.from_us and (span.to_us is None or span.to_us >= pause.at_us) for span in found
            )


@given(LEDGERS, COMMANDS)
def test_another_pause_never_makes_less_silent(commands: list[LedgerCommand], more: LedgerCommand) -> None:
    """Only a resume ends anything."""
    pause = replace(
        more, action="pause", number=31, outcome="acknowledged", at_us=max(c.at_us for c in [*commands, more])
    )
    before, after = spans(commands, ENDED), spans([*commands, pause], ENDED)
    assert all(span in after for span in before)


def test_reckoning_errs_on_the_side_of_silence() -> None:
    """Margin and doubt before a pause; doubt after a resume: the agent's clock is 3 s behind, give or take 40 ms."""
    clock = ClockOffset(offset_us=3 * SECOND, uncertainty_us=40_000)
    assert pause_ledger.from_us(100_000, clock) == 97 * SECOND - 250_000 - 40_000
    assert pause_ledger.not_before_us(100_000, clock) == 97 * SECOND + 40_000
    assert pause_ledger.true_ms(97 * SECOND, clock) == 100_000


@pytest.mark.parametrize(
    ("outcome", "known", "more"),
    [
        ("acknowledged", None, True),
        ("superseded", "acknowledged", False),
        ("acknowledged", "superseded", True),
        ("too_late", "acknowledged", True),
        ("acknowledged", "acknowledged", False),
    ],
)
def test_a_second_answer_hides_no_first_one(outcome: str, known: str | None, more: bool) -> None:
    """A command that is delivered twice is answered twice, the second time as superseded."""
    assert pause_ledger.outweighs(outcome, known) is more


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "ended_ms", "touches"),
    [
        (5_000, None, None, True),
        (50_000, None, 40_000, False),
        (40_200, None, 40_000, True),
        (5_000, 9_000, 40_000, False),
        (5_000, 9_900, 40_000, True),
        (20_000, 25_000, 40_000, True),
    ],
)
def test_which_calls_a_span_touches(from_ms: int, until_ms: int | None, ended_ms: int | None, touches: bool) -> None:
    """The call began at 10 s; margin and doubt of the clock count."""
    call = LiveCall(TENANT, CallId(CALL), AGENT, "live", 10_000, ended_ms, None, 1, b"", (), ClockOffset(0, 10_000))
    assert call.overlaps(from_ms, until_ms) is touches


def test_seconds_until_gone_count_from_receipt() -> None:
    """The only clock that the payment system and we share."""
    assert PAUSE.seconds_until_gone is None
    assert replace(PAUSE, received_at_ms=1_000, gone_at_ms=3_500).seconds_until_gone == 2.5
