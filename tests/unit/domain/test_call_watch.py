"""When a call has gone silent, and what is done about it: the table of the rules, row by row, on a clock of its own."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import call_watch
from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.call_watch import HOUR_MS, Rules, Signs, Step, StoredFile, Watch, next_step
from tests.call_samples import AGENT, CALL, TENANT

MINUTE: Final = 60_000
DAY: Final = 24 * HOUR_MS
NOW: Final = 2_000_000_000_000
RULES: Final = Rules(interrupted_after_ms=5 * MINUTE, finalize_after_ms=72 * HOUR_MS)


def watch(silent_ms: int = 0, *, interrupted: bool = False, asked_for_ms: int | None = None) -> Watch:
    """A call that was last heard of so long ago."""
    return Watch(TENANT, AGENT, CALL, NOW - silent_ms, NOW, NOW - silent_ms if interrupted else None, asked_for_ms)


def part(ago_ms: int) -> StoredFile:
    """A part that arrived so long ago."""
    return StoredFile("part-00-000000.dtp", NOW - ago_ms)


def manifest(ago_ms: int) -> StoredFile:
    """A manifest that arrived so long ago."""
    return StoredFile(MANIFEST_NAME, NOW - ago_ms)


SILENT: Final = 73 * HOUR_MS
ROWS: Final[list[tuple[str, Watch, Signs, Step]]] = [
    ("young", watch(), Signs(None, (), None), Step.WAIT),
    ("its agent tells of it", watch(6 * MINUTE), Signs(NOW - MINUTE, None, None), Step.WAIT),
    (
        "parts arrive, whatever became of the agent's events",
        watch(HOUR_MS),
        Signs(None, (part(MINUTE),), None),
        Step.WAIT,
    ),
    ("silent for minutes", watch(6 * MINUTE), Signs(None, (), None), Step.INTERRUPT),
    ("its agent was silent too", watch(6 * MINUTE), Signs(NOW - 6 * MINUTE, (), None), Step.INTERRUPT),
    ("silent for long, and was never marked", watch(HOUR_MS), Signs(None, (part(HOUR_MS),), None), Step.INTERRUPT),
    ("still silent", watch(HOUR_MS, interrupted=True), Signs(None, (part(HOUR_MS),), None), Step.WAIT),
    ("told of again", watch(HOUR_MS, interrupted=True), Signs(NOW - 1, (), None), Step.HEARD_AGAIN),
    ("a part after all", watch(HOUR_MS, interrupted=True), Signs(None, (part(MINUTE),), None), Step.HEARD_AGAIN),
    ("72 hours", watch(SILENT, interrupted=True), Signs(None, (part(SILENT),), None), Step.FINALIZE),
    ("72 hours, never marked", watch(SILENT), Signs(None, (part(SILENT),), None), Step.FINALIZE),
    ("72 hours, but a part came yesterday", watch(SILENT), Signs(None, (part(DAY),), None), Step.INTERRUPT),
    ("72 hours, and nothing came", watch(SILENT, interrupted=True), Signs(None, (), None), Step.FORGET),
    ("asked already", watch(SILENT, asked_for_ms=NOW - SILENT), Signs(None, (part(SILENT),), None), Step.INTERRUPT),
    (
        "finalised, and nothing came since",
        watch(SILENT, interrupted=True),
        Signs(None, (part(SILENT),), NOW - HOUR_MS),
        Step.WAIT,
    ),
    (
        "finalised, a part came later, and 72 hours of silence",
        watch(SILENT, interrupted=True, asked_for_ms=NOW - 2 * SILENT),
        Signs(None, (part(2 * SILENT), part(SILENT)), NOW - 2 * SILENT + HOUR_MS),
        Step.FINALIZE,
    ),
    (
        "finalised, a part came in that very second",
        watch(SILENT, interrupted=True, asked_for_ms=NOW - 2 * SILENT),
        Signs(None, (part(SILENT),), NOW - SILENT + 999),
        Step.FINALIZE,
    ),
    ("recorded as a whole", watch(6 * MINUTE), Signs(None, (), NOW - MINUTE), Step.FORGET),
    ("recorded, its files are being deleted", watch(6 * MINUTE), Signs(None, (part(DAY),), NOW - MINUTE), Step.WAIT),
    ("complete, and with the finaliser", watch(6 * MINUTE), Signs(None, (manifest(6 * MINUTE),), None), Step.WAIT),
    ("complete, and nobody cared for days", watch(SILENT), Signs(None, (manifest(SILENT),), None), Step.FINALIZE),
    (
        "recorded as damaged, then a missing part came",
        watch(DAY),
        Signs(None, (manifest(DAY), part(MINUTE)), NOW - DAY + MINUTE),
        Step.FINALIZE,
    ),
    (
        "its agent keeps telling, but its first part is about to expire",
        watch(),
        Signs(NOW, (part(12 * DAY), part(DAY)), None),
        Step.FINALIZE,
    ),
]


@pytest.mark.parametrize(("before", "signs", "step"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_rules(before: Watch, signs: Signs, step: Step) -> None:
    """Each row of the table, and what is to be said of the call afterwards."""
    decided, after = next_step(before, signs, NOW, RULES)
    assert decided is step
    if step is not Step.FORGET:
        assert after.due_at_ms > NOW
        assert after.heard_at_ms >= before.heard_at_ms
        marked = {Step.INTERRUPT: NOW, Step.HEARD_AGAIN: None}.get(step, before.interrupted_at_ms)
        assert after.interrupted_at_ms == marked
        assert after.asked_for_ms == (signs.newest_ms if step is Step.FINALIZE else before.asked_for_ms)


def test_a_call_that_lasts_is_looked_at_when_it_could_be_silent_for_long_enough() -> None:
    """Not before, and hardly later."""
    begun = call_watch.begun(TENANT, AGENT, CALL, NOW, RULES)
    assert begun.due_at_ms == NOW + RULES.interrupted_after_ms
    step, after = next_step(begun, Signs(NOW + 4 * MINUTE, None, None), begun.due_at_ms, RULES)
    assert (step, after.due_at_ms) == (Step.WAIT, NOW + 9 * MINUTE)


def test_an_agents_word_is_enough_while_a_call_is_not_interrupted() -> None:
    """Then nothing is listed; a call that was interrupted is looked at in any case."""
    assert call_watch.is_told_of(watch(HOUR_MS), NOW - MINUTE, NOW, RULES)
    assert not call_watch.is_told_of(watch(HOUR_MS), NOW - 5 * MINUTE, NOW, RULES)
    assert not call_watch.is_told_of(watch(HOUR_MS), None, NOW, RULES)
    assert not call_watch.is_told_of(watch(HOUR_MS, interrupted=True), NOW, NOW, RULES)


TIMES = st.integers(min_value=NOW - 20 * DAY, max_value=NOW)
FILES = st.lists(st.builds(StoredFile, st.sampled_from([MANIFEST_NAME, "part-00-000001.dtp"]), TIMES), max_size=4)


@given(
    heard=TIMES,
    told=st.none() | TIMES,
    files=FILES.map(tuple),
    recorded=st.none() | TIMES,
    interrupted=st.none() | TIMES,
    asked=st.none() | TIMES,
)
def test_no_call_is_asked_for_twice_without_news(
    heard: int,
    told: int | None,
    files: tuple[StoredFile, ...],
    recorded: int | None,
    interrupted: int | None,
    asked: int | None,
) -> None:
    """Whatever the signs: the same ones never ask again, and no call is forgotten while files of it lie there."""
    before = Watch(TENANT, AGENT, CALL, heard, NOW, interrupted, asked)
    signs = Signs(told, files, recorded)
    step, after = next_step(before, signs, NOW, RULES)
    if step is Step.FINALIZE:
        assert next_step(after, signs, after.due_at_ms, RULES)[0] is not Step.FINALIZE
    if files:
        assert step is not Step.FORGET
