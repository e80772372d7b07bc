"""What answers say of live calls, of pauses and resumes, and of agents. As in `answers`, this is the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import Field

from chalicelib.answers import Role
from chalicelib.kept_answers import Choice, KeptBy
from chalicelib.shapes import Instant, RecordingId, Shape, instant
from dualtone.domain.numbers import normalise
from dualtone.domain.pause_ledger import LedgerCommand
from dualtone.domain.tenancy import Agent as KnownAgent
from dualtone.usecases.await_answers import CallAnswer, overall
from dualtone.usecases.follow_calls import Followed
from dualtone.usecases.list_agents import AgentHealth as ReportedHealth

_OUTCOMES: Final = {
    None: "requested",
    "acknowledged": "acknowledged",
    "too_late": "too_late",
    "unknown": "too_late",  # the agent keeps nothing of it any more: what the cloud keeps is cut
    "superseded": "superseded",
}


class Party(Shape):
    """A party of a live call, as the SBC's metadata names it."""

    role: Role
    aor: str = Field(description="Address of record as sent.")
    number: str | None = Field(description="The same, normalised.")
    name: str


class LiveCall(Shape):
    """A call as its agent reports it."""

    call_id: str
    agent_id: str
    state: Literal["live", "ended"]
    started_at: Instant
    ended_at: Instant | None
    paused: bool = Field(description="True while nothing of it is kept.")
    causes: tuple[str, ...] = Field(description="Why nothing is kept.")
    parties: tuple[Party, ...] | None = Field(description="Null unless you may see parties and the call is live.")
    policy: KeptBy | None = Field(description="By which rule it is kept; null if its agent has not said.")

    @classmethod
    def of(cls, followed: Followed) -> LiveCall:
        """From the use case's call."""
        return cls(**_live(followed))


class LiveCalls(Shape):
    """Calls that are live, the newest first."""

    calls: tuple[LiveCall, ...]


class Command(Shape):
    """A pause or resume that was given, and what became of it."""

    command: str
    origin: Literal["cloud", "lan", "agent"] = Field(
        description="Lan: given to the agent itself; agent: it heard a card's number."
    )
    action: Literal["pause", "resume"]
    cause: str
    by: str = Field(description="`person:` and subject id, `endpoint:` and id, or what the agent calls its LAN.")
    received_at: Instant
    effective_at: Instant
    until: Instant | None
    outcome: Literal["acknowledged", "requested", "too_late", "superseded"]
    seconds_until_gone: float | None = Field(description="After a late pause: from receipt to the last copy's end.")

    @classmethod
    def of(cls, command: LedgerCommand) -> Command:
        """From the ledger."""
        return cls.model_validate(
            {
                "command": command.command,
                "origin": command.origin,
                "action": command.action,
                "cause": command.cause,
                "by": command.by,
                "received_at": instant(command.received_at_ms),
                "effective_at": instant(command.effective_at_ms),
                "until": None if command.until_ms is None else instant(command.until_ms),
                "outcome": _OUTCOMES[command.outcome],
                "seconds_until_gone": command.seconds_until_gone,
            }
        )


class FollowedCall(LiveCall):
    """A call with its commands."""

    commands: tuple[Command, ...] = Field(description="In the order of receipt.")
    choices: tuple[Choice, ...] = Field(description="What people chose for it: who, when, how; in the order of time.")
    recording_id: RecordingId | None = Field(description="Null until there is a recording.")

    @classmethod
    def of(cls, followed: Followed) -> FollowedCall:
        """From the use case's call."""
        commands = tuple(map(Command.of, followed.commands))
        choices = tuple(map(Choice.told, followed.choices))
        return cls(**_live(followed), commands=commands, choices=choices, recording_id=followed.recording_id)


class SilentStream(Shape):
    """The first packet of a stream that was not kept."""

    stream: int = Field(description="Its place among the call's streams.")
    rtp_timestamp: int | None = Field(description="Null if no packet has come since.")
    at: Instant


