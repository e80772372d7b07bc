"""The engine over minutes of calls, in milliseconds: what is kept, when it leaves, and what the files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualtone.domain.call_files import GapEntry
from sbc_agent.media import disk as disks
from sbc_agent.media import messages, spool
from sbc_agent.media.messages import Alarm, Finished, PartClosed, PortFree
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.feed import OTHER
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import CALL, open_call


def alarms(desk: Desk) -> list[str]:
    return [event.kind for event in desk.events if isinstance(event, Alarm)]


def spooled_bytes(desk: Desk) -> int:
    return sum(path.stat().st_size for path in (desk.spool_dir / CALL).glob("part-*"))


def test_nothing_leaves_before_the_hold_back_is_over(tmp_path: Path) -> None:
    """For five seconds the spool holds no record of media; then it grows by a second each second."""
    desk = Desk(tmp_path)
    desk.begin()
    desk.talk(4.9)
    assert spooled_bytes(desk) == 0
    number = desk.talk(5.1, 245)
    desk.end()
    desk.run(0.1)
    assert not [event for event in desk.events if isinstance(event, Finished)]
    desk.run(6)
    call = desk.opened()
    assert call.sequences(0) == call.sequences(1) == list(range(number))
    assert call.payload(1) == b"".join(speech(1, index) for index in range(number))
    assert call.arrivals_us(0) == [START_US + 20_000 * index for index in range(number)]
    assert desk.events[-1] == Finished(call=CALL, path=str(desk.spool_dir / CALL / "manifest.json"))


def test_a_record_holds_about_a_second_of_both_sides(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=500)
    desk.begin()
    desk.talk(10)
    desk.end()
    desk.run(2)
    packets = [block.sequence.size for block in desk.opened().blocks]
    assert sum(packets) == 1_000
    assert all(40 <= count <= 60 for count in packets[2:-2])


def test_parts_are_closed_by_the_minute_signed_and_chained(tmp_path: Path) -> None:
    """Every part but the first covers a whole part time; ``open_call`` checks signatures, chain and nonces."""
    desk = Desk(tmp_path, hold_back_ms=500, part_s=3)
    desk.begin()
    desk.talk(14)
    desk.end()
    desk.run(2)
    call = desk.opened()
    assert len(call.parts) >= 4
    assert [entry.index for entry in call.manifest.parts] == list(range(len(call.parts)))
    closed = [event for event in desk.events if isinstance(event, PartClosed)]
    assert [(event.digest, event.size_bytes) for event in closed] == [
        (entry.digest, entry.size_bytes) for entry in call.manifest.parts
    ]
    assert [Path(event.path).exists() for event in closed] == [True] * len(closed)


def test_an_inactive_stream_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    """A relay that goes on sending after hold is not listened to: the SDP decides, back to its own time."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(2)
    held_us = desk.now_us - 300_000  # when the command comes, packets of 300 ms are in the ring already
    desk.change(True, False, at_us=held_us)
    number = desk.talk(3, number)
    desk.change(True, True)
    resumed_us = desk.now_us
    number = desk.talk(2, number)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert call.sequences(0) == list(range(number))
    assert call.sequences(1) == [
        index for index in range(number) if not held_us <= START_US + 20_000 * index < resumed_us
    ]
    assert call.manifest.gaps == [GapEntry(1, held_us, resumed_us, "inactive")]


def test_records_name_the_set_of_streams_under_which_they_were_sealed(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=0)
    desk.begin()
    desk.talk(2)
    desk.change(True, False)
    desk.talk(2, 100)
    desk.end()
    desk.run(1)
    sets = [stream_set for _, stream_set, _ in desk.opened().records]
    assert sets == sorted(sets)
    assert set(sets) == {0, 1}


