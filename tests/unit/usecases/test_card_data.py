"""What a finished recording holds of keys that were pressed: from the wire through the agent to the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dualtone.adapters import speech_decoder
from dualtone.domain import pause
from dualtone.domain.audio import g711
from dualtone.domain.call_session import CallSession
from dualtone.usecases.open_call import Gap
from dualtone.usecases.render_audio import RenderAudio, Rendering
from sbc_agent.media import messages
from sbc_agent.media.digits import KEYS
from sbc_agent.media.messages import CallPolicy
from tests.agent.media.desk import EVENTS, PCMA, START_US, Desk
from tests.agent.media.dial import CARD, CLOCK_HZ, Key, Samples, event, heard, placed, spoken
from tests.agent.media.packets import packet
from tests.agent.media.sealed_call import CALL

KEY_S, FIRST_S = 0.4, 2.0
LAST_S = FIRST_S + KEY_S * len(CARD)


@dataclass
class Tape:
    """An encoder that keeps what it is given."""

    samples: list[npt.NDArray[np.int16]] = field(default_factory=list)

    def write(self, samples: npt.NDArray[np.int16]) -> list[bytes]:
        self.samples.append(samples.copy())
        return []

    def finish(self) -> list[bytes]:
        return []

    @contextmanager
    def started(self, rate_hz: int) -> Iterator[Tape]:
        yield self


@dataclass
class Read:
    session: CallSession = field(default_factory=CallSession)
    holes: list[Gap] = field(default_factory=list)
    removed: list[Gap] = field(default_factory=list)


@dataclass
class Finished:
    """A recording: what its encoder heard of each side, and what it says."""

    rendering: Rendering
    sides: list[Samples]

    def span(self, side: int, from_s: float, to_s: float) -> Samples:
        """Seconds of the call."""
        first = (START_US - self.rendering.started_at_us) * CLOCK_HZ // 1_000_000
        return self.sides[side][round(from_s * CLOCK_HZ) + first : round(to_s * CLOCK_HZ) + first]


@dataclass
class Conversation:
    """Twelve seconds between the two voices; the caller presses keys in between."""

    desk: Desk
    voices: list[Samples] = field(default_factory=lambda: [spoken(name) * 0.3 for name in ("alice", "bob")])
    events: dict[int, bytes] = field(default_factory=dict)
    commands: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def press_tones(self) -> None:
        keys = [(FIRST_S + KEY_S * index, Key(key, 100, level=-8.0)) for index, key in enumerate(CARD)]
        self.voices[0] = placed(keys, 12, self.voices[0])

    def press_events(self) -> None:
        """The event is in the place of the speech's packets; only the tone's leading 20 ms leak into the audio."""
        for index, key in enumerate(CARD):
            first = round((FIRST_S + KEY_S * index) * 50)
            for one in range(6):
                self.events[first + one] = event(KEYS.index(key), 160 * (one + 1), is_end=one > 3)

    def press_signalling(self) -> None:
        for index, key in enumerate(CARD):
            at_s = FIRST_S + KEY_S * index
            at_us = START_US + round(at_s * 1_000_000)
            digit = messages.Digit(call=CALL, at_us=at_us, digit=key)
            self.commands.append((at_s, lambda digit=digit: self.desk.tell(digit)))  # type: ignore[misc]

    def held(self, policy: CallPolicy) -> Finished:
        desk = self.desk
        desk.begin(policy=policy, formats=(PCMA, EVENTS))
        coded = [g711.encode(g711.Law.A, voice.astype(np.int16)).tobytes() for voice in self.voices]
        waiting = sorted(self.commands, key=lambda entry: entry[0])
        for number in range(600):
            for side in range(2):
                data = packet(number, coded[side][160 * number :][:160], ssrc=side + 1)
                if side == 0 and number in self.events:
                    begin = max(one for one in range(number + 1) if one not in self.events) + 1
                    data = packet(number, self.events[number], timestamp=160 * begin, payload_type=101, ssrc=1)
                desk.arrive(side, data, at_us=START_US + 20_000 * number)
            if number % 5 == 4:
                desk.run(0.1)
            while waiting and START_US + 1_000_000 * waiting[0][0] <= desk.now_us:
                waiting.pop(0)[1]()
        desk.end()
        desk.run(7)
        return _recorded(desk)


def _recorded(desk: Desk) -> Finished:
    call, tape = desk.opened(), Tape()
    said = call.manifest
    pauses = pause.union(pause.declared(said.pauses), (), answered_us=said.answered_at_us, ended_us=said.ended_at_us)
    removed = [Gap(head.from_us, head.from_us + head.span_us) for head in call.removed]
    rendering = RenderAudio(tape.started, speech_decoder.start)(said, Read(removed=removed), [call.blocks], pauses)
    assert rendering is not None
    samples = np.concatenate(tape.samples).astype(float)
    return Finished(rendering, [samples[:, rendering.channel_of[side]] for side in range(2)])


WAYS = {
    "telephone events": Conversation.press_events,
    "tones": Conversation.press_tones,
    "SIP INFO": Conversation.press_signalling,
}


@pytest.fixture
def conversation(tmp_path: Path) -> Conversation:
    return Conversation(Desk(tmp_path))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_keys_in_a_pause_are_in_no_finished_recording(
    conversation: Conversation, way: Callable[[Conversation], None]
) -> None:
    """Both sides are exactly silent from before the first key to the end of the pause, and are heard around it."""
    way(conversation)
    desk = conversation.desk
    conversation.commands += [
        (FIRST_S + 1, lambda: desk.pause(START_US + round((FIRST_S - 0.3) * 1_000_000))),
        (LAST_S, desk.resume),
    ]
    recording = conversation.held(CallPolicy())
    for side in range(2):
        assert not recording.span(side, FIRST_S - 0.2, LAST_S).any()
        assert recording.span(side, 0.2, 1.6).any()
        assert recording.span(side, LAST_S + 0.4, 11.5).any()
    assert [one.cause for one in recording.rendering.pauses] == ["payment"]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_card_number_that_nobody_paused_for_is_in_no_finished_recording(
    conversation: Conversation, way: Callable[[Conversation], None]
) -> None:
    """The call's own pause reaches back to the first digit: what was said beside the digits is gone with them."""
    way(conversation)
    recording = conversation.held(CallPolicy(tones="blank"))
    for side in range(2):
        assert not recording.span(side, FIRST_S - 0.1, 11.9).any()
        assert recording.span(side, 0.2, 1.6).any()
    (own,) = recording.rendering.pauses
    assert (own.origin, own.cause) == ("agent", "dtmf")


