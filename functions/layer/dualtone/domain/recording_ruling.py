"""What the recording policy says of a call, and what becomes of the call once people have chosen. Pure.

A call is judged by what is known of it. While a rule that comes first might match by something that is not known yet
(the other party, the queue), the ruling is *provisional*: the call waits, unless every rule that may win records at
once. Later facts give another ruling; a last one, ``final``, is content with what is known.

Choices are taken as a set: whoever speaks last does not win, the stronger word does.

    regulated  >  refusal  >  consent, or the wish to keep  >  what the rule does by default
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import call_session, recording_policy
from dualtone.domain.call_command import Actor, Moment
from dualtone.domain.call_match import vendor_values
from dualtone.domain.direction import Direction, Lines, Party, direction_of
from dualtone.domain.numbers import normalise
from dualtone.domain.recording_policy import (
    DEFAULT_RULE,
    WEEKDAYS,
    Basis,
    Fate,
    Match,
    Record,
    RecordingPolicy,
    Rule,
    RuleId,
)

SETTLED_AFTER_S: Final = 30
"""How long after the answer a ruling may be provisional; then what is known is enough."""

Cause = Literal["consent", "personal", "on_demand"]
Means = Literal["rule", "dtmf", "header", "webhook", "lan", "api", "timeout", "end", "inherited"]
ChoiceName = Literal["accept", "decline", "keep", "drop", "personal", "not_personal"]

# Fragments of the names, without case and punctuation, under which SBCs tell the queue, and the number first dialled.
_QUEUE_NAMES: Final = ("queue", "huntgroup", "skill", "vdn", "acdgroup", "callcenter")
_DIALLED_NAMES: Final = ("diversion", "dialeddigits", "dialednumber", "originalcalled", "origcalled", "historyinfo")
_CALLER_NAMES: Final = frozenset({"callingpartynumber"})
_CALLEE_NAMES: Final = frozenset({"calledpartynumber"})
_PARTY_NAMES: Final = frozenset({"xciscorecordingparticipant"})
_PLACEHOLDERS: Final = frozenset({"asbce"})  # Avaya's SBC names itself until it knows the party
_PAIR: Final = 2
_MOST_QUEUES: Final = 32
_MOST_COMPILED: Final = 4096


_STRICT: Final = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of a call.

    Attributes:
        parties: Roles and normalised numbers; a number is None if it is withheld.
        queues: Normalised names and numbers of the queues that it came through.
        at_ms: When it began: true Unix time.
    """

    parties: tuple[Party, ...] = field(repr=False)
    queues: tuple[str, ...] = field(repr=False)
    at_ms: int

    @classmethod
    def of_session(cls, facts: Mapping[str, Any], at_ms: int, headers: Mapping[str, str] | None = None) -> CallFacts:
        """Reads what the signalling said.

        Args:
            facts: Of the SESSION record.
            at_ms: When the call began: true Unix time.
            headers: Header fields of the recording session, by name: some SBCs tell the queue there.
        """
        session = call_session.from_facts(facts)
        values = [*vendor_values(session), *((_bare(name), value) for name, value in (headers or {}).items())]
        parties = [Party(person.role, normalise(person.aor)) for person in session.participants if person.aor]
        parties = [party for party in parties if party.number not in _PLACEHOLDERS]
        if len(parties) < _PAIR:
            known = {party.number for party in parties}
            parties += [party for party in _told(values) if party.number not in known]
        queues = [normalise(value) for name, value in values if any(part in name for part in _QUEUE_NAMES)]
        queues += [normalise(value) for name, value in values if any(part in name for part in _DIALLED_NAMES)]
        named = dict.fromkeys(queue for queue in queues if queue is not None)
        return cls(tuple(parties), tuple(named)[:_MOST_QUEUES], at_ms)

    @property
    def are_both_known(self) -> bool:
        """Whether more parties are not to be expected."""
        return len(self.parties) >= _PAIR


@checked(config=_STRICT, frozen=True, slots=True)
class Kept:
    """Why a call is kept: the member ``policy`` of its SESSION record.

    Attributes:
        version: Of the policy in force; 0 if the tenant had none.
        rule: Id of the rule.
        record: What that does.
        basis: The lawful basis.
        decision: That it is kept: of a call that is not nothing is told.
        how: By which way that was decided.
        at_us: When, by the agent's clock.
        by: Opaque id of who decided; empty if nobody did.
    """

    version: Annotated[int, Field(ge=0)]
    rule: RuleId
    record: Record
    basis: Basis
    decision: Literal["keep"]
    how: Means
    at_us: Moment
    by: Actor | Literal[""]