def test_a_gap_that_is_open_at_the_end_ends_with_the_call(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(True, False)
    desk.talk(2)
    desk.end()
    ended_us = desk.now_us
    desk.run(7)
    call = desk.opened()
    assert call.manifest.gaps == [GapEntry(1, START_US, ended_us, "inactive")]
    assert call.sequences(1) == []


def test_a_stream_that_is_not_named_any_more_is_inactive(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.talk(1)
    desk.change(True)
    at_us = desk.now_us
    desk.talk(1, 50)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert len(call.sequences(0)) == 100
    assert call.sequences(1) == list(range(50))
    assert call.manifest.gaps == [GapEntry(1, at_us, desk.now_us - 7_000_000, "inactive")]


def test_a_stream_may_come_with_a_re_invite(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(True)
    desk.talk(1, streams=1)
    desk.change(True, True, True)
    desk.talk(1, 50, streams=3)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert [len(call.sequences(stream)) for stream in range(3)] == [100, 50, 50]
    assert [stream.label for stream in call.manifest.streams] == ["0", "1", "2"]


def test_packets_before_the_answer_and_after_the_end_are_dropped(tmp_path: Path) -> None:
    """What lay in the socket from an earlier peer is no part of the call, nor what comes after BYE."""
    desk = Desk(tmp_path)
    desk.arrive(0, packet(7, b"\xaa" * 160), at_us=START_US - 1, source=OTHER)
    desk.begin()
    number = desk.talk(1)
    end_us = desk.now_us - 100_000
    desk.end(at_us=end_us)
    assert [event.port for event in desk.engine.events() if isinstance(event, PortFree)] == [20_000, 20_002]
    desk.arrive(0, packet(number, b"\xaa" * 160, ssrc=1))
    desk.run(7)
    call = desk.opened()
    assert call.sequences(0) == [index for index in range(number) if START_US + 20_000 * index <= end_us]
    assert call.manifest.ended_at_us == end_us


def test_telephone_events_never_reach_the_files(tmp_path: Path) -> None:
    """Digits are counted, not stored: no record, opened with the tenant's key, holds one."""
    desk = Desk(tmp_path)
    desk.begin()
    digit = b"\x07\x8a\x03\x20"
    desk.arrive(0, packet(0, speech(0, 0), ssrc=1))
    for number in range(5):
        desk.arrive(0, packet(900 + number, digit, payload_type=101, ssrc=0xD1617))
        desk.arrive(1, packet(900 + number, digit, payload_type=101, ssrc=0xD1617))
    desk.run(1)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert [one.events_suppressed for one in call.manifest.statistics] == [5, 5]
    assert len(call.blocks) == 1
    assert not any(digit in plaintext for _, _, plaintext in call.records)


def test_only_what_is_sealed_is_written(tmp_path: Path) -> None:
    """No 20 ms of what was said lies in any file."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.tell(messages.Signalling(call=CALL, at_us=desk.now_us, direction=1, raw=b"SIP/2.0 200 OK\r\n" * 20))
    desk.tell(messages.Session(call=CALL, session={"participants": [{"name": "Alice Example"}]}))
    number = desk.talk(3)
    desk.end()
    desk.run(2)
    desk.settle()
    written = b"".join(path.read_bytes() for path in (desk.spool_dir / CALL).iterdir())
    for needle in [speech(side, index)[:40] for side in (0, 1) for index in range(number)]:
        assert needle not in written
    assert b"SIP/2.0" not in written
    assert b"Alice" not in written
    call = open_call(desk.spool_dir / CALL)
    assert call.signalling == [(START_US, 1, b"SIP/2.0 200 OK\r\n" * 20)]
    assert call.sessions == [{"participants": [{"name": "Alice Example"}]}]


def test_a_call_without_media_still_leaves_a_record_and_an_alarm(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.tell(messages.Session(call=CALL, session={"flags": []}))
    desk.run(12)
    assert alarms(desk) == ["no_media"]
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert call.manifest.flags == ["no_media"]
    assert call.blocks == []
    assert alarms(desk) == ["no_media"]


def test_drain_ends_calls_and_waits_for_the_hold_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.talk(1)
    desk.tell(messages.Drain())
    desk.run(4.9)
    assert not desk.engine.is_drained
    desk.run(1)
    call = desk.opened()
    assert desk.engine.is_drained
    assert call.manifest.end_reason == "shutdown"
    assert len(call.sequences(0)) == 50


def test_flush_does_not_wait(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.talk(1)
    desk.tell(messages.Drain(flush=True))
    desk.run(0.1)
    assert len(desk.opened().sequences(1)) == 50
    assert desk.engine.is_drained


@pytest.mark.parametrize("case", ["twice", "unknown port", "port of another", "unknown call", "draining", "after end"])
def test_a_command_that_does_not_fit_changes_nothing(tmp_path: Path, case: str) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    other = CALL[:-1] + "V"
    if case == "twice":
        desk.begin()
    elif case == "unknown port":
        spec = desk.streams(True)[0].model_copy(update={"port": 40_000})
        desk.tell(messages.Begin(call=other, at_us=desk.now_us, streams=(spec,)))
    elif case == "port of another":
        desk.tell(messages.Begin(call=other, at_us=desk.now_us, streams=desk.streams(True)))
    elif case == "unknown call":
        desk.tell(messages.End(call=other, at_us=desk.now_us, reason="bye"))
    elif case == "draining":
        desk.tell(messages.Drain())
        desk.tell(messages.Begin(call=other, at_us=desk.now_us, streams=()))
    else:
        desk.end()
        desk.end()
    desk.talk(1)
    assert alarms(desk) == ["command"]
    desk.tell(messages.Drain(flush=True))
    desk.run(0.1)
    assert desk.opened().manifest.call == CALL


def test_ports_and_rows_serve_one_call_after_another(tmp_path: Path) -> None:
    """More calls than rows, one after the other: each file holds its own call alone."""
    desk = Desk(tmp_path, hold_back_ms=200, ports=2)
    names = [f"{CALL[:-1]}{letter}" for letter in "0123"]
    for turn, name in enumerate(names):
        desk.tell(messages.Begin(call=name, at_us=desk.now_us, streams=desk.streams(True, True)))
        desk.talk(1, 1_000 * turn)
        desk.tell(messages.End(call=name, at_us=desk.now_us, reason="bye"))
        desk.run(1)
    desk.settle()
    for turn, name in enumerate(names):
        assert open_call(desk.spool_dir / name).sequences(0) == list(range(1_000 * turn, 1_000 * turn + 50))
    assert not alarms(desk)


def test_a_full_spool_loses_nothing_in_memory(tmp_path: Path) -> None:
    """While the spool refuses, sealed records wait; when it takes them again they follow in order."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.spool_dir.mkdir()
    (desk.spool_dir / CALL).write_text("in the way of the call's directory")
    desk.begin()
    desk.talk(3)
    assert alarms(desk)[:1] == ["spool_write"]
    (desk.spool_dir / CALL).unlink()
    number = desk.talk(2, 150)
    desk.end()
    desk.run(2)
    assert desk.opened().sequences(0) == list(range(number))


@pytest.mark.parametrize("when", ["before a part is closed", "while records wait", "after the end"])
def test_a_directory_that_was_taken_away_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A call of which nothing can be written any more is given up at the end, with an alarm; until then it is tried."""
    monkeypatch.setattr(disks, "_RETRY_S", 0.01)
    desk = Desk(tmp_path, hold_back_ms=200, part_s=2 if when == "while records wait" else 60)
    desk.begin()
    number = desk.talk(1)
    if when == "after the end":
        desk.end()
    (desk.spool_dir / CALL).rename(tmp_path / "away")
    desk.talk(4, number)
    assert "spool_gone" not in alarms(desk)
    desk.tell(messages.Drain())
    while not desk.engine.is_drained:
        desk.run(0.1)
    assert alarms(desk).count("spool_gone") >= 1
    assert desk.disk.backlog_bytes == 0
    desk.settle()
    assert list(desk.spool_dir.iterdir()) == []


def test_what_waits_in_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it new records are lost: once an alarm, a flag, and a gap in the numbers; what waited is written."""
    monkeypatch.setattr(spool, "MAX_BACKLOG_BYTES", 50_000)
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.spool_dir.mkdir()
    (desk.spool_dir / CALL).write_text("in the way of the call's directory")
    desk.begin()
    desk.talk(8)
    assert alarms(desk).count("records_lost") == 1
    assert 30_000 < desk.disk.backlog_bytes <= 50_000
    (desk.spool_dir / CALL).unlink()
    number = desk.talk(2, 400)
    desk.end()
    desk.run(2)
    assert desk.disk.backlog_bytes == 0
    desk.settle()
    opened = open_call(desk.spool_dir / CALL, complete=False)
    assert "records_lost" in opened.manifest.flags
    kept = opened.sequences(0)
    assert kept[0] == 0
    assert kept[-1] == number - 1
    assert 200 < len(kept) < number


def test_what_a_call_has_counted_stays_in_the_totals(tmp_path: Path) -> None:
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin()
    desk.talk(1)
    desk.end()
    desk.run(2)
    counters = desk.engine.counters()
    assert (counters["stored"], counters["left_ring"], counters["calls"]) == (100, 100, 0)
    desk.settle()


def test_a_stream_keeps_its_port(tmp_path: Path) -> None:
    """Another port for a known stream is no change that the protocol allows: it is told, and the stream goes on."""
    desk = Desk(tmp_path)
    desk.begin(True)
    moved = desk.streams(True)[0].model_copy(update={"port": 20_010})
    desk.tell(messages.Streams(call=CALL, at_us=desk.now_us, streams=(moved,)))
    desk.talk(1, streams=1)
    assert alarms(desk) == ["command"]
    desk.tell(messages.Drain(flush=True))
    desk.run(0.1)
    assert len(desk.opened().sequences(0)) == 50


def test_a_session_that_cannot_be_spelled_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(True)
    desk.tell(messages.Session(call=CALL, session={"duration": 1.5}))
    desk.run(0.1)
    assert alarms(desk) == ["command"]
    desk.settle()


def test_a_held_call_is_no_alarm(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin(False, False)
    desk.run(30)
    assert alarms(desk) == []
    desk.settle()


def test_a_port_listens_again_after_its_rest(tmp_path: Path) -> None:
    """After a call its port is shut in the kernel; it listens before the SIP process may hand it out again."""
    desk = Desk(tmp_path, hold_back_ms=200)
    desk.begin(True)
    desk.talk(1, streams=1)
    desk.end()
    desk.run(29)
    assert desk.ports.by_port[20_000].is_shut
    desk.run(2)
    assert not desk.ports.by_port[20_000].is_shut
    desk.settle()


@pytest.mark.parametrize("stall_s", [3, 5, 12])
def test_a_stall_costs_no_packet(tmp_path: Path, stall_s: int) -> None:
    """What waited in the sockets while the process stood still finds room, for what is overdue leaves first."""
    desk = Desk(tmp_path)
    desk.begin()
    number = desk.talk(8)
    for _ in range(stall_s * 50):
        for stream in range(2):
            desk.arrive(stream, packet(number, speech(stream, number), ssrc=stream + 1))
        desk.now_us += 20_000
        number += 1
    number = desk.talk(8, number)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert call.sequences(0) == call.sequences(1) == list(range(number))
    assert desk.engine.ring._free_wide == sorted(desk.engine.ring._free_wide)
