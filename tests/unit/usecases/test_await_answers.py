"""Waiting for agents: as long as it is worth it, and the gravest outcome counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dualtone.domain import pause_order
from dualtone.domain.agent_events import ClockOffset, SilentFrom
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, LiveCall
from dualtone.usecases.await_answers import AwaitAnswers, CallAnswer, overall
from dualtone.usecases.command_calls import Issued
from tests.call_samples import AGENT, CALL, TENANT

NOW = 2_000_000_000_000
OTHER = CallId("01JD00000000000000000CA111")
ORDER = pause_order.pause(
    command="01JD0000000000000000000000",
    cause="payment",
    by="endpoint:e",
    received_at_ms=NOW,
    effective_at_ms=NOW - 900,
)


@dataclass
class Scene:
    """Ledgers and a clock: what happens after so many milliseconds."""

    script: dict[int, Callable[[Scene], None]] = field(default_factory=dict)
    elapsed_ms: int = 0
    entries: dict[CallId, LedgerCommand] = field(default_factory=dict)
    causes: tuple[str, ...] = ()

    def now_ms(self) -> int:
        return NOW + self.elapsed_ms

    def wait_ms(self, duration_ms: int) -> None:
        self.elapsed_ms += duration_ms
        for at_ms in [at_ms for at_ms in self.script if at_ms <= self.elapsed_ms]:
            self.script.pop(at_ms)(self)

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        entry = self.entries.get(call)
        live = LiveCall(TENANT, call, AGENT, "live", NOW, None, None, 1, b"", self.causes, ClockOffset(-500_000, 9))
        return Ledger(1, (entry,) if entry else (), live)

    def command(self, tenant: TenantId, call: CallId, origin: str, number: int) -> LedgerCommand | None:
        return self.entries.get(call)

    def answer(self, call: CallId, outcome: str, **more: Any) -> None:
        self.entries[call] = replace(self.entries[call], outcome=outcome, causes=("payment",), **more)


def scene(*calls: CallId, script: dict[int, Callable[[Scene], None]] | None = None) -> Scene:
    return Scene(script or {}, entries={call: ORDER.for_ledger(number) for number, call in enumerate(calls, 7)})


def wait(place: Scene, *issued: Issued) -> list[CallAnswer]:
    return AwaitAnswers(place, place).wait(TENANT, ORDER, issued)


def test_the_answer_is_given_as_soon_as_it_is_there() -> None:
    """With the gap's beginning in true time."""
    acked = scene(
        CALL,
        script={
            200: lambda one: one.answer(
                CALL,
                "acknowledged",
                from_us=1000 * (NOW - 900) + 250_000,
                at_us=1000 * NOW,
                silent_from=(SilentFrom(0, 160, 1000 * NOW),),
            )
        },
    )
    (answer,) = wait(acked, Issued(CALL, 7, "live"))
    assert (answer.outcome, answer.paused, answer.causes) == ("acknowledged", True, ("payment",))
    assert answer.gap_started_at_ms == NOW - 900 + 250 - 500
    assert (answer.silent_from[0].rtp_timestamp, answer.silent_from[0].at_ms) == (160, NOW - 500)
    assert acked.elapsed_ms == 225


def test_three_seconds_and_no_longer() -> None:
    """For all calls together."""
    silent = scene(CALL, OTHER)
    answers = wait(silent, Issued(CALL, 7, "live"), Issued(OTHER, 8, "live"))
    assert [answer.outcome for answer in answers] == ["requested", "requested"]
    assert [answer.paused for answer in answers] == [None, None]
    assert silent.elapsed_ms == 3_000


@pytest.mark.parametrize("outcome", ["too_late", "unknown"])
def test_a_late_one_is_waited_for_until_its_last_copy_is_gone(outcome: str) -> None:
    """Ten more seconds at most."""
    late = scene(
        CALL,
        script={
            500: lambda one: one.answer(CALL, outcome),
            4_000: lambda one: one.answer(CALL, outcome, gone_at_ms=NOW + 3_950),
        },
    )
    (answer,) = wait(late, Issued(CALL, 7, "live"))
    assert (answer.outcome, answer.seconds_until_gone) == ("too_late", 3.95)
    assert late.elapsed_ms < 4_200
    stubborn = scene(CALL, script={500: lambda one: one.answer(CALL, outcome)})
    (answer,) = wait(stubborn, Issued(CALL, 7, "live"))
    assert (answer.outcome, answer.seconds_until_gone) == ("too_late", None)
    assert 10_500 <= stubborn.elapsed_ms <= 10_700


def test_a_call_on_the_agents_disk_is_late_by_itself() -> None:
    """Nobody need say so."""
    (answer,) = wait(scene(CALL), Issued(CALL, 7, "spooled"))
    assert answer.outcome == "too_late"


def test_nothing_is_waited_for_where_nothing_was_sent() -> None:
    """An overtaken resume; no call at all."""
    place = scene()
    place.causes = ("payment",)
    (answer,) = wait(place, Issued(CALL, None, "live"))
    assert (answer.outcome, answer.paused, answer.causes) == ("superseded", True, ("payment",))
    assert wait(place) == []
    assert place.elapsed_ms == 0


def answered(outcome: str, state: str = "live") -> CallAnswer:
    return CallAnswer(CALL, state, "c", outcome, (), None, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([], "pending"),
        ([answered("acknowledged")], "acknowledged"),
        ([answered("acknowledged"), answered("requested")], "requested"),
        ([answered("acknowledged"), answered("too_late")], "too_late"),
        ([answered("too_late"), answered("requested")], "requested"),
        ([answered("acknowledged"), answered("superseded")], "superseded"),
        ([answered("acknowledged"), answered("too_late", "ended")], "acknowledged"),
        ([answered("too_late", "ended"), answered("requested", "spooled")], "requested"),
    ],
)
def test_the_gravest_outcome_of_live_calls_counts(answers: list[CallAnswer], outcome: str) -> None:
    """A call that is over is no concern of a page that is about to open."""
    assert overall(answers) == outcome
