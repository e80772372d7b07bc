"""Calls over SRTP through the engine: what is sealed is what a call over plain RTP would have left."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sbc_agent.media import messages
from sbc_agent.media.messages import KEY_BYTES, Alarm, CryptoSpec, CryptoSuite, StreamSpec
from tests.agent.media.desk import START_US, Desk
from tests.agent.media.feed import OTHER
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import CALL, OpenedCall
from tests.agent.media.srtp_sender import Sender

CAPTURE = Path(__file__).parents[2] / "vectors" / "captures" / "31-srs-leg-srtp-sdes.siprec.json.gz"
SUITES: tuple[CryptoSuite, ...] = tuple(KEY_BYTES)  # type: ignore[arg-type]
FIRST = 65_500  # the roll-over comes within the call's first second


def sender(suite: CryptoSuite = "AES_CM_128_HMAC_SHA1_80", *, seed: int = 0, mki: bytes = b"") -> Sender:
    return Sender(suite, bytes((seed + 7 * index) & 0xFF for index in range(KEY_BYTES[suite])), mki)


@dataclass
class SrtpCall:
    """A call of two streams whose senders protect what they send; without senders it is plain."""

    desk: Desk
    senders: tuple[Sender, ...] = ()

    def streams(self, *active: bool) -> tuple[StreamSpec, ...]:
        specs = self.desk.streams(*active)
        none: list[tuple[CryptoSpec, ...]] = [()] * len(specs)
        keys = [(one.spec,) for one in self.senders] or none
        return tuple(spec.model_copy(update={"crypto": key}) for spec, key in zip(specs, keys, strict=True))

    def begin(self) -> None:
        self.desk.tell(messages.Begin(call=CALL, at_us=self.desk.now_us, streams=self.streams(True, True)))

    def change(self, *active: bool) -> None:
        self.desk.tell(messages.Streams(call=CALL, at_us=self.desk.now_us, streams=self.streams(*active)))

    def talk(self, seconds: float, first: int) -> int:
        """Both sides send while time passes; returns the number after the last one."""
        number = first
        for _ in range(round(seconds * 10)):
            for index in range(5):
                for stream in range(2):
                    data = packet(number, speech(stream, number), ssrc=stream + 1)
                    if self.senders:
                        data = self.senders[stream].protect(data, number >> 16)
                    self.desk.arrive(stream, data, at_us=self.desk.now_us + 20_000 * index)
                number += 1
            self.desk.run(0.1)
        return number

    def end(self) -> OpenedCall:
        self.desk.end()
        self.desk.run(7)
        return self.desk.opened()


def held_call(directory: Path, *senders: Sender) -> tuple[Desk, OpenedCall]:
    """Talk, a hold of one side in which its sender goes on, a pause, talk again."""
    desk = Desk(directory)
    call = SrtpCall(desk, senders)
    call.begin()
    number = call.talk(3, FIRST)
    call.change(False, True)
    number = call.talk(2, number)
    call.change(True, True)
    number = call.talk(2, number)
    desk.pause(desk.now_us - 1_000_000)
    number = call.talk(1, number)
    desk.resume()
    call.talk(2, number)
    return desk, call.end()


@pytest.mark.parametrize("mki", [b"", b"\x01"], ids=["no MKI", "MKI"])
@pytest.mark.parametrize("suite", SUITES)
def test_what_is_sealed_of_srtp_is_what_is_sealed_of_rtp(tmp_path: Path, suite: CryptoSuite, mki: bytes) -> None:
    """Packet by packet, over a roll-over, a hold and a pause; and the manifest counts the same."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "srtp").mkdir()
    _, plain = held_call(tmp_path / "plain")
    _, protected = held_call(tmp_path / "srtp", sender(suite, mki=mki), sender(suite, seed=1, mki=mki))
    for stream in range(2):
        assert protected.sequences(stream) == plain.sequences(stream)
        assert protected.payload(stream) == plain.payload(stream)
        assert protected.arrivals_us(stream) == plain.arrivals_us(stream)
    assert len(plain.sequences(0)) > 250
    assert protected.manifest.statistics == plain.manifest.statistics
    assert protected.manifest.gaps == plain.manifest.gaps
    assert protected.manifest.flags == plain.manifest.flags


def test_a_key_that_changes_in_mid_call_costs_no_packet(tmp_path: Path) -> None:
    """What was on its way under the old key comes after the first packets under the new one."""
    call = SrtpCall(Desk(tmp_path), (sender(), sender(seed=1)))
    call.begin()
    number = call.talk(2, 0)
    before = call.senders
    call.senders = (sender("AEAD_AES_256_GCM", seed=2), sender(seed=3))
    call.change(True, True)
    for one in (number + 1, number):
        for stream, by in enumerate(call.senders if one > number else before):
            data = by.protect(packet(one, speech(stream, one), ssrc=stream + 1))
            call.desk.arrive(stream, data, at_us=call.desk.now_us + 20_000 * (one - number))
    call.desk.run(0.1)
    last = call.talk(2, number + 2)
    opened = call.end()
    assert opened.sequences(0) == opened.sequences(1) == list(range(last))
    assert opened.payload(0) == b"".join(speech(0, one) for one in range(last))


def test_a_stream_that_rests_keeps_its_keys_where_none_are_named(tmp_path: Path) -> None:
    """Its sender goes on counting, and what was heard before the rest is still known: it is a replay."""
    call = SrtpCall(Desk(tmp_path), (sender(), sender(seed=1)))
    call.begin()
    number = call.talk(2, FIRST)
    again = call.senders[0].protect(packet(number - 1, speech(0, number - 1), ssrc=1), (number - 1) >> 16)
    call.desk.change(False, False)
    call.desk.run(2)
    call.change(True, True)
    call.desk.arrive(0, again)
    last = call.talk(2, number)
    assert call.desk.engine.counters()["replayed"] == 1
    assert call.end().sequences(0) == [one & 0xFFFF for one in range(FIRST, last)]


