"""The recording policy: which calls a tenant keeps, in rules that are read from top to bottom. Pure.

The first rule that matches a call decides (`recording_ruling`); a call that none matches is recorded. A policy is
canonical JSON in a signed envelope of kind ``recording-policy``: the cloud signs a new version, agents verify, keep and
obey it, also without an uplink.

| record      | what becomes of the call                                                                        |
|-------------|-------------------------------------------------------------------------------------------------|
| `always`    | it is recorded at once; where personal calls are allowed it waits on site, to be kept by default |
| `on_demand` | nothing is gathered until somebody asks for it; from then on it is kept                          |
| `live_keep` | it waits; whoever asks for it, however late, keeps it from its start                             |
| `consent`   | it waits until consent is given or refused; if neither, `undecided` says what then               |
| `never`     | nothing of it is gathered, stored or told; it is counted                                         |

A call that waits is sealed in the agent under a key that only memory holds. Rules that are regulated come first, record
at once and ask nobody: an unregulated rule above them could hide a line that must record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.direction import Lines
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_tenant_id
from dualtone.domain.signing import Envelope, Signer

KIND: Final = "recording-policy"
FORMAT: Final = 1
MOST_RULES: Final = 200
MOST_PATTERNS: Final = 200
LONGEST_POLICY: Final = 320 * 1024
"""Bytes of canonical JSON: it is one item of a table, and part of one answer to an agent."""
LONGEST_WAIT_S: Final = 14_400
DEFAULT_ID: Final = "default"
"""Id of the built-in rule, which no rule of a tenant may have."""
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Record = Literal["always", "on_demand", "live_keep", "consent", "never"]
Fate = Literal["keep", "discard"]
Basis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]  # REQ: GDPR article 6 (1), (a) to (f)
Direction = Literal["inbound", "outbound", "internal"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

RuleId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
GroupName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9 _.-]{0,39}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=100)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=MOST_PATTERNS)]
Keys = Annotated[str, Field(pattern=r"^[0-9*#A-D]{0,16}$")]
Answer = Annotated[str, Field(min_length=1, max_length=100)]

_STRICT: Final = ConfigDict(strict=True, extra="forbid")
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_DAY_MINUTES: Final = 24 * 60
_WAITING: Final = ("on_demand", "live_keep", "consent")


@checked(config=_STRICT, frozen=True, slots=True)
class Match:
    """Which calls a rule is for: those to which every member applies; a member that is empty applies to all.

    Attributes:
        lines: Patterns of the tenant's own numbers (see `direction`); one of the parties is such a line.
        groups: Names of groups of lines, as the policy defines them; one of the parties belongs to one.
        queues: Names or numbers of the queue that the call came through, as the SBC tells it.
        directions: Ways of the call.
        numbers: Patterns of the other party's number.
        weekdays: Days on which it began.
        hours: Time of day at which it began, ``HH:MM-HH:MM``, the end not included. One that ends before it begins
            lasts over midnight and belongs to the day on which it began.
        timezone: Where days and hours are reckoned, by its name in the IANA database.
    """

    lines: Patterns = ()
    groups: Annotated[tuple[GroupName, ...], Field(max_length=MOST_PATTERNS)] = ()
    queues: Patterns = ()
    directions: Annotated[tuple[Direction, ...], Field(max_length=3)] = ()
    numbers: Patterns = ()
    weekdays: Annotated[tuple[Weekday, ...], Field(max_length=7)] = ()
    hours: Annotated[str, Field(max_length=11)] | None = None
    timezone: Annotated[str, Field(max_length=64)] | None = None

    def __post_init__(self) -> None:
        """Refuses what no member's own form refuses; each text says what to write."""
        for name in ("lines", "queues", "numbers"):
            _parsed(name, getattr(self, name))
        if self.hours is not None:
            begins, ends = minutes(self.hours)
            if begins == ends:
                raise ValueError("`hours` begin and end at the same minute: leave them out for the whole day")
        if (self.weekdays or self.hours) and self.timezone is None:
            raise ValueError("say in which `timezone` days and hours are reckoned, for example Europe/London")
        if self.timezone is not None:
            zone(self.timezone)


