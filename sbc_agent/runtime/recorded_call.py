"""A recording session as the recorder keeps it, and who else must know of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dualtone.domain.ids import CallId
from dualtone.domain.recording_ruling import Choice, Kept
from sbc_agent.media.client import PLAIN
from sbc_agent.media.messages import CallPolicy, Pause, Resume, StreamSpec
from sbc_agent.runtime.decisions import Case, Wanted
from sbc_agent.runtime.journal import LiveCall

if TYPE_CHECKING:  # with it would come the database, which nothing needs that answers SIP
    from sbc_agent.runtime.live_calls import Standing

CallState = Literal["live", "ended"]
ChoiceOutcome = Literal["kept", "discarded", "stopped", "noted", "ignored", "unknown"]


class CallListener(Protocol):
    """Who must know which calls there are: the control channel."""

    def on_call(
        self,
        call: CallId,
        facts: Mapping[str, Any],
        state: CallState,
        at_us: int,
        *,
        standing: Standing = "recorded",
        policy: Kept | None = None,
        began_us: int | None = None,
    ) -> Collection[str]:
        """A call began, is known better, was decided, or ended.

        Args:
            call: The call.
            facts: The SESSION record; after a restart only what was told since.
            state: ``ended`` once, as the last word on a call.
            at_us: When, by the agent's clock.
            standing: Whether it is recorded; nothing of any other call may leave the site.
            policy: By which rule it is.
            began_us: When its recording began, if that is another moment than the one in which it was told first.

        Returns:
            The tokens that the call can be found by: the journal keeps them.
        """

    def on_choice(self, call: CallId, choice: Choice, command: str | None, outcome: ChoiceOutcome) -> None:
        """Somebody chose for a call that is kept.

        Args:
            call: The call.
            choice: What was chosen.
            command: Id of the cloud's decision, if it came from there.
            outcome: What came of it.
        """

    def on_order(self, message: Pause | Resume) -> None:
        """The recorder is about to silence a call that is kept, or to let it be heard again."""

    def on_adopted(
        self,
        call: CallId,
        matches: Collection[str],
        began_at_us: int,
        instead_of: CallId | None = None,
        *,
        standing: Standing = "recorded",
        causes: Collection[str] = (),
    ) -> None:
        """A call of an earlier run goes on; until its facts are told again it is known by these tokens alone.

        Args:
            call: The call.
            matches: The tokens.
            began_at_us: When it began, by the agent's clock.
            instead_of: Which call of the earlier run it goes on with, if that could not be adopted: what that was
                silent for, it is silent for from its beginning.
            standing: Whether it is recorded.
            causes: Why the other call was silent, if that was not recorded.
        """


@dataclass(slots=True)
class RecordedCall:
    """A recording session on its way: the ports it holds, and what the media process was told last.

    Attributes:
        sip_call_id: The dialog's Call-ID.
        ports: Its ports.
        call: Its id, once it is recorded.
        began_at_us: When that was.
        streams: As the media process knows them.
        facts: Its SESSION record, likewise.
        matches: The tokens that it can be found by.
        inherited: Those of them that an earlier run made of facts that this one may not know.
        kept: What the journal says of it; None if a later run would not find it.
        instead_of: The call of an earlier run that could not be adopted, and that this one goes on with.
        is_known: Whether this run was told its facts.
        is_adopted: Whether an earlier run began it.
        is_abandoned: Whether, besides, this one cannot go on with it.
        headers: Vendors' headers of its requests.
        case: What policy and people say of it, once it is recorded.
        told: What the media process does with it.
        profile: How it treats keys, likewise.
        described: The SESSION record that it has.
        untold: Choices that the listener was not told of.
        was_standing: How it stood when the listener was told last.
        is_stopped: Whether it was kept, and is not kept any further.
        causes: Why it is silent, of a call that is not kept; of others the media process notes it.
        flags: What a reader should know that SIP does not.
    """

    sip_call_id: str
    ports: list[int] = field(default_factory=list)
    call: CallId | None = None
    began_at_us: int = 0
    streams: tuple[StreamSpec, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    matches: frozenset[str] = frozenset()
    inherited: frozenset[str] = frozenset()
    kept: LiveCall | None = None
    instead_of: CallId | None = None
    is_known: bool = False
    is_adopted: bool = False
    is_abandoned: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    case: Case | None = None
    told: Wanted = "kept"
    profile: CallPolicy = PLAIN
    described: Mapping[str, Any] = field(default_factory=dict, repr=False)
    untold: list[tuple[Choice, str | None, ChoiceOutcome]] = field(default_factory=list)
    was_standing: Standing = "recorded"
    is_stopped: bool = False
    causes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def standing(self) -> Standing:
        """How the call stands for people: what the media process does with it, and why nothing, if that is so."""
        if self.told == "kept":
            return "recorded"
        if self.told == "waiting":
            return "waiting"
        is_open = self.case is not None and self.case.fate is None
        return "on_demand" if is_open else "not_recorded"
