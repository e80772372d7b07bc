"""Pauses in a running call: what is kept, what is answered, and what the manifest says; time in the test's hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualtone.domain.call_files import GapEntry
from sbc_agent.media import messages
from sbc_agent.media.messages import Alarm, CutDone, LeaseExpired, PauseApplied, SilentFrom
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.feed import OTHER
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import CALL, OpenedCall


def kept(spans: list[tuple[int, int]], numbers: int) -> list[int]:
    """The numbers of the packets that arrived in none of the spans; packet n arrives 20 ms times n after the start."""
    return [
        number
        for number in range(numbers)
        if not any(from_us <= START_US + 20_000 * number < to_us for from_us, to_us in spans)
    ]


def finished(desk: Desk) -> OpenedCall:
    desk.end()
    desk.run(7)
    return desk.opened()


def alarms(desk: Desk) -> list[str]:
    return [alarm.kind for alarm in desk.of(Alarm)]


def test_a_pause_takes_back_what_was_said_before_the_command(tmp_path: Path) -> None:
    """Back-dated by three seconds inside the hold-back: exactly the span is silent, on both sides."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(10)
    from_us = desk.now_us - 3_000_000
    answer = desk.pause(from_us)
    assert answer is not None
    assert (answer.outcome, answer.action, answer.causes) == ("acknowledged", "pause", ("payment",))
    assert (answer.from_us, answer.at_us) == (from_us, desk.now_us)
    assert answer.left_until_us < from_us
    number = desk.talk(4, number)
    resumed_us = desk.now_us
    ended = desk.resume()
    assert ended is not None
    assert (ended.outcome, ended.action, ended.causes, ended.from_us) == ("acknowledged", "resume", (), resumed_us)
    number = desk.talk(3, number)
    call = finished(desk)
    for stream in range(2):
        assert call.sequences(stream) == kept([(from_us, resumed_us)], number)
    assert call.removed == []
    assert call.manifest.gaps == [GapEntry(stream, from_us, resumed_us, "payment") for stream in range(2)]
    (entry,) = call.manifest.pauses
    assert (entry.cause, entry.from_us, entry.to_us, entry.origin) == ("payment", from_us, resumed_us, "cloud")
    assert (entry.by, entry.resumed_by, entry.lease_expired) == ("someone", "another", False)
    assert (entry.effective_at_us, entry.received_at_us) == (from_us + 250_000, answer.at_us)
    assert [one.rtp_timestamp for one in entry.silent_from] == [one.rtp_timestamp for one in answer.silent_from]
    assert not desk.of(CutDone)


def test_the_answer_names_the_first_silent_packet_of_each_stream(tmp_path: Path) -> None:
    """In the ring, or still in the socket, or, if none has come, the one that is expected next."""
    desk = Desk(tmp_path)
    desk.begin(True, True, True)
    for number in range(100):
        at_us = START_US + 20_000 * number
        desk.arrive(0, packet(number, speech(0, number), timestamp=1_000 + 160 * number, ssrc=1), at_us=at_us)
    desk.run(2)
    from_us = desk.now_us - 15_000
    late = packet(7, speech(1, 7), timestamp=77, ssrc=2)
    desk.arrive(1, late, at_us=desk.now_us - 5_000)
    answer = desk.pause(from_us)
    assert answer is not None
    assert answer.silent_from == (
        SilentFrom(stream=0, rtp_timestamp=1_000 + 160 * 100, at_us=START_US + 2_000_000),
        SilentFrom(stream=1, rtp_timestamp=77, at_us=desk.now_us - 5_000),
        SilentFrom(stream=2, rtp_timestamp=None, at_us=from_us),
    )
    assert answer.outcome == "acknowledged"
    finished(desk)


def test_what_waits_in_the_sockets_is_judged_with_the_ring(tmp_path: Path) -> None:
    """Packets that arrived before the pause are kept, though they are drained after it came."""
    desk = Desk(tmp_path)
    desk.begin()
    for number in range(10):
        desk.arrive(0, packet(number, speech(0, number), ssrc=1), at_us=START_US + 20_000 * number)
    desk.now_us += 200_000
    desk.pause(START_US + 100_000)
    assert finished(desk).sequences(0) == [0, 1, 2, 3, 4]


