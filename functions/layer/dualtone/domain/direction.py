"""Which way a call went, seen from the tenant: a question of who called and whose lines are involved.

Pure. A tenant names its lines by patterns of normalised numbers (see `numbers.normalise`):

| pattern         | matches                                   |
|-----------------|-------------------------------------------|
| `+442079460123` | this number                               |
| `+4420794601??` | this number with any two last digits      |
| `2*`            | every extension that starts with 2        |
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

from dualtone.domain.errors import MalformedInput
from dualtone.domain.numbers import normalise

_PATTERN = re.compile(r"\+?[0-9*#?]*[0-9?]\*?")


class Direction(StrEnum):
    """The way of a call; `UNKNOWN` when the metadata does not say, never a guess."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Lines:
    """The tenant's own lines: exact numbers and compiled patterns."""

    numbers: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read the patterns of the tenant's directory entry.

        Args:
            entries: numbers, extensions or user names; `?` is any digit, a final `*` is any rest.

        Returns:
            The lines, ready to be asked.

        Raises:
            MalformedInput: an entry is neither a number nor a pattern.
        """
        numbers: set[str] = set()
        patterns: list[re.Pattern[str]] = []
        for entry in entries:
            if "?" in entry or entry.endswith("*"):
                patterns.append(_compile(entry))
                continue
            number = normalise(entry)
            if number is None:
                raise MalformedInput("a line must be a number, a user name or a pattern such as 2*")
            numbers.add(number)
        return cls(frozenset(numbers), tuple(patterns))

    def include(self, number: str | None) -> bool:
        """Say whether a normalised number is one of the tenant's lines; None (withheld) never is."""
        if number is None:
            return False
        return number in self.numbers or any(pattern.fullmatch(number) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Party:
    """A participant as far as direction is concerned: what it did, and its normalised number if it showed one."""

    role: Literal["caller", "callee", "unknown"]
    number: str | None


def direction_of(parties: Iterable[Party], lines: Lines) -> Direction:
    """Tell the direction of a call from its parties' roles and the tenant's lines.

    Two parties of which one role is known give the other (a call has one caller). Without roles only an internal call
    can be told, because it is internal whoever called. Parties that are no line on either side stay `UNKNOWN`: the
    recorder saw a call in transit, or the tenant's list is incomplete.

    Args:
        parties: all participants of the communication session.
        lines: the tenant's lines.

    Returns:
        The direction.
    """
    known = _with_complementary_roles(list(parties))
    callers = [lines.include(party.number) for party in known if party.role == "caller"]
    callees = [lines.include(party.number) for party in known if party.role == "callee"]
    if callers and callees:
        match any(callers), any(callees):
            case True, True:
                return Direction.INTERNAL
            case True, False:
                return Direction.OUTBOUND
            case False, True:
                return Direction.INBOUND
            case _:
                return Direction.UNKNOWN
    if len(known) > 1 and all(lines.include(party.number) for party in known):
        return Direction.INTERNAL
    return Direction.UNKNOWN


def _with_complementary_roles(parties: list[Party]) -> list[Party]:
    if len(parties) != 2:  # noqa: PLR2004 - a pair
        return parties
    first, second = parties
    other: dict[str, Literal["caller", "callee", "unknown"]] = {"caller": "callee", "callee": "caller"}
    if first.role == "unknown" and second.role in other:
        return [Party(other[second.role], first.number), second]
    if second.role == "unknown" and first.role in other:
        return [first, Party(other[first.role], second.number)]
    return parties


def _compile(entry: str) -> re.Pattern[str]:
    if not _PATTERN.fullmatch(entry):
        raise MalformedInput("a line pattern consists of digits, ? for any digit, and at most one * at its end")
    stem = entry.removesuffix("*")
    body = "".join("[0-9]" if character == "?" else re.escape(character) for character in stem)
    return re.compile(body + ("[0-9*#]*" if entry.endswith("*") else ""))
