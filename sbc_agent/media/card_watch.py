"""Whether somebody types a card's number, and whether a key says yes or no to the recording.

Digits are gathered by stream and by the way they come (telephone events, tones, signalling), so that a press that comes
by two ways is not two digits. They are in memory alone, in a run that is wiped when it pauses for ``FORGET_US``, when
it is found to be a card's number, when the call is over, or when a key that is no digit ends it; no run is longer than
a card's number can be.

A card's number (primary account number, ISO/IEC 7812-1) has up to 19 digits, of which the last is a check digit by
Luhn's formula (annex B); payment cards have 13 or more. Any such tail of a run counts, since a menu's digit may have
come before. Of the issuer's identification only the industry is asked for (section 4.2): 0 is no payment card's. Tables
of issuers are left out on purpose: they change, and a number that they lack would be stored, while one that they would
spare costs a pause that somebody sees and ends. For the same reason one digit repeated is no number, though it may
pass.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

from sbc_agent.media.messages import CallPolicy

Way = Literal["event", "tone", "signalling"]

LEAST_DIGITS: Final = 13
MOST_DIGITS: Final = 19
FORGET_US: Final = 30_000_000
"""So long after its last digit a run is forgotten: people read numbers off cards in groups, with pauses."""
SAME_PRESS_US: Final = 1_000_000
"""Within this, the same key on another way is the same press: a sender may tell it by event, tone and signalling."""
_RUNNING: Final = 6
_RUNNING_US: Final = 5_000_000


@dataclass(slots=True)
class _Run:
    digits: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST_DIGITS), repr=False)

    def wipe(self) -> None:
        self.digits.clear()


@dataclass(slots=True)
class CardWatch:
    """Watches one call.

    Attributes:
        runs: Runs by stream (None where it is not known whose keys they are) and way.
        choices: Moment and way of the last press of each consent key.
    """

    runs: dict[tuple[int | None, Way], _Run] = field(default_factory=dict, repr=False)
    choices: dict[str, tuple[int, Way, int | None]] = field(default_factory=dict, repr=False)

    def choice(
        self, policy: CallPolicy, way: Way, stream: int | None, key: str, at_us: int
    ) -> Literal["accept", "decline"] | None:
        """What a press of a consent key says to the recording; None if it was told already."""
        before = self.choices.get(key)
        self.choices[key] = (at_us, way, stream)
        if before is not None and before[1:] != (way, stream) and abs(at_us - before[0]) <= SAME_PRESS_US:
            return None
        return "accept" if key in policy.accept_keys else "decline"

    def card(self, way: Way, stream: int | None, key: str, at_us: int) -> int | None:
        """Takes a key.

        Returns:
            When the first digit was pressed of the card's number that this key completes; None if it completes none.
        """
        run = self.runs.setdefault((stream, way), _Run())
        if not key.isdigit():
            run.wipe()
            return None
        if run.digits and at_us - run.digits[-1][0] > FORGET_US:
            run.wipe()
        run.digits.append((at_us, int(key)))
        first_us = _card_begins(list(run.digits))
        if first_us is not None:
            run.wipe()
        return first_us

    def forget(self, now_us: int) -> bool:
        """Wipes runs that have paused too long; tells whether any is left."""
        for name, run in list(self.runs.items()):
            if not run.digits or now_us - run.digits[-1][0] > FORGET_US:
                run.wipe()
                del self.runs[name]
        return bool(self.runs)

    def wipe(self) -> None:
        """Forgets everything: the call is over."""
        for run in self.runs.values():
            run.wipe()
        self.runs.clear()
        self.choices.clear()

    def is_running(self, way: Way, stream: int | None, at_us: int) -> bool:
        """Whether a long number is being typed: the next key is a digit of it, whatever else it may mean."""
        run = self.runs.get((stream, way))
        return run is not None and len(run.digits) >= _RUNNING and at_us - run.digits[-1][0] <= _RUNNING_US


def _card_begins(digits: list[tuple[int, int]]) -> int | None:
    """When the longest tail began that is a card's number."""
    for length in range(min(len(digits), MOST_DIGITS), LEAST_DIGITS - 1, -1):
        tail = digits[-length:]
        if is_card_number([digit for _, digit in tail]):
            return tail[0][0]
    return None


def is_card_number(digits: list[int]) -> bool:
    """Whether digits may be a primary account number (ISO/IEC 7812-1)."""
    if not LEAST_DIGITS <= len(digits) <= MOST_DIGITS or digits[0] == 0 or len(set(digits)) == 1:
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]  # noqa: PLR2004 - annex B: cast out nines
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