def test_a_call_is_silent_until_its_last_cause_is_gone(tmp_path: Path) -> None:
    """Payment, then a manual pause inside it, then resumed one after the other; a held side is silent on top."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(2)
    first_us = desk.now_us
    desk.pause(first_us)
    number = desk.talk(1, number)
    second_us = desk.now_us
    desk.pause(second_us, "manual")
    number = desk.talk(1, number)
    payment_us = desk.now_us
    answer = desk.resume()
    assert answer is not None
    assert answer.causes == ("manual",)
    desk.change(True, False)
    number = desk.talk(1, number)
    manual_us = desk.now_us
    desk.resume("manual")
    number = desk.talk(1, number)
    active_us = desk.now_us
    desk.change(True, True)
    number = desk.talk(1, number)
    call = finished(desk)
    assert call.sequences(0) == kept([(first_us, manual_us)], number)
    assert call.sequences(1) == kept([(first_us, active_us)], number)
    assert call.manifest.gaps == [
        GapEntry(0, first_us, payment_us, "payment"),
        GapEntry(1, first_us, payment_us, "payment"),
        GapEntry(0, second_us, manual_us, "manual"),
        GapEntry(1, second_us, manual_us, "manual"),
        GapEntry(1, payment_us, active_us, "inactive"),
    ]


def test_an_old_resume_never_reopens_a_newer_pause(tmp_path: Path) -> None:
    """Duplicated, delayed and reordered commands change nothing; each is answered."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    from_us = desk.now_us
    desk.pause(from_us, number=10)
    for late in (10, 9):
        answer = desk.resume(number=late)
        assert answer is not None
        assert (answer.outcome, answer.causes) == ("superseded", ("payment",))
    other = desk.resume("manual", origin="lan", number=1)
    assert other is not None
    assert (other.outcome, other.causes) == ("acknowledged", ("payment",))
    number = desk.talk(1, number)
    assert finished(desk).sequences(0) == kept([(from_us, 1 << 60)], number)


def test_a_pause_that_its_resume_overtook_is_silent_up_to_that(tmp_path: Path) -> None:
    """The two come in the wrong order: the causes are as if they had not, and nothing of the span is kept."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    from_us = desk.now_us
    number = desk.talk(1, number)
    resume = desk.resume(number=11)
    resumed_us = desk.now_us
    assert resume is not None
    number = desk.talk(0.4, number)
    for outcome in ("acknowledged", "superseded"):
        desk.next_number()  # another command's id
        pause = desk.pause(from_us, number=10)
        assert pause is not None
        assert (pause.outcome, pause.causes) == (outcome, ())
    number = desk.talk(1, number)
    assert finished(desk).sequences(0) == kept([(from_us, resumed_us)], number)


def test_commands_of_another_cause_overtake_nothing(tmp_path: Path) -> None:
    """A manual pause that comes after a newer resume of a payment is carried out."""
    desk = Desk(tmp_path)
    desk.begin()
    desk.talk(1)
    desk.resume("payment", number=11)
    answer = desk.pause(desk.now_us, "manual", number=10)
    assert answer is not None
    assert (answer.outcome, answer.causes) == ("acknowledged", ("manual",))


def test_a_pause_in_the_future_begins_when_it_is_due(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    from_us = desk.now_us + 730_000
    desk.pause(from_us)
    number = desk.talk(2, number)
    assert finished(desk).sequences(1) == kept([(from_us, 1 << 60)], number)


def test_a_late_report_of_a_past_span_takes_that_span_alone(tmp_path: Path) -> None:
    """The end was given with it: what was said since is kept, even what still waits in the sockets."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(4)
    from_us, until_us = desk.now_us - 2_000_000, desk.now_us - 90_000
    for one in range(5):
        desk.arrive(0, packet(number + one, speech(0, number + one), ssrc=1), at_us=desk.now_us + 20_000 * one)
    desk.now_us += 100_000
    answer = desk.pause(from_us, until_us=until_us)
    assert answer is not None
    assert (answer.outcome, answer.causes) == ("acknowledged", ())
    call = finished(desk)
    assert call.sequences(0) == kept([(from_us, until_us)], number + 5)
    assert call.manifest.gaps == [GapEntry(stream, from_us, until_us, "payment") for stream in range(2)]
    assert call.manifest.pauses[0].resumed_by == "until"


def test_an_end_that_is_still_to_come_is_kept_by_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    from_us, until_us = desk.now_us - 500_000, desk.now_us + 1_234_567
    desk.pause(from_us, until_us=until_us)
    number = desk.talk(3, number)
    assert finished(desk).sequences(0) == kept([(from_us, until_us)], number)


