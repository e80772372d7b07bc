"""Follow calls while they last and afterwards: all live ones, one with its commands, one by the SBC's Call-ID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain import call_match
from dualtone.domain.call_match import MatchKind
from dualtone.domain.errors import IntegrityError, NotFound
from dualtone.domain.ids import CallId, RecordingId, TenantId
from dualtone.domain.pause_ledger import Ledger, LedgerCommand, LiveCall
from dualtone.domain.recording_entry import CallState
from dualtone.domain.tenancy import Principal, Verb

# What is told of a call whose agent has it on its disk: it is over, and not here yet.
_STATES: Final = {"live": "live", "ended": "ended", "spooled": "ended"}


class Calls(Protocol):
    """Calls while they last."""

    def live(self, tenant: TenantId) -> list[LiveCall]:
        """Calls that last, the newest first."""

    def latest(self, tenant: TenantId, token: str) -> CallId | None:
        """The latest call that has a match token."""


class Ledgers(Protocol):
    """The ledgers."""

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger."""


class Recordings(Protocol):
    """What became of calls."""

    def calls(self, tenant: TenantId, token: str) -> list[CallState]:
        """Reads the calls with a SIP Call-ID that arrived, the oldest first."""

    def recording_of(self, tenant: TenantId, call: CallId) -> RecordingId | None:
        """The recording that a call became."""


class SipTokens(Protocol):
    """Makes the tokens under which Call-IDs are found."""

    def sip_call_id(self, tenant: TenantId, sip_call_id: str) -> str:
        """The token of a SIP Call-ID."""


class LiveKeys(Protocol):
    """Tenants' live keys."""

    def of(self, tenant: TenantId) -> bytes:
        """32 bytes."""


@dataclass(frozen=True, slots=True)
class ToldChoice:
    """A choice that was made for a call, as its agent told it.

    Attributes:
        choice: What was chosen.
        how: By which way.
        by: Opaque id of who chose; empty if nobody knows.
        at_ms: When, true time.
        outcome: What became of the call by it.
    """

    choice: str
    how: str
    by: str
    at_ms: int
    outcome: str


class Choices(Protocol):
    """What people chose for calls."""

    def of_call(self, tenant: TenantId, call: CallId) -> list[ToldChoice]:
        """The choices that were made for a call, in the order of their times."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A call as its tenant's people see it.

    Attributes:
        live: What its agent reports.
        state: ``live`` or ``ended``.
        parties: Who takes part: role, address and name of each; None unless they may be seen, or if they do not open.
        commands: Its pauses and resumes, in the order of receipt; empty in lists.
        choices: What people chose for it, in the order of time; empty in lists.
        recording_id: The recording that it became.
    """

    live: LiveCall
    state: str
    parties: Sequence[dict[str, str]] | None
    commands: tuple[LedgerCommand, ...] = ()
    choices: tuple[ToldChoice, ...] = ()
    recording_id: RecordingId | None = None


class FollowCalls:
    """Reads calls."""

    def __init__(
        self,
        *,
        calls: Calls,
        ledgers: Ledgers,
        choices: Choices,
        recordings: Recordings,
        sip_tokens: SipTokens,
        live_keys: LiveKeys,
    ) -> None:
        """Takes the stores, and what names calls."""
        self._calls = calls
        self._choices = choices
        self._ledgers = ledgers
        self._recordings = recordings
        self._sip_tokens = sip_tokens
        self._live_keys = live_keys

    def live(self, principal: Principal) -> list[Followed]:
        """The tenant's calls that last, the newest first; parties only for those who may see them."""
        return [self._followed(principal, call) for call in self._calls.live(principal.tenant)]

    def one(self, principal: Principal, call: CallId) -> Followed:
        """A call with its commands; raises NotFound if none of the tenant's agents ever reported it."""
        ledger = self._ledgers.read(principal.tenant, call)
        if ledger.live is None:
            raise NotFound("no such call")
        commands = tuple(sorted(ledger.commands, key=lambda command: (command.received_at_ms, command.number)))
        followed = self._followed(principal, ledger.live)
        return Followed(
            followed.live,
            followed.state,
            followed.parties,
            commands,
            tuple(self._choices.of_call(principal.tenant, call)),
            self._recordings.recording_of(principal.tenant, call),
        )

    def by_sip_call_id(self, tenant: TenantId, sip_call_id: str) -> CallState:
        """The latest call with a Call-ID of a recording dialog; raises NotFound if it was never heard of."""
        arrived = self._recordings.calls(tenant, self._sip_tokens.sip_call_id(tenant, sip_call_id))
        latest = self._calls.latest(tenant, call_match.token(self._live_keys.of(tenant), MatchKind.DIALOG, sip_call_id))
        # Ids of calls are ULIDs: the greater one is the later one.
        if latest is not None and (not arrived or latest > arrived[-1].call_id):
            live = self._ledgers.read(tenant, latest).live
            if live is not None:
                return CallState(latest, _STATES[live.state], None)
        if not arrived:
            raise NotFound("no call with that Call-ID has been heard of")
        return arrived[-1]

    def _followed(self, principal: Principal, call: LiveCall) -> Followed:
        parties = None
        if principal.may(Verb.SEE_PARTIES) and call.sealed:
            try:
                parties = call_match.unseal(self._live_keys.of(call.tenant), call.tenant, call.call_id, call.sealed)
            except IntegrityError:
                parties = None  # of one call; the agent's next report brings them again
        return Followed(call, _STATES[call.state], parties)