def test_blanked_tones_are_silence_with_a_cause_and_no_loss(conversation: Conversation) -> None:
    """Nothing of a key can be heard, the other side is whole, and the recording says why it is silent."""
    conversation.press_tones()
    recording = conversation.held(CallPolicy(tones="blank", card="off"))
    assert not recording.span(0, FIRST_S, LAST_S - KEY_S + 0.1).any()
    (gap,) = recording.rendering.gaps
    begin_ms = (START_US - recording.rendering.started_at_us) / 1_000
    assert (gap.stream, gap.cause, gap.pause) == (0, "tones", None)
    assert begin_ms + 1_900 <= gap.from_ms <= begin_ms + 2_000
    assert begin_ms + 8_100 <= gap.to_ms <= begin_ms + 8_200
    whole = recording.span(1, 0.1, 11.9)
    assert np.corrcoef(whole, conversation.voices[1][round(0.1 * CLOCK_HZ) :][: whole.size])[0, 1] > 0.99
    assert recording.rendering.reception[0].lost == 0


def test_tones_that_a_profile_keeps_are_heard(conversation: Conversation) -> None:
    """Else the tests above would show nothing."""
    conversation.press_tones()
    recording = conversation.held(CallPolicy(card="off"))
    found = iter(heard(recording.span(0, FIRST_S - 0.05, LAST_S)))
    assert all(key in found for key in CARD)
    assert recording.rendering.gaps == ()