@checked(config=_STRICT, frozen=True, slots=True)
class Chosen:
    """A choice as it is told of a call that is kept: an element of ``consents`` of its SESSION record.

    Attributes:
        choice: What was chosen.
        how: By which way.
        at_us: When, by the agent's clock.
        by: Opaque id of who chose; empty if nobody knows.
    """

    choice: ChoiceName
    how: Means
    at_us: Moment
    by: Actor | Literal[""]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy says of a call.

    Attributes:
        rule: The rule; of a provisional ruling the one that matches by what is known.
        version: Of the policy in force; 0 if the tenant has none.
        provisional: Whether more facts may lead to another rule.
        waits: Whether the call waits for a decision.
        silent: Whether, besides, nothing of it is gathered meanwhile.
    """

    rule: Rule
    version: int
    provisional: bool
    waits: bool
    silent: bool

    def kept(self, how: Means, at_us: int, by: str = "") -> Kept:
        """Why a call is kept.

        Args:
            how: By which way it was decided.
            at_us: When, by the agent's clock.
            by: Opaque id of who decided; empty if nobody did.
        """
        rule = self.rule
        return Kept(self.version, rule.id, rule.record, rule.basis, "keep", how, at_us, by)


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody wishes for a call.

    Attributes:
        decision: To keep it, or to discard it.
        cause: Why: ``consent`` is given or refused; the call is ``personal``; ``on_demand``, somebody wants it.
        how: By which way it came.
        at_us: When, by the agent's clock.
        by: Opaque id of who made it; empty if nobody knows.
    """

    decision: Fate
    cause: Cause
    how: Means
    at_us: int
    by: str = ""

    @classmethod
    def answered(cls, ruling: Ruling, answer: Literal["accept", "decline"], how: Means, at_us: int) -> Choice:
        """A party's answer by key or header: where a rule is on demand, to accept is to ask for the recording."""
        asks = ruling.rule.record in ("on_demand", "live_keep") and answer == "accept"
        return cls("keep" if answer == "accept" else "discard", "on_demand" if asks else "consent", how, at_us)

    @property
    def chosen(self) -> Chosen:
        """The choice as it is told of a call that is kept."""
        return Chosen(_NAMES[self.decision, self.cause], self.how, self.at_us, self.by)


def evaluate(policy: RecordingPolicy | None, facts: CallFacts, *, final: bool = False) -> Ruling:
    """Judges a call.

    Args:
        policy: The tenant's; None if there is none: then every call is recorded.
        facts: What is known of the call.
        final: Whether nothing more will be known.

    Returns:
        The ruling; never provisional if ``final``.
    """
    if policy is None:
        return Ruling(DEFAULT_RULE, 0, provisional=False, waits=False, silent=False)
    maybe: list[Rule] = []
    winner = DEFAULT_RULE
    view = _View(policy, facts)
    for rule in policy.rules:
        matches = view.matches(rule.match)
        if matches:
            winner = rule
            break
        if matches is None and not final:
            maybe.append(rule)
    rules = [*maybe, winner]
    all_record_at_once = not any(rule.waits or rule.record == "never" for rule in rules)
    waits = winner.waits or (bool(maybe) and not all_record_at_once)
    silent = waits and all(rule.record in ("on_demand", "never") for rule in rules)
    return Ruling(winner, policy.version, provisional=bool(maybe), waits=waits, silent=silent)


def decide(ruling: Ruling, choices: Iterable[Choice]) -> Fate | None:
    """What is to become of a call.

    Args:
        ruling: The policy's word on it.
        choices: All that was chosen for it, in any order.

    Returns:
        ``keep`` or ``discard``; None while it is open: then the call waits on, and at its end, or when the rule's time
        is over, its rule's default decides (`settle`).
    """
    rule, chosen = ruling.rule, list(choices)
    if ruling.provisional:
        return None if ruling.waits else "keep"
    if rule.regulated:
        return "keep"
    if rule.record == "never" or any(_refuses(rule, choice) for choice in chosen):
        return "discard"
    if not rule.waits or any(_grants(rule, choice) for choice in chosen):
        return "keep"
    return None


def settle(ruling: Ruling, choices: Iterable[Choice]) -> Fate:
    """What becomes of a call at its end, or when the time of its rule is over: somebody's word, or the default."""
    return decide(ruling, choices) or ruling.rule.by_default


