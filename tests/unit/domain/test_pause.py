"""What the agent's manifest and the cloud's ledger say together of a call's pauses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import pause
from dualtone.domain.agent_events import SilentFrom
from dualtone.domain.call_files import PauseEntry, SilentEntry
from dualtone.domain.pause import How, Pause
from dualtone.domain.pause_ledger import PauseSpan

S: Final = 1_000_000
ANSWERED: Final = 1000 * S
ENDED: Final = 1060 * S


def known(from_s: float, to_s: float, *, number: int = 1, **changes: Any) -> Pause:
    """A pause by seconds of the call."""
    values: dict[str, Any] = {
        "cause": "payment",
        "from_us": ANSWERED + round(from_s * S),
        "to_us": ANSWERED + round(to_s * S),
        "origin": "cloud",
        "number": number,
        "command": f"command-{number}",
        "by": "person:p",
        "effective_at_ms": ANSWERED // 1000 + round(from_s * 1000) + 250,
    }
    return Pause(**(values | changes))


def told(from_s: float, to_s: float | None, *, number: int = 1, **changes: Any) -> PauseSpan:
    """The ledger's word for a pause."""
    values: dict[str, Any] = {
        "cause": "payment",
        "from_us": ANSWERED + round(from_s * S),
        "to_us": None if to_s is None else ANSWERED + round(to_s * S),
        "origin": "cloud",
        "number": number,
        "command": f"command-{number}",
        "by": "person:p",
        "effective_at_ms": 7,
        "acknowledged": False,
        "silent_from": (),
        "resumed_by": "",
    }
    return PauseSpan(**(values | changes))


def united(declared: list[Pause], spans: list[PauseSpan]) -> list[tuple[int, float, float]]:
    """Number, from and to in seconds."""
    found = pause.union(declared, spans, answered_us=ANSWERED, ended_us=ENDED)
    return [(one.number, (one.from_us - ANSWERED) / S, (one.to_us - ANSWERED) / S) for one in found]


@pytest.mark.parametrize(
    ("name", "declared", "spans", "expected"),
    [
        ("nothing", [], [], []),
        ("the manifest alone", [known(3, 6)], [], [(1, 3, 6)]),
        ("the ledger alone", [], [told(3, 6)], [(1, 3, 6)]),
        ("the earlier beginning, the later end", [known(3, 6)], [told(2, 5)], [(1, 2, 6)]),
        ("an end that the ledger does not know", [known(3, 6)], [told(3, None)], [(1, 3, 6)]),
        ("an end that nobody knows", [], [told(3, None)], [(1, 3, 60)]),
        ("two pauses", [known(3, 6)], [told(2, 5, number=2)], [(2, 2, 5), (1, 3, 6)]),
        ("numbers count within an origin", [known(3, 6)], [told(2, 5, origin="lan")], [(1, 2, 5), (1, 3, 6)]),
        ("before the call", [known(-9, -1)], [told(-9, 0, number=2)], []),
        ("after the call", [], [told(60, 70)], []),
        ("over the beginning", [known(-9, 2)], [], [(1, -9, 2)]),
        ("over the end", [], [told(59, 70)], [(1, 59, 70)]),
        ("open, after the end", [], [told(61, None)], []),
    ],
)
def test_union(
    name: str, declared: list[Pause], spans: list[PauseSpan], expected: list[tuple[int, float, float]]
) -> None:
    """Whatever one of them calls silent is."""
    assert united(declared, spans) == expected, name


def test_the_ledger_knows_true_time_and_the_agent_knows_the_packets() -> None:
    """The moment asked for is the ledger's, the first silent packets are the manifest's, if it has any."""
    first, second = (SilentFrom(0, stamp, 5) for stamp in (160, 320))
    ledger = told(3, 6, silent_from=(second,))
    (both,) = pause.union([known(3, 6, silent_from=(first,))], [ledger], answered_us=ANSWERED, ended_us=ENDED)
    assert (both.effective_at_ms, both.silent_from) == (7, (first,))
    (other,) = pause.union([known(3, 6)], [ledger], answered_us=ANSWERED, ended_us=ENDED)
    assert other.silent_from == (second,)


def test_a_manifests_pauses() -> None:
    """As they stand there."""
    entry = PauseEntry(
        "manual", 3 * S, 6 * S, "lan", "c", 4, "person:p", 3_250_999, 3_400_000, [SilentEntry(1, None, 5)], "", False
    )
    (found,) = pause.declared([entry])
    assert found == Pause("manual", 3 * S, 6 * S, "lan", 4, "c", "person:p", 3250, (SilentFrom(1, None, 5),))
    assert found.how is How.WITHHELD


spans_of_a_call = st.tuples(st.integers(-20, 80), st.integers(0, 50)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans_of_a_call, max_size=8), st.lists(st.tuples(spans_of_a_call, st.integers(0, 9)), max_size=8))
def test_nothing_that_one_of_them_silences_is_heard(
    declared: list[tuple[int, int]], ledger: list[tuple[tuple[int, int], int]]
) -> None:
    """Each span that touches the call lies within a pause of the union; and united again, nothing changes."""
    pauses = [known(*span, number=number) for number, span in enumerate(declared)]
    spans = list({number: told(*span, number=number) for span, number in ledger}.values())
    found = pause.union(pauses, spans, answered_us=ANSWERED, ended_us=ENDED)
    both: list[Pause | PauseSpan] = [*pauses, *spans]
    for one in both:
        assert one.to_us is not None
        if one.from_us < ENDED and one.to_us > ANSWERED:
            assert any(other.from_us <= one.from_us and other.to_us >= one.to_us for other in found)
    assert pause.union(found, spans, answered_us=ANSWERED, ended_us=ENDED) == found


@pytest.mark.parametrize("apart_s", [0.5, 30])
def test_more_pauses_than_certificates_are_joined(apart_s: float) -> None:
    """Each pause lies within the one that stands for it; those of another cause are not mixed in."""
    many = [known(at * (1 + apart_s), at * (1 + apart_s) + 1, number=at) for at in range(500)]
    many = [replace(one, cause="dtmf" if one.number % 2 else "payment") for one in many]
    found, places = pause.joined(many)
    assert len(found) <= pause.MOST_PAUSES
    for one, place in zip(many, places, strict=True):
        assert found[place].covers(one)
        assert found[place].cause == one.cause
    assert pause.joined(many[:10]) == (many[:10], list(range(10)))


def test_a_record_is_explained_within_the_doubt_about_the_clock() -> None:
    """It may have been cut for a beginning that was reckoned with two seconds of doubt and every pause's margin."""
    one = known(10, 20)
    for from_s, to_s, expected in ((7, 7.75, True), (6, 7.7, False), (22.2, 23, True), (22.3, 23, False)):
        assert one.explains(ANSWERED + round(from_s * S), ANSWERED + round(to_s * S)) is expected