class CommandedCall(Shape):
    """What became of a pause or resume of one call."""

    call_id: str
    state: Literal["live", "ended"] = Field(description="Of the call when the command was given.")
    command: str
    outcome: Literal["acknowledged", "requested", "too_late", "superseded"]
    causes: tuple[str, ...] = Field(description="Why nothing is kept, by the agent's last word.")
    paused: bool | None = Field(description="Whether nothing is kept now; null until the agent has answered.")
    effective_at: Instant
    gap_started_at: Instant | None = Field(description="Where the gap begins; null until the agent has answered.")
    silent_from: tuple[SilentStream, ...]
    seconds_until_gone: float | None = Field(
        description="Too late: from receipt until the last copy of the span was gone; null while there may be one."
    )

    @classmethod
    def of(cls, answer: CallAnswer) -> CommandedCall:
        """From the use case's answer."""
        gap_started_at_ms = answer.gap_started_at_ms
        return cls(
            call_id=answer.call,
            state="live" if answer.state == "live" else "ended",
            command=answer.command,
            outcome=answer.outcome,
            causes=answer.causes,
            paused=answer.paused,
            effective_at=instant(answer.effective_at_ms),
            gap_started_at=None if gap_started_at_ms is None else instant(gap_started_at_ms),
            silent_from=tuple(
                SilentStream(stream=each.stream, rtp_timestamp=each.rtp_timestamp, at=instant(each.at_ms))
                for each in answer.silent_from
            ),
            seconds_until_gone=answer.seconds_until_gone,
        )


class Commanded(Shape):
    """What became of a pause or resume. Open card entry on `acknowledged`, and on nothing else."""

    outcome: Literal["acknowledged", "requested", "pending", "too_late", "superseded"] = Field(
        description="Of the calls that are live, the gravest. `pending`: no such call is known yet; it will be paused "
        "if it comes within 60 seconds."
    )
    calls: tuple[CommandedCall, ...]

    @classmethod
    def of(cls, answers: Sequence[CallAnswer]) -> Commanded:
        """From the use case's answers."""
        return cls(outcome=overall(answers), calls=tuple(map(CommandedCall.of, answers)))

    @property
    def status(self) -> HTTPStatus:
        """200 once the agent has answered, 202 before."""
        return HTTPStatus.ACCEPTED if self.outcome in ("requested", "pending") else HTTPStatus.OK


class NewPaymentEndpoint(Shape):
    """What to give to a payment system; the secret is shown this once."""

    endpoint_id: str
    url: str = Field(description="Where it reports.")
    secret: str = Field(description="`whsec_` and base64: what it signs with (Standard Webhooks).")


class AgentHealth(Shape):
    """How an agent was when it last said so."""

    seen_at: Instant
    version: str
    live_calls: int
    spooled_calls: int = Field(description="Calls that wait on its disk.")
    spooled_bytes: int
    free_bytes: int
    uplink_waiting_s: int = Field(description="Age of the oldest thing that waits to be sent.")
    clock_offset_us: int | None = Field(description="What its clock lacks to ours; null if it could not measure that.")
    clock_uncertainty_us: int | None
    alarms: dict[str, int] = Field(description="How often each kind was raised since it started.")
    not_recorded: dict[str, int] = Field(
        description="How many calls each rule of the policy has left unrecorded, over all runs: all that is told "
        "of them."
    )


class Agent(Shape):
    """An agent."""

    agent_id: str
    name: str
    state: Literal["pending", "active", "revoked"]
    health: AgentHealth | None = Field(description="Null if it never said anything.")

    @classmethod
    def of(cls, agent: KnownAgent, health: ReportedHealth | None) -> Agent:
        """From the directory, and the agent's last word."""
        return cls.model_validate(
            {
                "agent_id": agent.agent_id,
                "name": agent.name,
                "state": agent.state.value,
                "health": None if health is None else _health(health),
            }
        )


class RotatedKey(Shape):
    """An agent that has its next key."""

    agent_id: str


class RevokedAgent(Shape):
    """An agent that was revoked."""

    agent_id: str
    name: str
    state: Literal["pending", "active", "revoked"]


class Agents(Shape):
    """A tenant's agents."""

    agents: tuple[Agent, ...]


def _live(followed: Followed) -> dict[str, Any]:
    call = followed.live
    parties = None
    if followed.parties is not None:
        parties = tuple(
            Party.model_validate({**party, "number": normalise(party["aor"])}) for party in followed.parties
        )
    return {
        "call_id": call.call_id,
        "agent_id": call.agent_id,
        "state": followed.state,
        "started_at": instant(call.started_at_ms),
        "ended_at": None if call.ended_at_ms is None else instant(call.ended_at_ms),
        "paused": bool(call.causes),
        "causes": call.causes,
        "parties": parties,
        "policy": KeptBy.live(call),
    }


def _health(health: ReportedHealth) -> AgentHealth:
    clock = health.clock
    return AgentHealth(
        seen_at=instant(health.seen_at_ms),
        version=health.version,
        live_calls=health.live_calls,
        spooled_calls=health.spooled_calls,
        spooled_bytes=health.spooled_bytes,
        free_bytes=health.free_bytes,
        uplink_waiting_s=health.uplink_waiting_s,
        clock_offset_us=None if clock is None else clock.offset_us,
        clock_uncertainty_us=None if clock is None else clock.uncertainty_us,
        alarms=dict(health.alarms),
        not_recorded=dict(health.not_recorded),
    )
