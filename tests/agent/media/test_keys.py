"""Keys in running calls: a card's number pauses its call, a consent key is told, and no digit is written anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dualtone.domain import ids
from dualtone.domain.audio import g711
from dualtone.domain.call_files import GapEntry
from sbc_agent.media import messages
from sbc_agent.media.digits import KEYS
from sbc_agent.media.messages import Alarm, CallPolicy, Choice, CutDone, PauseApplied, SelfPaused
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.dial import CARD, Key, event, placed
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import AGENT, CALL

BLANK = CallPolicy(tones="blank")
ASKING = CallPolicy(accept_keys="1", decline_keys="2#")
PACKETS_A_KEY = 25  # half a second


class Line:
    """The caller's line: speech, keys as events, keys as tones; 20 ms a packet, in real time."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.number = desk, 0

    def talk(self, seconds: float) -> None:
        self.number = self.desk.talk(seconds, self.number)

    def events(self, keys: str) -> None:
        """Each key half a second: four updates, three ends, then speech."""
        for key in keys:
            begin = 160 * self.number
            for index in range(PACKETS_A_KEY):
                at_us = self.desk.now_us + 20_000 * (index % 5)
                if index < 7:
                    payload = event(KEYS.index(key), 160 * min(index + 1, 5), is_end=index > 3)
                    data = packet(self.number, payload, timestamp=begin, payload_type=101, ssrc=1)
                else:
                    data = packet(self.number, speech(0, self.number), ssrc=1)
                self.desk.arrive(0, data, at_us=at_us)
                self.desk.arrive(1, packet(self.number, speech(1, self.number), ssrc=2), at_us=at_us)
                self.number += 1
                if index % 5 == 4:
                    self.desk.run(0.1)

    def tones(self, keys: str) -> None:
        """Each key half a second: 100 ms of tone, then silence."""
        for key in keys:
            samples = placed([(0.1, Key(key, 100))], 0.02 * PACKETS_A_KEY)
            coded = g711.encode(g711.Law.A, samples.astype(np.int16)).tobytes()
            for index in range(PACKETS_A_KEY):
                at_us = self.desk.now_us + 20_000 * (index % 5)
                self.desk.arrive(0, packet(self.number, coded[160 * index :][:160], ssrc=1), at_us=at_us)
                self.desk.arrive(1, packet(self.number, speech(1, self.number), ssrc=2), at_us=at_us)
                self.number += 1
                if index % 5 == 4:
                    self.desk.run(0.1)

    def signals(self, keys: str) -> None:
        """Each key half a second, by SIP INFO."""
        for key in keys:
            self.desk.tell(messages.Digit(call=CALL, at_us=self.desk.now_us, digit=key))
            self.talk(0.5)


WAYS = {"event": Line.events, "tone": Line.tones, "signalling": Line.signals}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def line(desk: Desk) -> Line:
    desk.begin(policy=BLANK)
    line = Line(desk)
    line.talk(8)
    return line


@ways
def test_a_card_number_pauses_its_call_from_its_first_digit_on(
    desk: Desk, line: Line, way: Callable[..., None]
) -> None:
    """However it comes: told, alarmed, carried out as any pause; both sides are silent from before its first key."""
    begin_us = desk.now_us
    way(line, CARD)
    line.talk(12)
    (told,) = desk.of(SelfPaused)
    pause = told.pause
    assert (pause.cause, pause.origin, pause.by, pause.on_expiry) == ("dtmf", "agent", f"agent:{AGENT}", "silent")
    assert (pause.until_us, pause.lease_us, pause.number > 0) == (None, 900_000_000, True)
    assert begin_us <= pause.effective_at_us <= begin_us + 140_000
    assert pause.from_us == pause.effective_at_us - 250_000
    (applied,) = desk.of(PauseApplied)
    assert (applied.command, applied.origin, applied.causes) == (pause.command, "agent", ("dtmf",))
    assert [alarm.kind for alarm in desk.of(Alarm)] == ["payment_without_pause"]
    desk.end()
    desk.run(7)
    call = desk.opened()
    for stream in range(2):
        assert max(call.arrivals_us(stream)) < pause.from_us
    (entry,) = call.manifest.pauses
    assert (entry.origin, entry.cause, entry.command, entry.from_us) == ("agent", "dtmf", pause.command, pause.from_us)
    assert {gap.cause for gap in call.manifest.gaps} <= {"dtmf", "tones"}
    assert GapEntry(1, pause.from_us, call.manifest.ended_at_us, "dtmf") in call.manifest.gaps


