"""A recording session as the recorder keeps it, and who else must know of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dualtone.domain.ids import CallId
from sbc_agent.media.messages import StreamSpec
from sbc_agent.runtime.journal import LiveCall

CallState = Literal["live", "ended"]


class CallListener(Protocol):
    """Who must know which calls there are: the control channel."""

    def on_call(self, call: CallId, facts: Mapping[str, Any], state: CallState, at_us: int) -> Collection[str]:
        """A call began, is known better, or ended.

        Args:
            call: The call.
            facts: The SESSION record; after a restart only what was told since.
            state: ``ended`` once, as the last word on a call.
            at_us: When, by the agent's clock.

        Returns:
            The tokens that the call can be found by: the journal keeps them.
        """

    def on_adopted(
        self, call: CallId, matches: Collection[str], began_at_us: int, instead_of: CallId | None = None
    ) -> None:
        """A call of an earlier run goes on; until its facts are told again it is known by these tokens alone.

        Args:
            call: The call.
            matches: The tokens.
            began_at_us: When it began, by the agent's clock.
            instead_of: Which call of the earlier run it goes on with, if that could not be adopted: what that was
                silent for, it is silent for from its beginning.
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
