"""Pauses and resumes for calls that are in the spool and no longer, or not yet again, in the rings.

All of such a call has left the ring: a pause comes too late, and its span is cut out of the files. Where the call's
dialog may still live, because the agent has just started, its note takes the command, so that the call is silent when
it is adopted.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.media import cuts
from sbc_agent.media.call import Call
from sbc_agent.media.call_state import STATE_NAME, replace_file
from sbc_agent.media.cuts import Cut
from sbc_agent.media.disk import Disk
from sbc_agent.media.messages import Alarm, Event, Pause, PauseApplied, Resume
from sbc_agent.media.pauses import answer_again, applied, owed_pause, pause_of
from sbc_agent.media.recovery import Recovery
from sbc_agent.media.silence import Silence

RETRY_US: Final = 1_000_000
MOST_REFUSED: Final = 1_024


class LatePauses:
    """Answers commands for calls outside the rings; what the spool refuses to note is kept and tried again.

    Args:
        recovery: Knows what lies in the spool.
        disk: Cuts files.
    """

    def __init__(self, recovery: Recovery, disk: Disk) -> None:
        self._recovery, self._disk = recovery, disk
        self._refused: dict[tuple[str, str], Pause | Resume] = {}
        self._told: set[tuple[str, str]] = set()
        self._retry_us = 0

    def due(self, now_us: int) -> list[Pause | Resume]:
        """Refused commands that are to be given again, about once a second; their calls may be in the rings by now."""
        if not self._refused or now_us < self._retry_us:
            return []
        commands, self._told = list(self._refused.values()), set(self._refused)
        self._refused, self._retry_us = {}, now_us + RETRY_US
        return commands

    def handle(self, command: Pause | Resume, now_us: int) -> list[Event]:
        """Carries a command out.

        Returns:
            The answer; an alarm instead, once, where the spool refuses to note it; ``due`` then gives it again.
        """
        call = CallId(command.call)
        if not self._recovery.is_spooled(call):
            return [applied(command, "unknown", at_us=now_us)]
        try:
            return [self._note(call, command, now_us)]
        except FileNotFoundError:  # the uplink freed it meanwhile
            return [applied(command, "unknown", at_us=now_us)]
        except OSError:
            key = (command.call, command.command)
            is_told = key in self._told or key in self._refused
            if len(self._refused) < MOST_REFUSED:
                self._refused[key] = command
            return [] if is_told else [Alarm(kind="spool_write", call=call)]

    def _note(self, call: CallId, command: Pause | Resume, now_us: int) -> PauseApplied:
        directory = self._recovery.spool_dir / call
        unfinished = None if self._recovery.is_finished(call) else self._unfinished(call)
        causes: tuple[str, ...] = ()
        if unfinished is not None:
            silence = unfinished.silence
            noted = cuts.noted_for(directory, command.command)
            again = answer_again(silence, command, noted)
            if again is not None:
                if noted is not None:
                    self._disk.submit(call, partial(cuts.carry_out, directory, call, noted))
                return again
            owed = _carried_out(silence, command, now_us)
            if owed is None:
                return applied(command, "superseded", at_us=now_us, causes=silence.causes)
            command = owed
            causes = silence.causes
        cut = None
        if isinstance(command, Pause):
            to_us = max(command.at_us, now_us) if command.until_us is None else command.until_us - 1
            cut = Cut(command.command, command.from_us, max(to_us, command.from_us))
            cuts.note(directory, cut)  # first: once its number is noted, a command that comes again does nothing
        if unfinished is not None:
            replace_file(directory / STATE_NAME, unfinished.state.encode(), suffix=".late")
        if cut is None:
            return applied(command, "acknowledged", at_us=now_us, causes=causes)
        self._disk.submit(call, partial(cuts.carry_out, directory, call, cut))
        return applied(command, "too_late", at_us=now_us, left_until_us=cut.to_us, causes=causes)

    def _unfinished(self, call: CallId) -> Call | None:
        """A call that may yet be adopted; None where nothing can take it up again."""
        try:
            return self._recovery.reopen(call).call
        except (MalformedInput, IntegrityError):
            return None


def _carried_out(silence: Silence, command: Pause | Resume, now_us: int) -> Pause | Resume | None:
    """Notes a command in a call's silence; what is left of it to do, or None."""
    if isinstance(command, Pause):
        owed = owed_pause(silence, command)
        if owed is not None:
            silence.begin(pause_of(owed))
        return owed
    if not silence.takes(command.origin, command.cause, command.number):
        return None
    lifted_us = max(command.at_us, now_us)
    silence.lift(command.origin, command.cause, command.number, lifted_us, command.by, command.command)
    return command