@pytest.mark.parametrize("on_expiry", ["silent", "resume"])
def test_a_lease_that_runs_out(tmp_path: Path, on_expiry: messages.OnExpiry) -> None:
    """Silent: the call stays so, with an alarm. Resume: it is heard again, and the manifest is flagged."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    from_us, expiry_us = desk.now_us, desk.now_us + 2_000_000
    desk.pause(from_us, lease_us=2_000_000, on_expiry=on_expiry)
    number = desk.talk(5, number)
    assert desk.of(LeaseExpired) == [LeaseExpired(call=CALL, cause="payment", on_expiry=on_expiry, at_us=expiry_us)]
    call = finished(desk)
    assert call.manifest.pauses[0].lease_expired
    if on_expiry == "silent":
        assert alarms(desk) == ["lease_expired"]
        assert call.sequences(0) == kept([(from_us, 1 << 60)], number)
        assert call.manifest.flags == []
    else:
        assert alarms(desk) == []
        assert call.sequences(0) == kept([(from_us, expiry_us)], number)
        assert (call.manifest.flags, call.manifest.pauses[0].resumed_by) == (["lease_resumed"], "lease")


def test_commands_act_while_the_ring_runs_empty(tmp_path: Path) -> None:
    """Two seconds after BYE what was said before it can still be taken back."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(8)
    desk.end()
    ended_us = desk.now_us
    desk.run(2)
    from_us = ended_us - 1_000_000
    answer = desk.pause(from_us)
    assert answer is not None
    assert (answer.outcome, answer.causes) == ("acknowledged", ())
    resumed = desk.resume()
    assert resumed is not None
    assert resumed.outcome == "acknowledged"
    desk.run(6)
    call = desk.opened()
    assert call.sequences(0) == call.sequences(1) == kept([(from_us, 1 << 60)], number)
    assert call.manifest.gaps == [GapEntry(stream, from_us, ended_us, "payment") for stream in range(2)]
    assert call.manifest.pauses[0].resumed_by == ""


def test_a_packet_on_probation_is_taken_back_too(tmp_path: Path) -> None:
    """What waits until its new source is believed is no way around the pause."""
    desk = Desk(tmp_path)
    desk.begin(True)
    number = desk.talk(2, streams=1)
    for one in range(3):
        secret = packet(number + one, b"\xaa" * 160, ssrc=9)
        desk.arrive(0, secret, at_us=desk.now_us + 20_000 * one, source=OTHER)
    from_us = desk.now_us
    desk.run(0.3)
    desk.pause(from_us)
    desk.run(0.2)
    desk.resume()
    for one in range(20):
        later = packet(number + 30 + one, speech(0, one), ssrc=9)
        desk.arrive(0, later, at_us=desk.now_us + 20_000 * one, source=OTHER)
    desk.run(1)
    call = finished(desk)
    assert b"\xaa" * 160 not in call.payload(0)
    assert call.sequences(0) == [*range(number), *range(number + 30, number + 50)]


def test_nothing_of_the_span_stays_in_memory(tmp_path: Path) -> None:
    """Ring, receiver's buffer and record buffer hold no byte of it after the tick, what had left included."""
    desk = Desk(tmp_path, hold_back_ms=1_000)
    desk.begin()
    for number in range(150):
        for stream in range(2):
            desk.arrive(stream, packet(number, b"\xaa" * 160, ssrc=stream + 1), at_us=START_US + 20_000 * number)
        if number % 5 == 4:
            desk.run(0.1)
    engine = desk.engine
    assert 0xAA in engine.ring.bytes
    desk.pause(START_US)
    desk.run(0.1)
    assert 0xAA not in engine.ring.bytes
    assert 0xAA not in engine._layout.buffer
    for number in range(150, 160):
        desk.arrive(0, packet(number, b"\xaa" * 160, ssrc=1))
    desk.run(0.4)
    assert 0xAA not in desk.ports.buffer
    desk.settle()


def test_a_call_that_is_paused_from_its_beginning_has_media(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.pause(desk.now_us - 2_000_000)
    desk.talk(12)
    call = finished(desk)
    assert alarms(desk) == []
    assert call.blocks == []
    assert call.manifest.gaps[0] == GapEntry(0, START_US, call.manifest.ended_at_us, "payment")


def test_a_stream_that_comes_during_a_pause_is_silent_from_its_beginning(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(True)
    desk.talk(1, streams=1)
    desk.pause(desk.now_us)
    desk.run(1)
    added_us = desk.now_us
    desk.change(True, True)
    number = desk.talk(1, 100)
    desk.resume()
    resumed_us = desk.now_us
    number = desk.talk(1, number)
    call = finished(desk)
    assert call.sequences(1) == list(range(150, number))
    assert GapEntry(1, added_us, resumed_us, "payment") in call.manifest.gaps


def test_a_pause_for_a_call_that_is_nowhere_is_unknown(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for answer in (desk.pause(desk.now_us), desk.resume()):
        assert answer is not None
        assert (answer.outcome, answer.silent_from) == ("unknown", ())
    assert desk.of(PauseApplied)
    desk.settle()


def test_an_answer_waits_until_the_spool_has_noted_it(tmp_path: Path) -> None:
    """The ring is silent at once; but what a crash would forget is not acknowledged."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(1)
    desk.settle()
    directory = desk.spool_dir / CALL
    directory.rename(tmp_path / "away")
    from_us = desk.now_us
    assert desk.pause(from_us) is None
    assert alarms(desk) == ["spool_write"]
    number = desk.talk(1, number)
    (tmp_path / "away").rename(directory)
    number = desk.talk(0.1, number)
    (answer,) = desk.of(PauseApplied)
    assert (answer.outcome, answer.from_us) == ("acknowledged", from_us)
    assert b'"payment"' in (directory / "state.json").read_bytes()
