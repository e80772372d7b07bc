"""Keys that are pressed in calls: what they say to the recording, and whether they are a card's number.

Presses come as telephone events (RFC 4733), as tones in the audio where a call's profile lets them be blanked, and from
signalling (SIP INFO). Telephone events are never stored, tones as the profile says. Somebody who types a card's number
while nobody has paused the call is stopped by that: the call pauses itself, from the first digit on.

What was pressed stays in memory and is in no event, alarm or note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dualtone.domain import ids
from dualtone.domain.ids import AgentId
from sbc_agent.media.call import Call
from sbc_agent.media.card_watch import CardWatch, Way
from sbc_agent.media.clock import FOREVER, Moment
from sbc_agent.media.lines import Lines
from sbc_agent.media.messages import Alarm, CallPolicy, Choice, Digit, Event, Pause, SelfPaused
from sbc_agent.media.pauses import Pauses
from sbc_agent.media.recording import Recording
from sbc_agent.media.records import Turn
from sbc_agent.media.tones import LOOK_AHEAD_US, Blanked

MARGIN_US: Final = 250_000
"""So long before its first digit a pause for a card begins: a key is heard before it is told."""
ORIGIN: Final = "agent"
CAUSE: Final = "dtmf"
_JUDGE_EVERY_US: Final = 500_000
_TURN_US: Final = 1_500_000  # each call leaves once a second


class Keys:
    """Watches the keys of all calls.

    Args:
        lines: Rings and sockets.
        pauses: Makes calls silent.
        agent: This agent, in whose name a call pauses itself.
        hold_back_us: How long packets stay in the ring.
        drained_us: How long a packet may lie in a socket before it is drained.
        randomness: Yields random bytes, for the ids of such pauses.
        tell: Takes events.
    """

    def __init__(
        self,
        lines: Lines,
        pauses: Pauses,
        agent: AgentId,
        hold_back_us: int,
        drained_us: int,
        randomness: Callable[[int], bytes],
        tell: Callable[[Event], None],
    ) -> None:
        self._lines, self._pauses, self._tell = lines, pauses, tell
        self._by, self._randomness = f"agent:{agent}", randomness
        self._held_us = LOOK_AHEAD_US + drained_us
        self._tones_after_us = max(hold_back_us, self._held_us) + _TURN_US
        self._watches: dict[str, CardWatch] = {}
        self._cards: dict[str, int] = {}
        self._judge_us = 0

    def change(self, recording: Recording, policy: CallPolicy, at_us: int) -> None:
        """Another profile is a call's from a moment on; what is still held back follows it."""
        recording.call.profile.change(policy, at_us)
        for stream in recording.call.heard:
            self._lines.tones.want(stream.row, blank=policy.tones == "blank")

    def signalled(self, recording: Recording, command: Digit) -> None:
        """A key came by signalling."""
        call = recording.call
        is_kept = not (call.is_on_demand or call.silence.covers(command.at_us, command.at_us))
        self._press(call, "signalling", command.stream, command.digit, command.at_us, is_kept=is_kept)

    def leave(self, recordings: list[Recording], turn: Turn, cutoff_us: int, now_us: int) -> int:
        """Blanks tones in what leaves.

        Args:
            recordings: The calls of a turn.
            turn: Their streams.
            cutoff_us: The latest arrival that may leave.
            now_us: The agent's time.

        Returns:
            The latest arrival that leaves: what follows it is needed to tell whether a tone begins.
        """
        tones = self._lines.tones
        if not tones.are_wanted(turn.row):
            return cutoff_us
        if cutoff_us < FOREVER:
            cutoff_us = min(cutoff_us, now_us - self._held_us)
        places = {row: place for place, row in enumerate(turn.row.tolist())}
        for blanked in tones.blank(turn.row, cutoff_us):
            place = places[blanked.row]
            self._blanked(recordings[int(turn.call[place])], int(turn.stream[place]), blanked)
        return cutoff_us

    def hear(self, recordings: Mapping[str, Recording], moment: Moment) -> None:
        """Takes the presses of the last drains, and pauses the calls in which a card's number was typed."""
        for press in self._lines.intake.presses.taken():
            recording = recordings.get(self._lines.call_of(press.row) or "")
            if recording is not None:
                stream = next((one.stream for one in recording.call.heard if one.row == press.row), None)
                self._press(recording.call, "event", stream, press.key, press.at_us, is_kept=press.is_kept)
        if moment.now_us >= self._judge_us:
            self._judge_us = moment.now_us + _JUDGE_EVERY_US
            for call, watch in self._watches.items():
                self._found(call, watch.pass_time(moment.now_us, moment.now_us - self._tones_after_us))
        cards, self._cards = self._cards, {}
        for call, first_us in cards.items():
            if call in recordings:
                self._pause(recordings[call], first_us, moment)

    def end(self, call: str) -> None:
        """A call has left the rings, or is not to be kept: what was typed in it is forgotten."""
        watch = self._watches.pop(call, None)
        if watch is not None:
            watch.wipe()
        self._cards.pop(call, None)

    def _blanked(self, recording: Recording, index: int, blanked: Blanked) -> None:
        call, counters = recording.call, self._lines.intake.counters
        counters.stored[blanked.row] -= blanked.packets
        counters.dropped[blanked.row] += blanked.packets
        for span in blanked.spans:
            call.blank(call.streams[index], *span)
        recording.spool.write_state(call.state)
        for at_us, key in blanked.presses:
            self._press(call, "tone", index, key, at_us, is_kept=not call.silence.covers(at_us, at_us))

    def _press(self, call: Call, way: Way, stream: int | None, key: str, at_us: int, *, is_kept: bool) -> None:
        policy = call.profile.policy
        watch = self._watches.setdefault(call.call, CardWatch())
        is_choice = key in policy.accept_keys + policy.decline_keys and not watch.is_running(way, stream, at_us)
        if is_choice:
            choice = watch.choice(policy, way, stream, key, at_us)
            if choice is not None:
                self._tell(Choice(call=call.call, choice=choice, at_us=at_us))
        if policy.card == "pause" and is_kept and (key.isdigit() or not is_choice):
            self._found(call.call, watch.card(way, stream, key, at_us, is_choice=is_choice))

    def _found(self, call: str, first_us: int | None) -> None:
        if first_us is not None:
            self._cards[call] = min(first_us, self._cards.get(call, first_us))

    def _pause(self, recording: Recording, first_us: int, moment: Moment) -> None:
        call = recording.call
        if call.ended_at_us is not None and first_us > call.ended_at_us:
            return
        policy, last = call.profile.policy, call.silence.last_number(ORIGIN, CAUSE)
        pause = Pause(
            call=call.call,
            at_us=moment.now_us,
            from_us=max(first_us - MARGIN_US, call.answered_at_us),
            cause="dtmf",
            origin="agent",
            number=max(moment.now_us // 1000, last + 1),
            command=ids.ulid(moment.now_us // 1000, self._randomness(ids.ULID_RANDOM_BYTES)),
            by=self._by,
            effective_at_us=first_us,
            lease_us=1_000_000 * policy.lease_s,
            on_expiry=policy.on_expiry,
        )
        self._tell(SelfPaused(pause=pause))
        self._tell(Alarm(kind="payment_without_pause", call=call.call))
        self._pauses.pause(recording, pause, moment)