@checked(config=_STRICT, frozen=True, slots=True)
class HeaderConsent:
    """A choice that the SBC or an announcement before it tells in a header field of the recording session.

    Attributes:
        name: The field's name.
        accept: Values that mean consent; compared whole, without regard to case.
        decline: Values that mean refusal.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9.!%*_+`'~-]{1,64}$")]  # REQ: RFC 3261 section 25.1: token
    accept: Annotated[tuple[Answer, ...], Field(max_length=16)] = ()
    decline: Annotated[tuple[Answer, ...], Field(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Refuses a field that says nothing, or both of one value."""
        accept, decline = _folded(self.accept), _folded(self.decline)
        if not accept | decline:
            raise ValueError("`headers` needs a value under `accept` or `decline`")
        if accept & decline:
            raise ValueError("a value of `headers` cannot both accept and decline")

    def read(self, values: Sequence[str]) -> Literal["accept", "decline"] | None:
        """What the values of the header field say; a refusal counts more than a consent."""
        told = _folded(values)
        if told & _folded(self.decline):
            return "decline"
        return "accept" if told & _folded(self.accept) else None


@checked(config=_STRICT, frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: Names it in recordings, counters and the audit log.
        record: What becomes of calls that it matches.
        basis: On which of the six lawful bases of GDPR article 6 they are kept.
        name: What people call it.
        match: Which calls it is for.
        regulated: They must be recorded: no refusal, no personal call, no discard.
        personal_allowed: A user may have a call discarded as personal.
        accept_keys: DTMF keys with which a party consents, or asks for the recording where it is on demand.
        decline_keys: Keys with which it refuses.
        headers: Header field that tells the choice.
        undecided: With ``consent``: what becomes of a call of which nobody said anything.
        decide_within_s: When a call that waits is decided by what is known; None: at its end.
        tones: Whether tones of digits are blanked in all that is stored.
        card: Whether digits of a card number pause the call by themselves.
        on_failure: If it cannot be recorded: ``open`` lets the call be, ``closed`` refuses the recording session so
            that the SBC may end it.
    """

    id: RuleId
    record: Record
    basis: Basis
    name: Annotated[str, Field(max_length=100)] = ""
    match: Match = Field(default_factory=Match)
    regulated: bool = False
    personal_allowed: bool = False
    accept_keys: Keys = ""
    decline_keys: Keys = ""
    headers: HeaderConsent | None = None
    undecided: Fate | None = None
    decide_within_s: Annotated[int, Field(ge=1, le=LONGEST_WAIT_S)] | None = None
    tones: Literal["blank", "keep"] = "blank"
    card: Literal["pause", "off"] = "pause"
    on_failure: Literal["open", "closed"] = "open"

    def __post_init__(self) -> None:
        """Refuses what contradicts itself; each text says what to write."""
        if self.regulated:
            self._must_record()
        if self.personal_allowed and self.record == "never":
            raise ValueError("nothing of a call that is never recorded can be personal: leave `personal_allowed` out")
        if self.record == "never" and (self.on_failure == "closed" or self._asks):
            raise ValueError("`never` asks nobody and cannot fail: leave out keys, `headers` and `on_failure`")
        if set(self.accept_keys) & set(self.decline_keys):
            raise ValueError("a key cannot be both in `accept_keys` and in `decline_keys`")
        if self.undecided is not None and self.record != "consent":
            raise ValueError("`undecided` goes with `record` = consent alone")
        if self.decide_within_s is not None and not self.waits:
            raise ValueError("`decide_within_s` is for calls that wait: this rule's calls do not")

    @property
    def waits(self) -> bool:
        """Whether its calls wait for a decision."""
        return self.record in _WAITING or (self.record == "always" and self.personal_allowed)

    @property
    def by_default(self) -> Fate:
        """What becomes of a call of which nobody said anything."""
        if self.record == "always":
            return "keep"
        return self.undecided or "discard"

    @property
    def _asks(self) -> bool:
        return bool(self.accept_keys or self.decline_keys or self.headers)

    def _must_record(self) -> None:
        # REQ: MiFID II article 16 (7): relevant calls are recorded, whatever a party or an employee wishes.
        if self.record != "always":
            raise ValueError("a regulated rule records every call: write `record` = always")
        if self.personal_allowed:
            raise ValueError("calls of a regulated rule are never personal: leave `personal_allowed` out")
        if self._asks:
            raise ValueError("a regulated rule asks nobody: leave out `accept_keys`, `decline_keys` and `headers`")
        if self.basis == "consent":
            raise ValueError("a regulated rule does not rest on consent: write `basis` = legal_obligation, for example")


@checked(config=_STRICT, frozen=True, slots=True)
class RecordingPolicy:
    """A version of a tenant's policy.

    Attributes:
        tenant: Whose.
        version: Grows by one with every change.
        issued_at_ms: When it was signed, Unix time.
        rules: In their order.
        groups: Groups of lines: name and patterns.
        lines: Patterns of all the tenant's lines, by which the way of a call is told.
    """

    tenant: str
    version: Annotated[int, Field(ge=1, le=canonical.MAX_SAFE_INTEGER)]
    issued_at_ms: Annotated[int, Field(ge=0, le=canonical.MAX_SAFE_INTEGER)]
    rules: Annotated[tuple[Rule, ...], Field(max_length=MOST_RULES)]
    groups: Annotated[dict[GroupName, Patterns], Field(max_length=MOST_PATTERNS)] = Field(default_factory=dict)
    lines: Annotated[tuple[Pattern, ...], Field(max_length=10_000)] = ()
    format: Literal[1] = FORMAT

    def __post_init__(self) -> None:
        """Refuses what no rule by itself shows."""
        for problem in contradictions(self.rules, self.groups):
            raise ValueError(problem)
        _parsed("lines", self.lines)

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs the policy."""
        return Envelope.sealed_by(signer, KIND, canonical.encode(asdict(self)))


def contradictions(rules: Sequence[Rule], groups: dict[str, tuple[str, ...]]) -> list[str]:
    """What is wrong with rules taken together, each text with the rule's id and what to write."""
    found, seen, unregulated = [], {DEFAULT_ID}, ""
    for name, patterns in groups.items():
        try:
            _parsed("groups", patterns)
        except ValueError as error:
            found.append(f"group `{name}`: {error}")
    for rule in rules:
        if rule.id in seen:
            found.append(f"rule `{rule.id}`: this `id` is taken: give each rule one of its own")
        seen.add(rule.id)
        found += [
            f"rule `{rule.id}`: group `{name}` is not defined: add it under `groups`"
            for name in rule.match.groups
            if name not in groups
        ]
        if not rule.regulated:
            unregulated = unregulated or rule.id
        elif unregulated:
            found.append(f"rule `{rule.id}` is regulated: move it above `{unregulated}`, which could hide it")
    return found


def verified(envelope: Envelope, public_key_der: bytes) -> RecordingPolicy:
    """Verifies a policy against the cloud's pinned key.

    Raises:
        IntegrityError: If the signature is not the cloud's.
        MalformedInput: If it is not of the format, or names a time zone that this machine does not know.
    """
    return read(envelope.verified(public_key_der, KIND))


def read(payload: bytes) -> RecordingPolicy:
    """Reads the payload of a policy whose signature was verified; raises MalformedInput."""
    if len(payload) > LONGEST_POLICY:
        raise MalformedInput("a recording policy is too long")
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        policy = _POLICY.validate_json(payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a well-formed recording policy") from None
    parse_tenant_id(policy.tenant)
    return policy


def minutes(hours: str) -> tuple[int, int]:
    """First minute of the day of a time of day, and the one after its last: 0 to 1440.

    Raises:
        ValueError: If it has another form.
    """
    found = _HOURS.fullmatch(hours)
    if found is None:
        raise ValueError("write `hours` as HH:MM-HH:MM, for example 09:00-17:30")
    begins = 60 * int(found[1]) + int(found[2])
    return begins, _DAY_MINUTES if found[3] is None else 60 * int(found[3]) + int(found[4])


def zone(name: str) -> ZoneInfo:
    """The time zone of a name; raises ValueError if this machine knows none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not known, no name, a directory
        raise ValueError("write `timezone` as the IANA database does, for example Europe/London") from None


def _parsed(name: str, patterns: tuple[str, ...]) -> None:
    try:
        Lines.parse(patterns)
    except MalformedInput:
        raise ValueError(
            f"write each of `{name}` as a number, a name, or a pattern such as +4420* or 21?? (a star at the end alone)"
        ) from None


def _folded(values: Sequence[str]) -> frozenset[str]:
    return frozenset(value.strip().casefold() for value in values)


_POLICY: Final = TypeAdapter(RecordingPolicy)
DEFAULT_RULE: Final = Rule(id=DEFAULT_ID, record="always", basis="legitimate_interests", name="No rule matched")