def _refuses(rule: Rule, choice: Choice) -> bool:
    """Whether a choice is one that discards a call of a rule that is not regulated."""
    if choice.decision == "keep":
        return False
    match choice.cause:
        case "consent":
            return True
        case "personal":
            return rule.personal_allowed
        case "on_demand":
            return rule.record in ("on_demand", "live_keep")


def _grants(rule: Rule, choice: Choice) -> bool:
    """Whether a waiting call is kept for a choice: nobody's wish to keep it stands in for a party's consent."""
    if choice.decision == "discard":
        return False
    match rule.record:
        case "consent":
            return choice.cause == "consent"
        case "on_demand" | "live_keep":
            return choice.cause == "on_demand"
        case _:
            return choice.cause != "consent"


class _View:
    """A call as one policy sees it."""

    def __init__(self, policy: RecordingPolicy, facts: CallFacts) -> None:
        self._policy = policy
        self._facts = facts
        self._own = _lines(policy.lines)
        self._has_own = any(self._own.include(party.number) for party in facts.parties)
        self._direction = direction_of(facts.parties, self._own)

    def matches(self, match: Match) -> bool | None:
        """Whether a rule is for the call; None if that cannot be said yet."""
        if not _is_in_time(match, self._facts.at_ms):
            return False
        members = (self._direction_matches(match), self._queue_matches(match), self._parties_match(match))
        if False in members:
            return False
        return None if None in members else True

    def _direction_matches(self, match: Match) -> bool | None:
        if not match.directions:
            return True
        return None if self._direction is Direction.UNKNOWN else self._direction.value in match.directions

    def _queue_matches(self, match: Match) -> bool | None:
        if not match.queues:
            return True
        queues = _lines(match.queues)
        # A queue's own number may be a party of the call, until somebody in the queue is.
        if any(map(queues.include, (*self._facts.queues, *(party.number for party in self._facts.parties)))):
            return True
        return False if self._facts.queues else None

    def _parties_match(self, match: Match) -> bool | None:
        """Whether one party is a line of the rule and another one has a number of the rule."""
        if not (match.lines or match.groups or match.numbers):
            return True
        parties = self._facts.parties
        for place, party in enumerate(parties):
            if self._is_line(match, party):
                others = [*parties[:place], *parties[place + 1 :]]
                if not match.numbers or any(_lines(match.numbers).include(other.number) for other in others):
                    return True
        return False if self._facts.are_both_known else None

    def _is_line(self, match: Match, party: Party) -> bool:
        if match.lines and not _lines(match.lines).include(party.number):
            return False
        if match.groups and not any(_lines(self._policy.groups[group]).include(party.number) for group in match.groups):
            return False
        if match.lines or match.groups:
            return True
        return self._own.include(party.number) or not self._has_own


@lru_cache(_MOST_COMPILED)
def _lines(patterns: tuple[str, ...]) -> Lines:
    return Lines.parse(patterns)


def _is_in_time(match: Match, at_ms: int) -> bool:
    """Whether a moment is within the days and hours of a rule. A moment has one local time, also when clocks change."""
    if match.timezone is None:
        return True
    local = dt.datetime.fromtimestamp(at_ms // 1000, recording_policy.zone(match.timezone))
    weekday = local.weekday()
    if match.hours is not None:
        begins, ends = recording_policy.minutes(match.hours)
        minute = 60 * local.hour + local.minute
        if begins < ends:
            if not begins <= minute < ends:
                return False
        elif minute < ends:  # after midnight: the window of the day before
            weekday -= 1
        elif minute < begins:
            return False
    return not match.weekdays or WEEKDAYS[weekday] in match.weekdays


def _bare(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _told(values: Sequence[tuple[str, str]]) -> Iterator[Party]:
    """Parties that no participant of the metadata names, but vendor data does."""
    for name, value in values:
        number = normalise(value)
        if number is None:
            continue
        if name in _CALLER_NAMES:
            yield Party("caller", number)
        elif name in _CALLEE_NAMES:
            yield Party("callee", number)
        elif name in _PARTY_NAMES:
            yield Party("unknown", number)


_NAMES: Final[Mapping[tuple[Fate, Cause], ChoiceName]] = {
    ("keep", "consent"): "accept",
    ("discard", "consent"): "decline",
    ("keep", "personal"): "not_personal",
    ("discard", "personal"): "personal",
    ("keep", "on_demand"): "keep",
    ("discard", "on_demand"): "drop",
}
