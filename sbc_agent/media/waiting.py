"""Calls that wait for a decision: kept from their beginning, kept from now on, or not at all.

Such a call is sealed and spooled as any other, but nobody has its key: that is wrapped for the tenant when somebody
decides that the call is kept, and destroyed when somebody decides otherwise. A call on demand is not even gathered
until then. Either way its ports stay its own to the end of its dialog; what comes there and is not wanted is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from sbc_agent.media.beginnings import Beginnings
from sbc_agent.media.clock import Moment
from sbc_agent.media.messages import Decided, Event
from sbc_agent.media.pauses import Pauses
from sbc_agent.media.recording import Recording


class Waiting:
    """Carries out decisions.

    Args:
        beginnings: Opens calls, and gives them other keys.
        pauses: Says what is heard, and takes back what was.
        tell: Takes events.
    """

    def __init__(self, beginnings: Beginnings, pauses: Pauses, tell: Callable[[Event], None]) -> None:
        self._beginnings, self._pauses, self._tell = beginnings, pauses, tell

    def decide(self, recording: Recording, at_us: int, moment: Moment, *, keep: bool) -> None:
        """Carries a decision out; of a call that is kept already there is nothing to decide.

        Args:
            recording: The call.
            at_us: When it was decided.
            moment: Now.
            keep: What was decided.
        """
        if not recording.waits:
            self._tell(Decided(call=recording.call.call, keep=keep, outcome="kept"))
        elif keep:
            self._keep(recording, max(at_us, moment.now_us), moment)
        else:
            self.discard(recording, moment)
            self._tell(Decided(call=recording.call.call, keep=keep, outcome="discarded"))

    def discard(self, recording: Recording, moment: Moment) -> None:
        """Leaves nothing of a call that waits, in rings, buffers and spool; from now on it is a call on demand."""
        call = recording.call
        if call.is_on_demand:
            return  # nothing was gathered
        call.is_on_demand = True
        self._pauses.take_back_all(recording, moment)
        self._beginnings.renew(recording)
        call.begin_at(moment.now_us)

    def _keep(self, recording: Recording, now_us: int, moment: Moment) -> None:
        """The spool tells it as soon as a power failure would not undo it."""
        call = recording.call
        self._pauses.pass_time(recording, moment)
        if call.is_on_demand:
            self._pauses.drain(recording, moment)  # what came before is dropped
            call.is_on_demand = False
            call.begin_at(now_us)
            recording.since_us = now_us
        recording.waits = False
        self._pauses.set_windows(recording)
        self._beginnings.open(recording)
        recording.spool.write_state(call.state)
