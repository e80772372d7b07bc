"""What policy and people say of each call: the agent's own use of ``domain.recording_ruling``. No I/O but the store's.

A call is judged before its answer leaves, and again with everything that is learnt of it. While something that its
rule depends on is not known, the ruling is provisional; half a minute after the answer, what is known is enough. A call
that waits is decided by a choice (a key, a header field, a webhook, a desk, the API), by its time, or at its end.
Where a tenant has no policy and nobody chose anything, nothing of this costs anything: the built-in rule records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain.recording_policy import DEFAULT_RULE, Fate, Match, RecordingPolicy, Rule
from dualtone.domain.recording_ruling import (
    SETTLED_AFTER_S,
    CallFacts,
    Cause,
    Choice,
    Kept,
    Means,
    Ruling,
    decide,
    evaluate,
    settle,
)
from sbc_agent.media.client import PLAIN
from sbc_agent.media.messages import CallPolicy

BUILT_IN: Final = Ruling(DEFAULT_RULE, 0, provisional=False, waits=False, silent=False)
_SETTLED_AFTER_US: Final = 1_000_000 * SETTLED_AFTER_S

Wanted = Literal["kept", "waiting", "silent"]


class ChoiceSource(Protocol):
    """Choices that came before a call: ``consents.Consents``."""

    def of_call(self, facts: Mapping[str, Any], now_us: int) -> list[Choice]:
        """The choices for a call."""

    def links(self, facts: Mapping[str, Any]) -> frozenset[str]:
        """What a call shares with those that inherit its choices."""

    def link(self, links: Iterable[str], choices: Sequence[Choice], now_us: int) -> None:
        """A call with these links has these choices: what follows it inherits them."""


@dataclass(slots=True)
class Case:
    """What policy and people say of one call; times are microseconds of the agent's clock.

    Attributes:
        began_us: When it was answered.
        policy: The policy in force then: a later one is for later calls.
        is_bound: Whether its ruling stands, since an earlier run made it by a version that this one does not have.
        ruling: Its word.
        choices: What people chose.
        fate: What becomes of it; None while it waits.
        is_settled: Whether what is known of it is enough, since nothing more came in time.
        is_judged: Whether a ruling was final once: what a party that leaves takes with it is no news.
        kept_how: By which way it was decided that it is kept.
        kept_us: When.
        kept_by: Opaque id of who decided; empty if nobody did.
        links: What it shares with those that inherit its choices.
        linked: The facts that say so.
    """

    began_us: int
    policy: RecordingPolicy | None = None
    is_bound: bool = False
    ruling: Ruling = BUILT_IN
    choices: list[Choice] = field(default_factory=list)
    fate: Fate | None = "keep"
    is_settled: bool = False
    is_judged: bool = False
    kept_how: Means = "rule"
    kept_us: int = 0
    kept_by: str = ""
    links: frozenset[str] = frozenset()
    linked: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def wanted(self) -> Wanted:
        """What the media process shall do with it: keep it, gather it sealed for nobody, or gather nothing."""
        if self.fate is None:
            return "silent" if self.ruling.silent else "waiting"
        return "kept" if self.fate == "keep" else "silent"

    @property
    def may_go_on(self) -> bool:
        """Whether a call that is being kept may be kept further: nobody refused, and its rule wants no word for it."""
        return self.fate == "keep" or (self.fate is None and self.ruling.rule.by_default == "keep")

    @property
    def kept(self) -> Kept:
        """Why it is kept."""
        return self.ruling.kept(self.kept_how, self.kept_us, self.kept_by)

    @property
    def is_regulated(self) -> bool:
        """Whether it is recorded whatever anybody chooses."""
        return self.ruling.rule.regulated

    @property
    def fails_closed(self) -> bool:
        """Whether it is better ended than not recorded, while it is to be recorded."""
        return self.ruling.rule.on_failure == "closed" and self.fate != "discard"

    @property
    def due_us(self) -> int | None:
        """When time alone says something new; None if it never does."""
        if self.ruling.provisional:
            return None if self.is_settled else self.began_us + _SETTLED_AFTER_US
        within_s = self.ruling.rule.decide_within_s
        return None if within_s is None or self.fate is not None else self.began_us + 1_000_000 * within_s

    def profile(self, usual: CallPolicy) -> CallPolicy:
        """How keys and tones are treated; where a party has answered, no key is an answer any more.

        While another rule may be the call's, digits are left out: what one stored, another could not take back.

        Args:
            usual: How they are in calls that the built-in rule keeps.
        """
        rule, is_open = self.ruling.rule, self.ruling.provisional
        if rule is DEFAULT_RULE and not is_open:
            return usual
        asks = not any(choice.cause != "personal" for choice in self.choices)
        return replace(
            usual,
            tones="blank" if is_open else rule.tones,
            card="pause" if is_open else rule.card,
            accept_keys=rule.accept_keys if asks else "",
            decline_keys=rule.decline_keys if asks else "",
        )

    def described(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """The SESSION record's facts, and by which rule and whose choice the call is kept."""
        told = {**facts, "policy": asdict(self.kept)}
        return told | {"consents": [asdict(choice.chosen) for choice in self.choices]} if self.choices else told

    def to_json(self, told: Wanted) -> dict[str, Any] | None:
        """What a later run must know; None where it would think so by itself.

        Args:
            told: What the media process does with the call.
        """
        if self.ruling is BUILT_IN and not self.choices and told == "kept":
            return None
        rule = replace(self.ruling.rule, match=Match())
        return {
            "told": told,
            "rule": asdict(rule),
            "version": self.ruling.version,
            "fate": self.fate,
            "choices": [[one.decision, one.cause, one.how, one.at_us, one.by] for one in self.choices],
            "kept": [self.kept_how, self.kept_us, self.kept_by],
        }

    def decide_by(self, fate: Fate, how: Means, at_us: int, by: str = "") -> None:
        """Notes what becomes of it; if it is kept, why."""
        self.fate = fate
        if fate == "keep":
            self.kept_how, self.kept_us, self.kept_by = how, at_us, by