def test_a_stream_may_become_srtp_and_plain_again(tmp_path: Path) -> None:
    call = SrtpCall(Desk(tmp_path))
    call.begin()
    number = call.talk(1, 0)
    for senders in ((sender(), sender(seed=1)), ()):
        call.senders = senders
        call.change(True, True)
        number = call.talk(1, number)
    opened = call.end()
    assert opened.sequences(0) == opened.sequences(1) == list(range(number))


def test_forgeries_come_to_nothing_and_are_counted(tmp_path: Path) -> None:
    """Plain RTP, RTP under another key, and copies, from an attacker who came first: the call is as if alone."""
    call = SrtpCall(Desk(tmp_path), (sender(), sender(seed=1)))
    stranger = sender(seed=9)
    call.begin()
    for number in range(30):
        call.desk.arrive(0, packet(number, b"!" * 160, ssrc=1), source=OTHER)
        call.desk.arrive(0, stranger.protect(packet(number, b"!" * 160, ssrc=1)), source=OTHER)
    number = call.talk(2, 0)
    for one in range(number):
        call.desk.arrive(0, call.senders[0].protect(packet(one, speech(0, one), ssrc=1)), source=OTHER)
    opened = call.end()
    assert opened.sequences(0) == list(range(number))
    assert opened.payload(0) == b"".join(speech(0, one) for one in range(number))
    first = opened.manifest.statistics[0]
    assert (first.received, first.duplicates, first.foreign_source) == (number, number, 60)
    assert not [event for event in call.desk.events if isinstance(event, Alarm)]


def test_a_stream_whose_keys_open_nothing_raises_an_alarm(tmp_path: Path) -> None:
    """The other side is kept; the flag says why one is missing."""
    call = SrtpCall(Desk(tmp_path), (sender(), sender(seed=1)))
    call.begin()
    call.senders = (sender(), sender(seed=2))
    last = call.talk(12, 0)
    assert [event for event in call.desk.of(Alarm) if event.kind == "srtp_unopened"] == [
        Alarm(kind="srtp_unopened", call=CALL)
    ]
    opened = call.end()
    assert (opened.sequences(0), opened.sequences(1)) == (list(range(last)), [])
    assert "srtp_unopened" in opened.manifest.flags
    assert "no_media" not in opened.manifest.flags


def test_no_key_and_no_packet_is_in_the_spool_or_in_the_receivers_buffer(tmp_path: Path) -> None:
    """After a pause nothing of what was said in it lies where it was opened; keys are written nowhere."""
    call = SrtpCall(Desk(tmp_path), (sender(), sender(seed=1)))
    call.begin()
    number = call.talk(1, 0)
    call.desk.pause(call.desk.now_us)
    call.talk(1, number)
    buffer = call.desk.ports.buffer.tobytes()
    assert not any(speech(stream, one) in buffer for stream in range(2) for one in range(number, number + 50))
    call.end()
    written = b"".join(path.read_bytes() for path in call.desk.spool_dir.rglob("*") if path.is_file())
    for by in call.senders:
        for form in (by.master, base64.b64encode(by.master), by.master.hex().encode()):
            assert form[:12] not in written


def capture() -> tuple[list[list[tuple[float, str]]], list[CryptoSpec]]:
    """RTP of both streams, and the offered keys of the suite that the SBC's relay took."""
    dialog = json.loads(gzip.decompress(CAPTURE.read_bytes()))["dialogs"][0]
    lines = dialog["messages"][0]["text"].splitlines()
    keys = [line.split() for line in lines if line.startswith("a=crypto:")]
    suite = dialog["streams"][0]["suite"]
    coded = [key[2].removeprefix("inline:") for key in keys if key[1] == suite]
    specs = [CryptoSpec(tag=7, suite=suite, key=base64.b64decode(one)) for one in coded]
    return [stream["rtp"] for stream in dialog["streams"]], specs


def test_a_real_relays_srtp_is_kept_whole(tmp_path: Path) -> None:
    """Rtpengine's SRTP: every packet opens, in order, as A-law speech that is no noise."""
    streams, specs = capture()
    desk = Desk(tmp_path)
    with_keys = tuple(
        spec.model_copy(update={"crypto": (key,)}) for spec, key in zip(desk.streams(True, True), specs, strict=True)
    )
    desk.tell(messages.Begin(call=CALL, at_us=desk.now_us, streams=with_keys))
    waiting = sorted(
        (at_ms, stream, base64.b64decode(data)) for stream, rtp in enumerate(streams) for at_ms, data in rtp
    )
    while waiting:
        until_ms = (desk.now_us - START_US) / 1_000 + 100
        while waiting and waiting[0][0] < until_ms:
            at_ms, stream, data = waiting.pop(0)
            desk.arrive(stream, data, at_us=START_US + int(at_ms * 1_000))
        desk.run(0.1)
    desk.end()
    desk.run(7)
    opened = desk.opened()
    for stream, rtp in enumerate(streams):
        sent = [int.from_bytes(base64.b64decode(data)[2:4], "big") for _, data in rtp]
        assert opened.sequences(stream) == sent
        counts = np.bincount(np.frombuffer(opened.payload(stream), np.uint8), minlength=256) / (160 * len(sent))
        assert -(counts[counts > 0] * np.log2(counts[counts > 0])).sum() < 7.5  # bits: ciphertext has nearly eight
    assert [one.foreign_source for one in opened.manifest.statistics] == [0, 0]