def test_what_had_left_before_the_last_digit_came_is_cut(desk: Desk, line: Line) -> None:
    """Typing takes longer than the hold-back: the answer says so, and the spool is cut."""
    line.events(CARD)
    line.talk(3)
    (applied,) = desk.of(PauseApplied)
    assert applied.outcome == "too_late"
    desk.end()
    desk.run(7)
    assert desk.opened().removed != []
    assert [cut.command for cut in desk.of(CutDone)] == [applied.command]


@pytest.mark.parametrize("origin", ["cloud", "lan", "agent"])
def test_a_resume_of_its_cause_ends_it(desk: Desk, line: Line, origin: messages.Origin) -> None:
    """By whichever way."""
    line.events(CARD)
    line.talk(2)
    resumed = desk.resume("dtmf", origin=origin, number=desk.now_us // 1000)
    assert resumed is not None
    assert (resumed.outcome, resumed.causes) == ("acknowledged", ())
    line.talk(2)
    resumed_us = resumed.from_us
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert [at_us for at_us in call.arrivals_us(0) if at_us > START_US + 8_000_000] == [
        at_us for at_us in call.arrivals_us(0) if at_us >= resumed_us
    ]
    assert call.manifest.pauses[0].to_us == resumed_us


@pytest.mark.parametrize(("on_expiry", "causes"), [("silent", ("dtmf",)), ("resume", ())])
def test_its_lease_is_the_profiles(tmp_path: Path, on_expiry: messages.OnExpiry, causes: tuple[str, ...]) -> None:
    """Sixty seconds here; then the call stays silent, or is heard again."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(lease_s=60, on_expiry=on_expiry))
    line = Line(desk)
    line.events(CARD)
    desk.run(70)
    (lapse,) = desk.of(messages.LeaseExpired)
    assert (lapse.cause, lapse.on_expiry) == ("dtmf", on_expiry)
    resumed = desk.resume("manual")
    assert resumed is not None
    assert resumed.causes == causes


def test_another_card_pauses_the_call_again(desk: Desk, line: Line) -> None:
    """With a higher number, after the first pause was ended."""
    line.events(CARD)
    desk.resume("dtmf")
    line.talk(4)
    line.events(CARD)
    first, second = (told.pause for told in desk.of(SelfPaused))
    assert second.number > first.number
    assert [applied.outcome for applied in desk.of(PauseApplied)] == ["too_late", "acknowledged", "too_late"]


@ways
def test_in_a_pause_nobody_watches_and_nothing_is_stored(desk: Desk, line: Line, way: Callable[..., None]) -> None:
    """Events, tones and SIP INFO inside a payment's pause: no alarm, no pause of the agent's own, no packet."""
    desk.pause(desk.now_us)
    begin_us = desk.now_us
    way(line, CARD)
    desk.resume()
    resumed_us = desk.now_us
    line.talk(8)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert desk.of(SelfPaused) == []
    assert desk.of(Alarm) == []
    for stream in range(2):
        assert [at_us for at_us in call.arrivals_us(stream) if begin_us <= at_us < resumed_us] == []


def test_digits_before_and_in_a_pause_are_no_number_together(desk: Desk, line: Line) -> None:
    """What was typed in a pause is not even gathered."""
    line.events(CARD[:8])
    desk.pause(desk.now_us)
    line.events(CARD[8:])
    desk.resume()
    line.talk(2)
    assert desk.of(SelfPaused) == []


def test_a_profile_can_leave_cards_alone(tmp_path: Path) -> None:
    """Where no card is ever typed, numbers are only numbers."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(card="off"))
    Line(desk).events(CARD)
    assert desk.of(SelfPaused) == []


def test_a_number_that_is_over_when_the_call_ends_still_cuts_it(desk: Desk, line: Line) -> None:
    """Thirteen digits, then the line is dropped: what had been kept of it goes from the spool."""
    begin_us = desk.now_us
    line.events("4222222222222")
    desk.end()
    desk.run(7)
    call = desk.opened()
    (pause,) = call.manifest.pauses
    assert pause.cause == "dtmf"
    assert max(call.arrivals_us(0)) < begin_us


def test_tones_that_leave_with_the_end_of_a_call_still_cut_it(desk: Desk, line: Line) -> None:
    """The last digits are found as the ring runs empty, and the manifest waits for what follows from them."""
    line.tones(CARD)
    desk.end()
    desk.run(7)
    (pause,) = desk.opened().manifest.pauses
    assert pause.cause == "dtmf"


# -- consent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "choice"), [("1", "accept"), ("2", "decline"), ("#", "decline")])
@ways
def test_a_consent_key_is_told_once_with_its_moment(
    tmp_path: Path, way: Callable[..., None], key: str, choice: str
) -> None:
    """However it comes; which key it was, nobody is told."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(tones="blank", accept_keys="1", decline_keys="2#"))
    line = Line(desk)
    line.talk(3)
    pressed_us = desk.now_us
    way(line, key)
    line.talk(9)
    (told,) = desk.of(Choice)
    assert (told.call, told.choice, told.how) == (CALL, choice, "dtmf")
    assert pressed_us <= told.at_us <= pressed_us + 140_000


def test_the_next_call_of_a_row_hears_its_own_keys(tmp_path: Path) -> None:
    """A press that is in all its numbers like one of the call before it is none of that call's."""
    desk = Desk(tmp_path, ports=2)
    for call in (CALL, f"{CALL[:-2]}42"):
        desk.tell(messages.Begin(call=call, at_us=desk.now_us, streams=desk.streams(True, True), policy=ASKING))
        Line(desk).events("1")
        desk.tell(messages.End(call=call, at_us=desk.now_us, reason="bye"))
        desk.run(7)
    assert [choice.call for choice in desk.of(Choice)] == [CALL, f"{CALL[:-2]}42"]


def test_other_keys_and_calls_without_consent_keys_tell_nothing(tmp_path: Path) -> None:
    """A menu's digits say nothing to the recording."""
    desk = Desk(tmp_path)
    desk.begin(policy=ASKING)
    line = Line(desk)
    line.events("3*A")
    desk.tell(messages.Policy(call=CALL, at_us=desk.now_us, policy=CallPolicy()))
    line.events("12")
    assert desk.of(Choice) == []


def test_a_consent_key_before_a_card_number_is_no_digit_of_it(tmp_path: Path) -> None:
    """The number is found all the same, though the key's digit occurs in it."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(accept_keys="9", decline_keys="0"))
    line = Line(desk)
    line.events("9")
    begin_us = desk.now_us
    line.events("5555555555554444")
    (told,) = desk.of(SelfPaused)
    assert begin_us <= told.pause.effective_at_us < begin_us + 100_000
    assert [choice.choice for choice in desk.of(Choice)] == ["accept"]


def test_a_consent_key_within_a_long_number_is_a_digit_of_it(tmp_path: Path) -> None:
    """Who types a card where 8 says yes has not said yes."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(accept_keys="8", decline_keys="0"))
    Line(desk).events("5555555555558885")
    assert len(desk.of(SelfPaused)) == 0
    assert desk.of(Choice) == []


@pytest.mark.parametrize("accept_keys", ["1", "4", "14"])
@ways
def test_a_card_number_is_found_whatever_keys_say_yes(
    tmp_path: Path, way: Callable[..., None], accept_keys: str
) -> None:
    """Its first digits may have been told as a choice: they are digits of it all the same."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(tones="blank", accept_keys=accept_keys, decline_keys="#"))
    line = Line(desk)
    line.talk(3)
    way(line, CARD)
    line.talk(9)
    (told,) = desk.of(SelfPaused)
    assert told.pause.effective_at_us < desk.now_us - 9_000_000


@ways
def test_a_card_number_in_a_call_on_demand_is_nobodys_business(tmp_path: Path, way: Callable[..., None]) -> None:
    """Nothing is gathered of the call: there is nothing to pause, and nobody is told."""
    desk = Desk(tmp_path)
    desk.begin(waits=True, silent=True, policy=BLANK)
    line = Line(desk)
    way(line, CARD)
    line.talk(9)
    assert desk.of(SelfPaused) == []
    assert desk.of(Alarm) == []


@ways
def test_what_was_typed_in_a_call_goes_with_it_when_it_is_discarded(tmp_path: Path, way: Callable[..., None]) -> None:
    """Kept after all, the call knows no digit of what was before."""
    desk = Desk(tmp_path)
    desk.begin(waits=True, policy=BLANK)
    line = Line(desk)
    line.talk(3)
    way(line, CARD[:8])
    line.talk(6)
    desk.decide(keep=False)
    assert not desk.engine._lines.tones._going
    desk.decide(keep=True)
    way(line, CARD[8:])
    line.talk(9)
    assert desk.of(SelfPaused) == []


def test_a_call_on_demand_hears_its_consent_key(tmp_path: Path) -> None:
    """Nothing is gathered of it, and still the key asks for the recording."""
    desk = Desk(tmp_path)
    desk.begin(waits=True, silent=True, policy=ASKING)
    line = Line(desk)
    line.events("1")
    line.events(CARD.replace("1", "3"))
    assert [choice.choice for choice in desk.of(Choice)] == ["accept"]
    assert desk.of(SelfPaused) == []


# -- nothing is written ------------------------------------------------------------------------------------------------


@ways
def test_digits_are_written_nowhere(
    desk: Desk,
    line: Line,
    way: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not in the note of the call, its parts, its manifest, an event, or any output, nor half of them."""
    caplog.set_level(logging.DEBUG)
    way(line, CARD[:-1])
    desk.settle_jobs()
    halves = [CARD[:8].encode(), " ".join(CARD[:8]).encode(), ", ".join(CARD[:8]).encode()]
    state = json.loads((desk.spool_dir / CALL / "state.json").read_bytes())
    assert state["profile"]["policy"]["tones"] == "blank"
    way(line, CARD[-1])
    line.talk(8)
    assert len(desk.of(SelfPaused)) == 1
    for path in desk.spool_dir.rglob("*"):
        if path.is_file():
            assert not any(half in path.read_bytes() for half in halves)
    written = repr(desk.events) + "".join(event.model_dump_json() for event in desk.events)
    assert not any(half.decode() in written for half in halves)
    output = capfd.readouterr()
    said = output.out + output.err + caplog.text
    assert not any(half.decode() in said for half in halves)


def test_what_was_typed_does_not_survive_a_restart_and_the_profile_does(tmp_path: Path) -> None:
    """Eight digits, a crash, eight digits: no number. Sixteen after it: one, by the same profile."""
    desk = Desk(tmp_path)
    desk.begin(policy=CallPolicy(lease_s=77))
    Line(desk).events(CARD[:8])
    desk.settle_jobs()
    later = Desk(tmp_path, now_us=desk.now_us, openings=1, randomness=bytes)
    later.adopt()
    line = Line(later)
    line.events(CARD[8:])
    assert later.of(SelfPaused) == []
    line.talk(31)
    line.events(CARD)
    (told,) = later.of(SelfPaused)
    assert told.pause.lease_us == 77_000_000


def test_a_pause_of_its_own_survives_a_restart(tmp_path: Path) -> None:
    """The adopted call is silent still, and a resume ends it."""
    desk = Desk(tmp_path)
    desk.begin()
    Line(desk).events(CARD)
    desk.settle_jobs()
    later = Desk(tmp_path, now_us=desk.now_us, openings=1, randomness=bytes)
    later.adopt()
    later.settle_jobs()
    line = Line(later)
    line.talk(2)
    resumed = later.resume("dtmf")
    assert resumed is not None
    line.talk(2)
    later.end()
    later.run(7)
    call = later.opened()
    assert min(call.arrivals_us(1)) >= resumed.from_us
    assert [(pause.origin, pause.cause) for pause in call.manifest.pauses] == [("agent", "dtmf")]


def test_the_id_of_its_pause_is_a_ulid_of_its_time(desk: Desk, line: Line) -> None:
    """So that it orders among other commands."""
    line.events(CARD)
    (told,) = desk.of(SelfPaused)
    assert told.pause.command == ids.ulid(told.pause.at_us // 1000, bytes(range(ids.ULID_RANDOM_BYTES)))


def test_a_digit_for_an_unknown_call_is_an_alarm_without_it(desk: Desk) -> None:
    """And says nothing of the key."""
    desk.tell(messages.Digit(call=CALL, at_us=desk.now_us, digit="7"))
    desk.tell(messages.Policy(call=CALL, at_us=desk.now_us, policy=CallPolicy()))
    assert [(alarm.kind, alarm.call) for alarm in desk.of(Alarm)] == [("command", CALL)] * 2
