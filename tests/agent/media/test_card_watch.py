"""Digits that are a card's number: found whatever came before, gathered no longer than that takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.media.card_watch import (
    FORGET_US,
    LEAST_DIGITS,
    MOST_DIGITS,
    OVER_US,
    SAME_PRESS_US,
    CardWatch,
    is_card_number,
)
from sbc_agent.media.messages import CallPolicy

SECOND = 1_000_000
ASKING = CallPolicy(accept_keys="1", decline_keys="2")


def typed(watch: CardWatch, keys: str, *, first_us: int = 0, every_us: int = SECOND, stream: int = 0) -> list[int]:
    """Types keys; returns when the cards that were found began."""
    found = (watch.card("event", stream, key, first_us + every_us * index) for index, key in enumerate(keys))
    return [at_us for at_us in found if at_us is not None]


def over(watch: CardWatch, now_us: int) -> int | None:
    return watch.pass_time(now_us, now_us)


def check_digit(digits: str) -> str:
    """Luhn's check digit, reckoned as the annex words it: from the right, doubled every second, digits of it summed."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return str(-total % 10)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param("30569309025904", id="Diners, 14"),
        pytest.param("378282246310005", id="American Express, 15"),
        pytest.param("4111111111111111", id="Visa, 16"),
        pytest.param("5555555555554444", id="Mastercard, 16"),
        pytest.param("2223003122003222", id="Mastercard of the 2 series"),
        pytest.param("6011111111111117", id="Discover"),
        pytest.param("3530111333300000", id="JCB"),
        pytest.param("9792030394440796", id="Troy"),
    ],
)
def test_numbers_that_networks_publish_are_found_with_their_last_digit(number: str) -> None:
    """By themselves, after what a menu asked a while before, and after what may have been a digit of theirs."""
    assert typed(CardWatch(), number) == [0]
    assert typed(CardWatch(), "73#" + number) == [3 * SECOND]
    watch = CardWatch()
    assert typed(watch, "1") == []
    assert typed(watch, number, first_us=20 * SECOND) == [20 * SECOND]
    assert typed(CardWatch(), "12" + number) == [0]


@pytest.mark.parametrize("length", [13, 14, 17, 18])
@pytest.mark.parametrize("first", ["1", "4", "5", "62", "7"])
def test_numbers_of_other_lengths_are_found_when_they_are_over(first: str, length: int) -> None:
    """Two seconds after the last digit, or at once with the key that ends it."""
    body = (first + "7" * length)[: length - 1]
    number = body + check_digit(body)
    last_us = (length - 1) * SECOND
    watch = CardWatch()
    assert typed(watch, number) == []
    assert over(watch, last_us + OVER_US - 1) is None
    assert over(watch, last_us + OVER_US) == 0
    assert over(watch, last_us + OVER_US + 1) is None
    assert typed(CardWatch(), number + "#") == [0]


def test_nineteen_digits_are_over_with_the_last() -> None:
    """No number is longer."""
    assert typed(CardWatch(), "6304000000000000000") == [0]


@given(st.text("0123456789", min_size=LEAST_DIGITS - 1, max_size=MOST_DIGITS - 1))
def test_any_digits_with_their_check_digit_are_a_number(body: str) -> None:
    """Of 13 to 19 digits that do not begin with 0 and are not all alike."""
    number = body + check_digit(body)
    expected = number[0] != "0" and len(set(number)) > 1
    assert is_card_number(number) is expected


@given(st.text("0123456789", min_size=LEAST_DIGITS, max_size=MOST_DIGITS), st.integers(0, 18), st.integers(1, 9))
def test_one_wrong_digit_makes_it_none(body: str, place: int, change: int) -> None:
    """Luhn's formula finds every single error."""
    number = body[:-1] + check_digit(body[:-1])
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + change) % 10) + number[place + 1 :]
    assert not is_card_number(wrong)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param("411111111111", id="twelve digits"),
        pytest.param("4111111111111112", id="a wrong check digit"),
        pytest.param("5555555555554445", id="another"),
        pytest.param("378282246310006", id="one of fifteen digits"),
        pytest.param("0000000000000000", id="zeros"),
        pytest.param("41111111#11111111", id="ended in between"),
        pytest.param("41111111*11111111", id="begun again"),
    ],
)
def test_what_is_no_number_is_not_found(keys: str) -> None:
    """Nothing pauses for it, nor when it is over."""
    watch = CardWatch()
    assert typed(watch, keys) == []
    assert over(watch, 60 * SECOND) is None


def test_a_run_that_pauses_too_long_is_forgotten() -> None:
    """Half a number, then nothing for more than half a minute, then the rest."""
    watch = CardWatch()
    assert typed(watch, "41111111") == []
    assert typed(watch, "11111111", first_us=7 * SECOND + FORGET_US + 1) == []


def test_a_run_that_pauses_just_so_long_is_not() -> None:
    """People read numbers off cards in groups."""
    watch = CardWatch()
    assert typed(watch, "41111111") == []
    assert typed(watch, "11111111", first_us=7 * SECOND + FORGET_US) == [0]


def test_streams_and_ways_are_runs_of_their_own() -> None:
    """A press that comes as event and as tone is no two digits, and two people's digits are no number."""
    watch = CardWatch()
    for index, digit in enumerate("4111111111111111"):
        ways = [watch.card(way, 0, digit, SECOND * index) for way in ("event", "tone")]
        if index < 15:
            assert ways == [None, None]
    assert ways == [0, 0]
    assert [watch.card("event", index % 2, digit, index) for index, digit in enumerate("4111111111111111")] == [
        None
    ] * 16


def test_nothing_is_left_of_a_number_that_was_found() -> None:
    """Nor of one that was forgotten, nor of a call that is over."""
    watch = CardWatch()
    typed(watch, "4111111111111111")
    assert [list(run.digits) for run in watch.runs.values()] == [[]]
    typed(watch, "41111")
    held = [run.digits for run in watch.runs.values()]
    assert over(watch, 4 * SECOND + FORGET_US + 1) is None
    assert (watch.runs, [list(digits) for digits in held]) == ({}, [[]])
    typed(watch, "41111")
    held = [run.digits for run in watch.runs.values()]
    watch.wipe()
    assert (watch.runs, [list(digits) for digits in held]) == ({}, [[]])


@given(st.text("0123456789*#ABCD", max_size=200))
def test_no_run_is_longer_than_a_number_can_be(keys: str) -> None:
    """Whatever is typed, nineteen digits are held at most, and no text shows one."""
    watch = CardWatch()
    typed(watch, keys)
    assert all(len(run.digits) <= MOST_DIGITS for run in watch.runs.values())
    assert repr(watch) == "CardWatch()"


@pytest.mark.parametrize(("key", "choice"), [("1", "accept"), ("2", "decline")])
def test_a_consent_key_says_so_each_time(key: str, choice: str) -> None:
    """Once per press."""
    watch = CardWatch()
    assert [watch.choice(ASKING, "event", 0, key, at_us) for at_us in (0, SECOND)] == [choice, choice]


def test_a_press_that_comes_two_ways_is_one_choice() -> None:
    """The same key within a second, as event and as signalling; later it is another press."""
    watch = CardWatch()
    assert watch.choice(ASKING, "event", 0, "1", 0) == "accept"
    assert watch.choice(ASKING, "signalling", None, "1", SAME_PRESS_US) is None
    assert watch.choice(ASKING, "tone", 0, "1", 3 * SECOND) == "accept"