@checked(config=ConfigDict(extra="forbid"), frozen=True, slots=True)
class _Noted:
    """The form of ``Case.to_json``."""

    told: Wanted
    rule: Rule
    version: int
    fate: Fate | None
    choices: list[tuple[Fate, Cause, Means, int, str]]
    kept: tuple[Means, int, str]


_NOTED: Final = TypeAdapter(_Noted)


class Decisions:
    """Judges calls.

    Args:
        policy: Yields the policy in force.
        choices: Choices that came before a call; None if there are none.
        offset_us: Yields how far true time is ahead of the agent's clock.
        usual: Yields how keys and tones are treated where no rule says so.
    """

    def __init__(
        self,
        policy: Callable[[], RecordingPolicy | None] = lambda: None,
        choices: ChoiceSource | None = None,
        offset_us: Callable[[], int] = lambda: 0,
        usual: Callable[[], CallPolicy] = lambda: PLAIN,
    ) -> None:
        self._policy, self._choices, self._offset_us, self._usual = policy, choices, offset_us, usual

    def profile(self, case: Case) -> CallPolicy:
        """How keys and tones of a call are treated now."""
        return case.profile(self._usual())

    def opened(self, facts: Mapping[str, Any], headers: Mapping[str, str], at_us: int) -> Case:
        """Judges a new call."""
        case = Case(at_us, self._policy(), kept_us=at_us)
        self.consider(case, facts, headers, at_us)
        return case

    def consider(self, case: Case, facts: Mapping[str, Any], headers: Mapping[str, str], now_us: int) -> None:
        """Judges a call by what is known now, and takes the choices that were made for it elsewhere."""
        ruling = case.ruling
        if (policy := case.policy) is not None and not case.is_bound:
            known = CallFacts.of_session(facts, max(0, case.began_us + self._offset_us()) // 1000, headers)
            ruling = evaluate(policy, known, final=case.is_settled)
        self._rule(case, ruling, now_us)
        before = len(case.choices)
        if self._choices is not None:
            for choice in self._choices.of_call(facts, now_us):
                self._add(case, choice)
        if ruling.rule.headers is not None:
            value = headers.get(ruling.rule.headers.name.lower())
            answer = None if value is None else ruling.rule.headers.read([value, *value.split(",")])
            if answer is not None:
                self._add(case, Choice.answered(ruling, answer, "header", now_us))
        if len(case.choices) > before:
            self._judge(case, now_us)
        if case.choices and self._choices is not None:
            self._choices.link(self.links(case, facts), case.choices, now_us)

    def links(self, case: Case, facts: Mapping[str, Any]) -> frozenset[str]:
        """What a call shares with those that inherit its choices: reckoned once for the same facts."""
        if self._choices is not None and not (case.links and case.linked is facts):
            case.linked, case.links = facts, self._choices.links(facts)
        return case.links

    def restored(self, fate: Mapping[str, Any] | None, facts: Mapping[str, Any], began_us: int) -> tuple[Case, Wanted]:
        """What an earlier run knew of a call, and what its media process did with it.

        Args:
            fate: What that run noted.
            facts: What this one knows of the call.
            began_us: When it began.

        Returns:
            The call as it was judged; where the note cannot be read, as it is judged now, and nothing is adopted.
        """
        case = Case(began_us, self._policy() if fate is not None else None, kept_us=began_us)
        if fate is None:
            return case, "kept"
        try:
            noted = _NOTED.validate_json(json.dumps(dict(fate)))
        except ValidationError:
            self.consider(case, facts, {}, began_us)
            return case, "silent"
        case.choices = [Choice(*chosen) for chosen in noted.choices]
        case.kept_how, case.kept_us, case.kept_by = noted.kept
        case.is_bound = case.policy is None or case.policy.version != noted.version
        rules = () if case.policy is None or case.is_bound else case.policy.rules
        rule = next((rule for rule in rules if rule.id == noted.rule.id), noted.rule)
        silent = rule.waits and rule.record == "on_demand"
        case.ruling = Ruling(rule, noted.version, provisional=False, waits=rule.waits, silent=silent)
        case.fate, case.is_judged = noted.fate, True
        return case, noted.told

    def choose(self, case: Case, choice: Choice, facts: Mapping[str, Any]) -> bool:
        """Somebody chose; returns whether that was new."""
        if not self._add(case, choice):
            return False
        self._judge(case, choice.at_us)
        if self._choices is not None:
            self._choices.link(self.links(case, facts), case.choices, choice.at_us)
        return True

    def pass_time(self, case: Case, facts: Mapping[str, Any], headers: Mapping[str, str], now_us: int) -> None:
        """Decides what time decides."""
        if case.ruling.provisional and now_us >= case.began_us + _SETTLED_AFTER_US:
            case.is_settled = True
            self.consider(case, facts, headers, now_us)
        # The time of a rule counts from the answer, but only a rule that is known to be the call's decides anything.
        if case.fate is None and case.due_us is not None and case.due_us <= now_us:
            case.decide_by(settle(case.ruling, case.choices), "timeout", now_us)

    def end(self, case: Case, facts: Mapping[str, Any], headers: Mapping[str, str], at_us: int) -> None:
        """The call is over: what is known is enough, and the rule decides what nobody did."""
        if case.ruling.provisional:
            case.is_settled = True
            self.consider(case, facts, headers, at_us)
        if case.fate is None:
            case.decide_by(settle(case.ruling, case.choices), "end", at_us)

    def _rule(self, case: Case, ruling: Ruling, now_us: int) -> None:
        if ruling.provisional and case.is_judged:
            return
        changed, case.ruling = ruling != case.ruling, ruling
        case.is_judged = not ruling.provisional
        if changed:
            case.fate = None if ruling.waits else case.fate
            self._judge(case, now_us)

    def _judge(self, case: Case, now_us: int) -> None:
        """Decides by rule and choices; what was decided by time stays so while nobody says anything else."""
        ruling = case.ruling
        fate = decide(ruling, case.choices)
        if ruling.provisional and any(choice.decision == "discard" for choice in case.choices):
            fate = case.fate = None  # whether it may be refused is not known yet: nothing leaves before
        if fate is None or fate == case.fate:
            return
        word = None if decide(ruling, ()) == fate else _word(ruling, case.choices, fate)
        if word is None:
            case.decide_by(fate, "rule", now_us)
        else:
            case.decide_by(fate, word.how, word.at_us, word.by)

    @staticmethod
    def _add(case: Case, choice: Choice) -> bool:
        if any(_same(choice, known) for known in case.choices):
            return False
        case.choices.append(choice)
        return True


def _word(ruling: Ruling, choices: Sequence[Choice], fate: Fate) -> Choice | None:
    """The choice that a fate follows from."""
    return next((choice for choice in choices if decide(ruling, [choice]) == fate), None)


def _same(one: Choice, other: Choice) -> bool:
    """Whether two choices say the same of the same person, also where one came again or was inherited."""
    inherited = "inherited" in (one.how, other.how)
    ways = one.how == other.how or (inherited and one.at_us == other.at_us)
    return ways and (one.decision, one.cause, one.by) == (other.decision, other.cause, other.by)
