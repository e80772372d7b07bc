"""Whether somebody types a card's number, and whether a key says yes or no to the recording.

Digits are gathered by stream and by the way they come (telephone events, tones, signalling), so that a press that comes
by two ways is not two digits. They are in memory alone, in a run that is wiped when it pauses for ``FORGET_US``, when
it is found to be a card's number, when the call is over, or when a key that is no digit ends it; no run is longer than
a card's number can be.

A card's number (primary account number, ISO/IEC 7812-1) has up to 19 digits, of which the last is a check digit by
Luhn's formula (annex B); payment cards have 13 or more. One number in ten passes that, and so does one in ten of each
number's beginnings and ends. So two questions are asked:

1. with every digit, whether the last ones have the length that cards of their first digits have nearly always
   (``_USUAL_LENGTH``): such a number is found at once, whatever a menu asked before;
2. when the run is over (``OVER_US`` without a key, a key that is no digit, or 19 digits), whether all of it is a number
   of any length that begins with what may be a payment card's (section 4.2: everything but 0).

No issuer is asked for beyond that: tables of issuers change, and a number that they lack would be missed, while one
that they would spare costs a pause that somebody sees and ends.
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
OVER_US: Final = 2_000_000
"""So long after its last digit a number may be whole."""
SAME_PRESS_US: Final = 1_000_000
"""Within this, the same key on another way is the same press: a sender may tell it by event, tone and signalling."""
_GROUP_US: Final = 5_000_000  # digits before a number that are nearer than this may be of it: the silence covers them
_RUNNING: Final = 6
_USUAL_LENGTH: Final = {
    "2": 16, "30": 14, "34": 15, "35": 16, "36": 14, "37": 15, "38": 14, "39": 14, "4": 16, "5": 16, "6": 16, "8": 16,
    "9": 16,
}  # fmt: skip


@dataclass(slots=True)
class _Run:
    """Digits: moment, key, and whether it may have been a choice as well, which begins no number's silence."""

    digits: deque[tuple[int, str, bool]] = field(default_factory=lambda: deque(maxlen=MOST_DIGITS), repr=False)
    is_judged: bool = False

    @property
    def last_us(self) -> int:
        return self.digits[-1][0]

    def wipe(self) -> None:
        self.digits.clear()
        self.is_judged = False

    def found(self, *, is_over: bool) -> int | None:
        """When a card's number began; it is wiped with that."""
        typed = "".join(digit for _, digit, _ in self.digits)
        begins = next((at for at in range(len(typed)) if _is_usual(typed[at:])), None)
        if begins is None and is_over:
            behind = next((at for at, (_, _, is_choice) in enumerate(self.digits) if not is_choice), 0)
            begins = next((at for at in (0, behind) if is_card_number(typed[at:])), None)
        if begins is None:
            return None
        moments = [at_us for at_us, _, _ in self.digits]
        while begins and moments[begins] - moments[begins - 1] <= _GROUP_US and not self.digits[begins - 1][2]:
            begins -= 1
        self.wipe()
        return moments[begins]


@dataclass(slots=True)
class CardWatch:
    """Watches one call.

    Attributes:
        runs: Runs by stream (None where it is not known whose keys they are) and way.
        choices: Moment, way and stream of the last press of each consent key.
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

    def card(self, way: Way, stream: int | None, key: str, at_us: int, *, is_choice: bool = False) -> int | None:
        """Takes a key; ``is_choice`` says that it was told as a choice: it may be a digit of a number all the same.

        Returns:
            When the first digit was pressed of the card's number that this key completes; None if it completes none.
        """
        run = self.runs.setdefault((stream, way), _Run())
        if run.digits and at_us - run.last_us > FORGET_US:
            run.wipe()
        if not key.isdigit():
            first_us = run.found(is_over=True)
            run.wipe()
            return first_us
        run.digits.append((at_us, key, is_choice))
        run.is_judged = False
        return run.found(is_over=len(run.digits) == MOST_DIGITS)

    def pass_time(self, now_us: int, tones_us: int) -> int | None:
        """Judges runs that are over, and wipes those that have paused too long.

        Args:
            now_us: The agent's time.
            tones_us: Up to when tones have been looked for.

        Returns:
            When a card's number began that is over now; None if there is none.
        """
        for (_, way), run in self.runs.items():
            heard_us = tones_us if way == "tone" else now_us
            if run.digits and not run.is_judged and heard_us - run.last_us >= OVER_US:
                run.is_judged = True
                first_us = run.found(is_over=True)
                if first_us is not None:
                    return first_us
        for name, run in list(self.runs.items()):
            if not run.digits or now_us - run.last_us > FORGET_US:
                run.wipe()
                del self.runs[name]
        return None

    def wipe(self) -> None:
        """Forgets everything: the call is over."""
        for run in self.runs.values():
            run.wipe()
        self.runs.clear()
        self.choices.clear()

    def is_running(self, way: Way, stream: int | None, at_us: int) -> bool:
        """Whether a long number is being typed: the next key is a digit of it, whatever else it may mean."""
        run = self.runs.get((stream, way))
        return run is not None and len(run.digits) >= _RUNNING and at_us - run.last_us <= _GROUP_US


def is_card_number(digits: str) -> bool:
    """Whether digits may be a primary account number (ISO/IEC 7812-1); one digit repeated is none."""
    if not LEAST_DIGITS <= len(digits) <= MOST_DIGITS or digits[0] == "0" or len(set(digits)) == 1:
        return False
    doubled = [2 * int(digit) - 9 * (digit > "4") for digit in digits[-2::-2]]  # annex B: nines are cast out
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _is_usual(digits: str) -> bool:
    usual = _USUAL_LENGTH.get(digits[:2], _USUAL_LENGTH.get(digits[:1]))
    return len(digits) == usual and is_card_number(digits)
