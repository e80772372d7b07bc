"""The way of a call is told from roles and lines, and never guessed."""

from typing import Literal

import pytest

from dualtone.domain.direction import Direction, Lines, Party, direction_of
from dualtone.domain.errors import MalformedInput

LINES = Lines.parse(["+44 20 7946 0123", "2*", "+4420794602??", "sip:Reception@pbx"])

Parties = list[tuple[Literal["caller", "callee", "unknown"], str | None]]

CASES: list[tuple[str, Parties, Direction]] = [
    ("a line calls out", [("caller", "2001"), ("callee", "+33123456789")], Direction.OUTBOUND),
    ("someone calls a line", [("caller", "+33123456789"), ("callee", "+442079460123")], Direction.INBOUND),
    ("a withheld number calls a line", [("caller", None), ("callee", "+442079460299")], Direction.INBOUND),
    ("line to line", [("caller", "2001"), ("callee", "reception")], Direction.INTERNAL),
    ("transit", [("caller", "+331"), ("callee", "+332")], Direction.UNKNOWN),
    ("one role known gives the other", [("caller", "+331"), ("unknown", "2001")], Direction.INBOUND),
    ("one role known gives the other, callee", [("unknown", "2001"), ("callee", "+331")], Direction.OUTBOUND),
    ("no roles, one line", [("unknown", "2001"), ("unknown", "+331")], Direction.UNKNOWN),
    ("no roles, both lines", [("unknown", "2001"), ("unknown", "2002")], Direction.INTERNAL),
    ("a conference", [("caller", "+331"), ("callee", "2001"), ("callee", "+332")], Direction.INBOUND),
    ("alone", [("caller", "2001")], Direction.UNKNOWN),
    ("nobody", [], Direction.UNKNOWN),
]


@pytest.mark.parametrize(("parties", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_direction_of(parties: Parties, expected: Direction) -> None:
    """Roles and lines decide; what they do not decide stays unknown."""
    assert direction_of([Party(role, number) for role, number in parties], LINES) is expected


@pytest.mark.parametrize(
    ("number", "included"),
    [("+442079460123", True), ("+442079460200", True), ("+4420794602001", False), ("2", True), ("29*9", True),
     ("12", False), ("reception", True), ("2nd-floor", False), (None, False)],
)  # fmt: skip
def test_patterns_match_whole_numbers(number: str | None, *, included: bool) -> None:
    """A question mark is one digit, a final asterisk any rest, and nothing matches in part."""
    assert LINES.include(number) is included


@pytest.mark.parametrize("entry", ["*", "?*?*x", "2**x?", "", "sip:host.example"])
def test_a_line_that_is_no_line_is_refused(entry: str) -> None:
    """Configuration errors surface when the list is read, not when a call is misjudged."""
    with pytest.raises(MalformedInput):
        Lines.parse([entry])
