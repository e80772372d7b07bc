"""RTP that nobody asked for: spoofed, in floods, from a call that is over. It is counted, and harms nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbc_agent.media import messages
from sbc_agent.media.sources import PROBATION, PROBATION_US
from tests.agent.media.desk import Desk
from tests.agent.media.feed import OTHER, PEER, Arrival, Line
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import CALL, open_call

MS = 1_000
EVER = 1 << 60
DRAIN_US = 300 * MS
NEXT_CALL = CALL[:-1] + "Z"


def overrun(line: Line, *, every_us: int, sources: int, seconds: int = 3) -> int:
    """A sender of 20 ms packets, drained every 300 ms, and spoofed packets in between; returns how many."""
    spoofed = 0
    for begin in range(0, seconds * 1_000_000, DRAIN_US):
        arrivals = [
            Arrival(0, packet(at // (20 * MS), speech(0, at // (20 * MS))), at)
            for at in range(begin, begin + DRAIN_US, 20 * MS)
        ]
        for at in range(begin + 7, begin + DRAIN_US, every_us):
            source = OTHER + (spoofed % sources << 16)
            arrivals.append(Arrival(0, packet(spoofed, b"!" * 160, ssrc=0x666), at, source))
            spoofed += 1
        arrivals.sort(key=lambda one: one.stamp_us)
        for start in range(0, len(arrivals), 32):
            line.take(arrivals[start : start + 32])
    return spoofed


@pytest.mark.parametrize(
    "every_us", [20 * MS, 4 * MS, 1 * MS, 200], ids=lambda us: f"{1_000_000 // us} packets a second"
)
@pytest.mark.parametrize("sources", [1, 2, 1_000])
def test_spoofed_rtp_gets_no_word_in_however_fast_it_comes(every_us: int, sources: int) -> None:
    """While the stream's own sender is heard, another one is foreign, every packet of it."""
    line = Line()
    spoofed = overrun(line, every_us=every_us, sources=sources)
    line.intake.close_row(line.row)
    assert line.leave(EVER) == [(number, speech(0, number)) for number in range(150)]
    assert line.counted("foreign_source") == spoofed


def test_a_copy_of_the_senders_ssrc_and_numbers_is_foreign_too() -> None:
    line = Line()
    for number in range(50):
        line.take(
            [
                Arrival(0, packet(number, speech(0, number)), number * 20 * MS),
                Arrival(0, packet(number + 1, b"!" * 160), number * 20 * MS + 1, OTHER),
            ]
        )
    line.intake.close_row(line.row)
    assert line.leave(EVER) == [(number, speech(0, number)) for number in range(50)]
    assert line.counted("foreign_source") == 50


def test_a_sender_that_moved_without_notice_is_believed_when_the_old_one_is_quiet() -> None:
    """Nothing of it is lost, though it has to be heard alone for a while."""
    line = Line()
    for number in range(40):
        line.send(number, speech(0, number), number * 20 * MS, source=PEER if number < 20 else OTHER)
    assert line.leave(EVER) == [(number, speech(0, number)) for number in range(40)]
    assert line.counted("foreign_source") == 0


def test_five_packets_at_once_are_not_enough_to_take_a_stream_over() -> None:
    line = Line()
    line.send(0, speech(0, 0), 0)
    for number in range(PROBATION * 3):
        line.send(number, b"!" * 160, 1_000 + number * MS, source=OTHER, ssrc=9)
    line.send(1, speech(0, 1), 20 * MS)
    line.send(900, b"!" * 160, 20 * MS + PROBATION_US, source=OTHER, ssrc=9)
    line.send(2, speech(0, 2), 40 * MS)
    line.intake.close_row(line.row)
    assert line.leave(EVER) == [(number, speech(0, number)) for number in range(3)]
    assert line.counted("foreign_source") == PROBATION * 3 + 1


def test_a_flood_at_one_port_costs_no_other_stream_a_packet(tmp_path: Path) -> None:
    """Two thousand packets a second, for three seconds; the flooded stream keeps its own as well."""
    desk = Desk(tmp_path)
    desk.begin()
    number = spoofed = 0
    for _ in range(30):
        for index in range(200):
            at_us = desk.now_us + index * 500
            if index % 40 == 0:
                for stream in range(2):
                    desk.arrive(stream, packet(number, speech(stream, number), ssrc=stream + 1), at_us=at_us)
                number += 1
            desk.arrive(0, packet(spoofed, b"!" * 160, ssrc=9), at_us=at_us + 1, source=OTHER)
            spoofed += 1
        desk.run(0.1)
    desk.end()
    desk.run(7)
    call = desk.opened()
    for stream in range(2):
        assert call.payload(stream) == b"".join(speech(stream, one) for one in range(number))
    assert [one.foreign_source for one in call.manifest.statistics] == [spoofed, 0]


def test_rtp_of_an_ended_call_is_not_heard_in_the_next_one_on_its_port(tmp_path: Path) -> None:
    """SBCs go on sending after BYE; the port rests, and what came before the next answer is dropped by its arrival."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(2)
    desk.end()
    for _ in range(32):
        number = desk.talk(1, number)
    desk.tell(messages.Begin(call=NEXT_CALL, at_us=desk.now_us, streams=desk.streams(True, True)))
    for index in range(100):
        for stream in range(2):
            data = packet(index, speech(stream + 5, index), ssrc=stream + 77)
            desk.arrive(stream, data, at_us=desk.now_us + 20 * MS * (index % 5), source=OTHER)
        if index % 5 == 4:
            desk.run(0.1)
    desk.tell(messages.End(call=NEXT_CALL, at_us=desk.now_us, reason="bye"))
    desk.run(7)
    desk.settle()
    following = open_call(desk.spool_dir / NEXT_CALL)
    for stream in range(2):
        assert following.payload(stream) == b"".join(speech(stream + 5, index) for index in range(100))
    assert open_call(desk.spool_dir / CALL).sequences(0) == list(range(100))
