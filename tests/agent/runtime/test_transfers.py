"""What is known of a call's objects: what is up, what may still be on its way, and what is to be put again when."""

from __future__ import annotations

import pytest

from sbc_agent.runtime.transfers import BEGUN, CUT, PRESENT, STORED, TAKEN, Patience, Transfer, Transfers

HOUR, DAY = 3_600, 86_400
START = 1_800_000_000
PART, MANIFEST = "part-00-000000.dtp", "manifest.json"
PATIENCE = Patience()


def line(name: str, result: str, at_s: int = START, sha256: str = "aa") -> Transfer:
    return Transfer(name, sha256, 10, result, at_s)


@pytest.mark.parametrize(
    ("results", "up", "unsettled"),
    [
        ([], False, False),
        ([BEGUN], False, True),
        ([BEGUN, STORED], True, False),
        ([BEGUN, PRESENT], True, False),
        ([BEGUN, TAKEN], True, False),
        ([STORED], True, False),
        ([BEGUN, STORED, BEGUN], True, True),
        ([BEGUN, STORED, CUT], True, False),
        ([BEGUN, CUT], False, True),
    ],
)
def test_what_is_up_and_what_may_arrive(results: list[str], up: bool, unsettled: bool) -> None:
    """S3's word settles a name; a begun put without it does not; a cut changes neither."""
    known = Transfers([line(PART, result) for result in results])
    assert (PART in known.up) is up
    assert (PART in known.unsettled) is unsettled


def test_a_put_that_is_begun_again_is_no_news() -> None:
    """Days without a link write one line for an object, not one for each attempt; other bytes are news."""
    known = Transfers()
    assert known.begins(PART, "aa")
    known.add(line(PART, BEGUN))
    assert not known.begins(PART, "aa")
    assert known.begins(PART, "bb")
    known.add(line(PART, STORED))
    assert known.begins(PART, "aa")


@pytest.mark.parametrize(
    ("age_s", "stale"),
    [
        (0, set()),
        (6 * HOUR - 1, set()),
        (6 * HOUR, {MANIFEST}),
        (7 * DAY - 1, {MANIFEST}),
        (7 * DAY, {MANIFEST, PART}),
        (-1, {MANIFEST, PART}),  # the clock stood later then: nobody knows how long ago it was
    ],
)
def test_what_is_put_again_when(age_s: int, stale: set[str]) -> None:
    """The manifest after six hours without a receipt, everything after a week."""
    known = Transfers([line(PART, STORED), line(MANIFEST, STORED)])
    assert known.stale(START + age_s, PATIENCE) == stale


def test_parts_of_a_call_that_goes_on_are_put_again_too() -> None:
    """The bucket forgets by age, whether there is a manifest or not."""
    known = Transfers([line(PART, STORED)])
    assert known.stale(START + 7 * DAY, PATIENCE) == {PART}
    assert known.rest_s(START, PATIENCE) == 7 * DAY
    assert known.rest_s(START + 7 * DAY + 5, PATIENCE) == 0


def test_nothing_that_is_up_rests_for_ever() -> None:
    """A call of which nothing is up has nothing to be put again."""
    assert Transfers().rest_s(START, PATIENCE) == float("inf")
    assert Transfers().stale(START, PATIENCE) == set()


def test_what_was_found_there_is_looked_after_daily() -> None:
    """An object older than a week that was found there may be forgotten any day: from then on it is put again daily."""
    known = Transfers([line(PART, STORED), line(PART, PRESENT, START + 7 * DAY)])
    assert known.stale(START + 8 * DAY - 1, PATIENCE) == set()
    assert known.rest_s(START + 7 * DAY, PATIENCE) == DAY
    assert known.stale(START + 8 * DAY, PATIENCE) == {PART}
    known.add(line(PART, STORED, START + 8 * DAY))
    assert known.stale(START + 14 * DAY, PATIENCE) == set(), "stored anew, it is there for a week again"
    assert known.stale(START + 15 * DAY, PATIENCE) == {PART}


def test_what_is_to_be_put_again_is_not_up_until_it_was() -> None:
    """Once S3 has spoken of it, it is; and its age is not forgotten meanwhile."""
    known = Transfers([line(PART, STORED)])
    known.put_again([PART])
    assert known.up == set()
    known.add(line(PART, PRESENT, START + 7 * DAY))
    assert known.up == {PART}
    assert known.rest_s(START + 7 * DAY, PATIENCE) == DAY


def test_the_last_word_is_kept() -> None:
    """Which bytes were put last is known, also after they were cut here."""
    known = Transfers([line(PART, STORED, sha256="aa"), line(PART, CUT, sha256="aa")])
    last = known.last(PART)
    assert last is not None
    assert (last.result, last.sha256) == (STORED, "aa")
    assert known.last(MANIFEST) is None
