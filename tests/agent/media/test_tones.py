"""Tones that were to be blanked: nothing that is stored lets a key be heard, and speech beside them is whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.audio import g711
from dualtone.domain.call_files import GapEntry, TonesEntry
from sbc_agent.media import messages
from sbc_agent.media.messages import CallPolicy, FormatSpec
from sbc_agent.media.tones import LOOK_AHEAD_US
from tests.agent.media.desk import EVENTS, PCMA, START_US, TICK_US, Desk
from tests.agent.media.dial import CLOCK_HZ, Key, Samples, heard, placed, spoken
from tests.agent.media.packets import packet
from tests.agent.media.sealed_call import CALL, OpenedCall

BLANK = CallPolicy(tones="blank")
PCMU = FormatSpec(payload_type=0, codec="PCMU", clock_hz=8_000)
G722 = FormatSpec(payload_type=9, codec="G722", clock_hz=8_000)
PAD = "123A456B789C*0#D"


@dataclass(frozen=True)
class Side:
    """What one side sends: samples, law, packet time, and which packets never come."""

    samples: Samples
    law: g711.Law = g711.Law.A
    ptime_ms: int = 20
    lost: Collection[int] = ()
    late: Collection[int] = ()  # packets that come 60 ms after their time, behind others

    @property
    def octets(self) -> int:
        return self.ptime_ms * CLOCK_HZ // 1000

    @property
    def packets(self) -> list[bytes]:
        size = self.octets
        coded = g711.encode(self.law, self.samples.astype(np.int16)).tobytes()
        payload_type = 8 if self.law is g711.Law.A else 0
        return [
            packet(number, coded[begin : begin + size], timestamp=begin, payload_type=payload_type)
            for number, begin in enumerate(range(0, len(coded) - size + 1, size))
        ]


@dataclass
class Conversation:
    """A finished call of sides that have sent what they had."""

    call: OpenedCall
    sides: list[Side] = field(default_factory=list)

    def stored(self, stream: int) -> Samples:
        """What is stored of a stream, in its place; silence elsewhere."""
        side = self.sides[stream]
        samples = np.zeros(side.samples.size)
        for block in self.call.blocks:
            if block.stream == stream:
                begins = np.cumsum(block.size) - block.size
                for at, begin, size in zip(block.timestamp, begins, block.size, strict=True):
                    octets = np.ascontiguousarray(block.payload[begin : begin + size])
                    samples[int(at) : int(at) + int(size)] = g711.decode(side.law, octets)
        return samples

    def joined(self, stream: int) -> Samples:
        """What is stored of a stream, end to end: what somebody would do who knows nothing of gaps."""
        return g711.decode(self.sides[stream].law, np.frombuffer(self.call.payload(stream), np.uint8)).astype(float)


def held(directory: Path, sides: list[Side], policy: CallPolicy = BLANK, *, hold_back_ms: int = 5_000) -> Conversation:
    """Holds a conversation through the engine, and opens what lies in the spool."""
    desk = Desk(directory, hold_back_ms=hold_back_ms)
    desk.begin(*(True for _ in sides), policy=policy, formats=(PCMA, PCMU, EVENTS))
    begin_us = desk.now_us
    mail = []
    for stream, side in enumerate(sides):
        for number, data in enumerate(side.packets):
            if number not in side.lost:
                late_us = 60_000 if number in side.late else 0
                mail.append((begin_us + 1_000 * side.ptime_ms * number + late_us, stream, data))
    mail.sort(key=lambda entry: entry[0])
    at = 0
    while at < len(mail):
        while at < len(mail) and mail[at][0] < desk.now_us + TICK_US:
            arrival_us, stream, data = mail[at]
            desk.arrive(stream, data, at_us=arrival_us)
            at += 1
        desk.run(0.1)
    desk.end()
    desk.run(7)
    return Conversation(desk.opened(), sides)


def dialled(count: int, *, ms: float, every_s: float = 0.31, **how: float) -> tuple[str, Samples]:
    """So many keys, at moments that are no multiple of anything; how they are heard, and their samples."""
    keys = [(0.4 + index * (every_s + 0.00317), Key(PAD[index % 16], ms, phase=index, **how)) for index in range(count)]
    return "".join(key.key for _, key in keys), placed(keys, 1.0 + count * (every_s + 0.004))


def assert_unheard(conversation: Conversation) -> None:
    for stream in range(len(conversation.sides)):
        assert heard(conversation.stored(stream)) == ""
        assert heard(conversation.joined(stream)) == ""


@pytest.mark.parametrize("law", g711.Law)
@pytest.mark.parametrize("ms", [40, 50, 65, 100, 200])
def test_no_key_can_be_heard_in_what_is_stored(tmp_path: Path, law: g711.Law, ms: float) -> None:
    """Eight streams of sixteen keys each, at levels, twists and offsets to the limits of Q.24."""
    how = [
        {},
        {"level": -3.0, "twist": -8.0},
        {"level": -29.0},
        {"level": -38.0, "twist": 4.0},
        {"offset": 0.015},
        {"offset": -0.015, "twist": 8.0, "level": -20.0},
        {"offset": 0.01, "twist": -4.0},
        {"level": -12.0, "twist": 6.0, "offset": -0.008},
    ]
    dials = [dialled(16, ms=ms, **one) for one in how]
    assert [heard(samples) for _, samples in dials] == [keys for keys, _ in dials]  # or silence would prove nothing
    assert_unheard(held(tmp_path, [Side(samples, law) for _, samples in dials]))


@pytest.mark.parametrize("hold_back_ms", [0, 500, 5_000])
def test_tones_over_borders_of_packets_ticks_and_turns_are_not_heard(tmp_path: Path, hold_back_ms: int) -> None:
    """Every packet time, keys that drift through all borders, and the shortest hold-back."""
    sides = []
    for ptime_ms in (10, 20, 30, 40, 50, 60):
        keys, samples = dialled(24, ms=70, every_s=0.237)
        assert heard(samples) == keys
        sides.append(Side(samples, ptime_ms=ptime_ms))
    assert_unheard(held(tmp_path, sides, hold_back_ms=hold_back_ms))


def test_a_tone_that_lasts_longer_than_what_is_looked_at_is_not_heard(tmp_path: Path) -> None:
    """A key held for seconds, and one that ends anywhere after a border, are blanked to their ends."""
    lengths = [150, 400, 777, 995, 1_003, 1_010, 1_017, 1_024, 1_500, 4_321]
    samples = placed([(0.4 + 5 * index, Key(PAD[index], ms)) for index, ms in enumerate(lengths)], 51)
    conversation = held(tmp_path, [Side(samples)])
    assert_unheard(conversation)
    stored = conversation.stored(0)
    for index, ms in enumerate(lengths):
        begin = round((0.4 + 5 * index) * CLOCK_HZ)
        assert not np.abs(stored[begin : begin + round(ms * 8)]).max() > 100
    assert np.count_nonzero(np.abs(stored[: 3 * CLOCK_HZ // 10])) > 0  # A-law's silence is not zero


def test_lost_and_late_packets_hide_no_tone(tmp_path: Path) -> None:
    """A twentieth of the packets does not come, another comes behind its followers."""
    sides = []
    for seed, ptime_ms in enumerate((10, 20, 20, 30)):
        random = np.random.default_rng(seed)
        _, samples = dialled(40, ms=90)
        number = samples.size // (8 * ptime_ms)
        fates = random.random(number)
        lost = set(np.flatnonzero(fates < 0.05).tolist())
        sides.append(Side(samples, ptime_ms=ptime_ms, lost=lost, late=set(np.flatnonzero(fates > 0.95).tolist())))
    assert_unheard(held(tmp_path, sides))


@pytest.mark.parametrize("lost_s", [15, 25, 50])
def test_tones_right_behind_a_long_loss_are_not_heard(tmp_path: Path, lost_s: int) -> None:
    """Longer than the ring: whatever was in it, the caller dials with the first packet that comes again."""
    keys = [(lost_s + 2.02 + 0.2 * index, Key(PAD[index], 80)) for index in range(8)]
    side = Side(placed(keys, lost_s + 5), lost=range(100, 100 + 50 * lost_s))
    assert_unheard(held(tmp_path, [side]))


def test_tones_over_speech_are_not_heard_and_speech_between_them_is_whole(tmp_path: Path) -> None:
    """Keys as loud as on any telephone, while both talk; what lies 80 ms or more from a key is stored to the bit."""
    sides, keys_at = [], [1.0 + 1.37 * index for index in range(8)]
    for name in ("alice", "bob"):
        voice = spoken(name) * 0.35
        presses = [(at_s, Key(PAD[index], 90, level=-8.0)) for index, at_s in enumerate(keys_at)]
        sides.append(Side(placed(presses, 12, voice)))
    conversation = held(tmp_path, sides)
    plain = held(tmp_path / "plain", [Side(np.clip(spoken(name) * 0.35, -32_768, 32_767)) for name in ("alice", "bob")])
    for stream in range(2):
        stored, only_speech = conversation.stored(stream), plain.stored(stream)
        away = np.ones(stored.size, np.bool_)
        for at_s in keys_at:
            away[round((at_s - 0.08) * CLOCK_HZ) : round((at_s + 0.17) * CLOCK_HZ)] = False
            around = stored[round((at_s - 0.1) * CLOCK_HZ) : round((at_s + 0.2) * CLOCK_HZ)]
            assert heard(around) in ("", heard(only_speech[round((at_s - 0.1) * 8_000) : round((at_s + 0.2) * 8_000)]))
        assert np.mean(stored[away] == only_speech[away]) > 0.98


def test_a_call_whose_profile_keeps_tones_keeps_every_packet(tmp_path: Path) -> None:
    """The default: what is said to be kept is kept to the bit, and nothing claims otherwise."""
    keys, samples = dialled(8, ms=80)
    conversation = held(tmp_path, [Side(samples)], CallPolicy())
    assert heard(conversation.stored(0)) == keys
    assert conversation.call.manifest.gaps == []
    assert conversation.call.manifest.tones == []


def test_the_manifest_says_that_keys_were_pressed_and_neither_which_nor_how_many(tmp_path: Path) -> None:
    """Sixteen digits in nine seconds are one gap of one stream; another, a minute later, is one of its own."""
    keys = [(2 + 0.55 * index, Key("1234567890123456"[index])) for index in range(16)]
    samples = placed([*keys, (30.0, Key("5", 120))], 32)
    silent = np.zeros(samples.size)
    policy = CallPolicy(tones="blank", card="off")
    manifest = held(tmp_path, [Side(samples), Side(silent)], policy).call.manifest
    assert [(gap.stream, gap.cause) for gap in manifest.gaps] == [(0, "tones")] * 2
    first, second = manifest.gaps
    assert START_US + 1_900_000 <= first.from_us <= START_US + 2_000_000
    assert START_US + 10_330_000 <= first.to_us <= START_US + 10_430_000
    assert START_US + 29_900_000 <= second.from_us <= START_US + 30_000_000
    assert manifest.tones == [TonesEntry(START_US, manifest.ended_at_us, ["PCMA", "PCMU"])]


def test_what_was_blanked_is_neither_received_nor_late(tmp_path: Path) -> None:
    """The manifest counts what is kept."""
    _, samples = dialled(4, ms=80)
    conversation = held(tmp_path, [Side(samples)])
    (statistics,) = conversation.call.manifest.statistics
    assert statistics.received == len(conversation.call.sequences(0)) < len(conversation.sides[0].packets)


def test_a_profile_that_changes_is_followed_from_what_is_still_held_back(tmp_path: Path) -> None:
    """Tones of the last five seconds are blanked too, and kept again when the profile keeps them."""
    desk = Desk(tmp_path)
    desk.begin(True, formats=(PCMA, EVENTS))
    side = Side(placed([(1.0, Key("1")), (8.0, Key("2")), (15.0, Key("3"))], 20))
    for number, data in enumerate(side.packets):
        desk.arrive(0, data, at_us=desk.now_us + 20_000 * (number % 5))
        if number % 5 == 4:
            desk.run(0.1)
        if number in (550, 1_000):  # 11 s, 20 s
            desk.engine.handle(_policy(desk, blank=number == 550), desk.moment)
        if number == 700:  # 14 s: what left by then was blanked
            desk.engine.handle(_policy(desk, blank=False), desk.moment)
    desk.end()
    desk.run(7)
    conversation = Conversation(desk.opened(), [side])
    assert heard(conversation.stored(0)) == "13"
    assert len(conversation.call.manifest.tones) == 1


def test_other_codecs_are_kept_and_the_manifest_says_who_must_look(tmp_path: Path) -> None:
    """G.722 cannot be looked into here: its packets stay, and only G.711 is said to be blanked."""
    desk = Desk(tmp_path)
    desk.begin(True, policy=BLANK, formats=(G722, EVENTS))
    for number in range(100):
        desk.arrive(0, packet(number, bytes(range(160)), payload_type=9))
        desk.run(0.1)
    desk.end()
    desk.run(7)
    call = desk.opened()
    assert len(call.sequences(0)) == 100
    assert [entry.codecs for entry in call.manifest.tones] == [["PCMA", "PCMU"]]


def test_a_static_type_is_what_the_profile_says_it_is(tmp_path: Path) -> None:
    """Type 8 that a session description calls something else is not looked into as G.711."""
    desk = Desk(tmp_path)
    desk.begin(True, policy=BLANK, formats=(FormatSpec(payload_type=8, codec="opus", clock_hz=48_000), EVENTS))
    keys, samples = dialled(4, ms=80)
    side = Side(samples)
    for data in side.packets:
        desk.arrive(0, data)
        desk.run(0.1)
    desk.end()
    desk.run(7)
    assert heard(Conversation(desk.opened(), [side]).stored(0)) == keys


def test_the_law_may_change_in_mid_stream(tmp_path: Path) -> None:
    """Each packet is read by its own payload type."""
    desk = Desk(tmp_path)
    desk.begin(True, policy=BLANK, formats=(PCMA, PCMU, EVENTS))
    _, samples = dialled(16, ms=80)
    laws = [Side(samples, law).packets for law in g711.Law]
    for number, pair in enumerate(zip(*laws, strict=True)):
        desk.arrive(0, pair[number // 7 % 2], at_us=desk.now_us + 20_000 * (number % 5))
        if number % 5 == 4:
            desk.run(0.1)
    desk.end()
    desk.run(7)
    stored = np.zeros(samples.size)
    for block in desk.opened().blocks:
        begins = np.cumsum(block.size) - block.size
        for at, begin, size, kind in zip(block.timestamp, begins, block.size, block.payload_type, strict=True):
            law = g711.Law.A if kind == 8 else g711.Law.MU
            stored[at : at + size] = g711.decode(law, np.ascontiguousarray(block.payload[begin : begin + size]))
    assert heard(samples) != ""
    assert heard(stored) == ""


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    ptime_ms=st.sampled_from([10, 20, 30, 40, 60]),
    law=st.sampled_from(list(g711.Law)),
    loss=st.floats(0, 0.1),
    hold_back_ms=st.sampled_from([0, 200, 1_000, 5_000]),
)
def test_whatever_is_dialled_cannot_be_heard(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ptime_ms: int, law: g711.Law, loss: float, hold_back_ms: int
) -> None:
    """Any keys, lengths, pauses, levels, twists, offsets, packet times and losses."""
    random = np.random.default_rng(seed)
    at_s, keys = 0.3, []
    while at_s < 10:
        ms = float(random.uniform(40, 200))
        keys.append(
            (
                at_s,
                Key(
                    PAD[random.integers(16)],
                    ms,
                    random.uniform(-30, -6),
                    random.uniform(-8, 8),
                    random.uniform(-0.015, 0.015),
                    random.uniform(0, 6),
                ),
            )
        )
        at_s += ms / 1000 + float(random.uniform(0.04, 0.6))
    samples = placed(keys, 11)
    lost = set(np.flatnonzero(random.random(samples.size // (8 * ptime_ms)) < loss).tolist())
    directory = tmp_path_factory.mktemp("dialled")
    assert len(heard(samples)) >= 0.9 * len(keys)
    assert_unheard(held(directory, [Side(samples, law, ptime_ms, lost)], hold_back_ms=hold_back_ms))


def test_blanked_spans_survive_a_restart(tmp_path: Path) -> None:
    """What one run blanked, the next one's manifest declares; and it goes on blanking, without being told again."""
    desk = Desk(tmp_path)
    side = Side(placed([(1.0, Key("1")), (14.0, Key("2"))], 20))
    desk.begin(True, policy=BLANK, formats=(PCMA, EVENTS))
    _send(desk, side.packets[:500])
    desk.settle_jobs()
    later = Desk(tmp_path, now_us=desk.now_us, openings=1, randomness=bytes)
    later.adopt(True)
    _send(later, side.packets[500:], first=500)
    later.end()
    later.run(7)
    conversation = Conversation(later.opened(), [side])
    assert heard(conversation.stored(0)) == ""
    gaps = [gap for gap in conversation.call.manifest.gaps if gap.cause == "tones"]
    assert [gap.from_us // 1_000_000 - START_US // 1_000_000 for gap in gaps] == [0, 13]
    assert conversation.call.manifest.tones == [TonesEntry(START_US, later.now_us - 7_000_000, ["PCMA", "PCMU"])]
    assert isinstance(gaps[0], GapEntry)


def _send(desk: Desk, packets: list[bytes], first: int = 0) -> None:
    for number, data in enumerate(packets, first):
        desk.arrive(0, data, at_us=desk.now_us + 20_000 * (number % 5))
        if number % 5 == 4:
            desk.run(0.1)


def _policy(desk: Desk, *, blank: bool) -> messages.Policy:
    policy = BLANK if blank else CallPolicy()
    return messages.Policy(call=CALL, at_us=desk.now_us, policy=policy)


def test_no_tone_stays_where_it_was_looked_for(tmp_path: Path) -> None:
    """Nor does what had left and is taken back by a pause; the next stream of a row knows nothing of the last one's."""
    desk = Desk(tmp_path)
    desk.begin(True, policy=BLANK)
    tones = desk.engine._lines.tones
    key = placed([(0.0, Key("5", 8_000))], 8.0)
    for number, data in enumerate(Side(key).packets):
        desk.arrive(0, data, at_us=desk.now_us + 20_000 * number)
    for _ in range(80):
        desk.run(0.1)
        if tones._going:
            break
    assert not tones._octets.any()
    assert not tones._samples.any()
    desk.end()
    desk.run(9)
    assert not tones._going

    other = Desk(tmp_path / "other")
    other.begin(True, policy=BLANK)
    other.talk(8, streams=1)
    looked_at = other.engine._lines.tones
    assert looked_at._octets.any()
    other.pause(other.now_us - 7_000_000)
    other.run(0.1)
    assert not looked_at._octets.any()
    assert not looked_at._samples.any()


@pytest.mark.parametrize(("policy", "least_us"), [(BLANK, LOOK_AHEAD_US + 300_000), (CallPolicy(), 0)])
def test_without_hold_back_what_leaves_waits_for_what_follows_it(
    tmp_path: Path, policy: CallPolicy, least_us: int
) -> None:
    """Nothing is looked at before its followers have been drained; calls that keep tones wait for nothing."""
    desk = Desk(tmp_path, hold_back_ms=0)
    desk.begin(policy=policy)
    number, behind_us = 0, []
    for _ in range(40):
        before = desk.engine.counters()["left_ring"]
        number = desk.talk(0.1, number)
        if desk.engine.counters()["left_ring"] > before:
            behind_us.append(desk.now_us - desk.engine._recordings[CALL].left_until_us)
    assert len(behind_us) >= 3
    assert least_us <= min(behind_us) <= least_us + 400_000
