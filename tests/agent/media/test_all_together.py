"""What was made apart meets in one call: SRTP whose keys change, tones, decisions, pauses, and whose row comes next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualtone.domain.audio import g711
from sbc_agent.media import messages
from sbc_agent.media.messages import KEY_BYTES, Alarm, CallPolicy, CryptoSuite, SelfPaused
from tests.agent.media.desk import Desk
from tests.agent.media.dial import CARD, Key, Samples, heard, placed
from tests.agent.media.packets import packet
from tests.agent.media.sealed_call import CALL, OpenedCall
from tests.agent.media.srtp_sender import Sender
from tests.agent.media.untold import files, remembers

SUITES: tuple[CryptoSuite, ...] = tuple(KEY_BYTES)  # type: ignore[arg-type]
FIRST = 65_400  # the roll-over comes within the call
SIZE = 160
every_suite = pytest.mark.parametrize("suite", SUITES)
packet_times = pytest.mark.parametrize("ptime_ms", [20, 60])
hold_backs = pytest.mark.parametrize("hold_back_ms", [0, 5_000])


def sender(suite: CryptoSuite, seed: int) -> Sender:
    return Sender(suite, bytes((seed + 7 * index) & 0xFF for index in range(KEY_BYTES[suite])))


class Caller:
    """One side over SRTP that dials: half a second a key, of which 100 ms are tone."""

    def __init__(self, desk: Desk, by: Sender, ptime_ms: int = 20) -> None:
        self.desk, self.by, self.ptime_ms, self.number = desk, by, ptime_ms, FIRST

    def begin(self, *, waits: bool) -> None:
        policy = CallPolicy(tones="blank")
        self.desk.tell(
            messages.Begin(call=CALL, at_us=self.desk.now_us, streams=self._streams(), waits=waits, policy=policy)
        )

    def take_another_key(self, by: Sender) -> None:
        self.by = by
        self.desk.tell(messages.Streams(call=CALL, at_us=self.desk.now_us, streams=self._streams()))

    def dial(self, keys: str) -> None:
        self._send(placed([(0.1 + 0.5 * index, Key(key, 100)) for index, key in enumerate(keys)], 0.5 * len(keys)))

    def hum(self, seconds: float) -> None:
        """A sound that is neither tone nor silence."""
        self._send(3_000 * np.sin(np.arange(round(8_000 * seconds)) * 0.35))

    def _send(self, samples: Samples) -> None:
        size = 8 * self.ptime_ms
        coded = g711.encode(g711.Law.A, samples.astype(np.int16)).tobytes()
        begin_us = self.desk.now_us
        for begin in range(0, len(coded) - size + 1, size):
            data = packet(self.number & 0xFFFF, coded[begin : begin + size], timestamp=self.number * size, ssrc=7)
            at_us = begin_us + 125 * begin
            while at_us >= self.desk.now_us + 100_000:
                self.desk.run(0.1)
            self.desk.arrive(0, self.by.protect(data, self.number >> 16), at_us=at_us)
            self.number += 1
        self.desk.run(0.1)

    def _streams(self) -> tuple[messages.StreamSpec, ...]:
        return tuple(one.model_copy(update={"crypto": (self.by.spec,)}) for one in self.desk.streams(True))


def samples_of(call: OpenedCall) -> Samples:
    return g711.decode(g711.Law.A, np.frombuffer(call.payload(0), np.uint8)).astype(float)


@every_suite
@packet_times
@hold_backs
def test_tones_in_srtp_of_a_call_that_waits_are_blanked_over_a_change_of_keys(
    tmp_path: Path, suite: CryptoSuite, ptime_ms: int, hold_back_ms: int
) -> None:
    """A pause while it waits is in what is kept; no key can be heard, and the card's number pauses it by itself."""
    desk = Desk(tmp_path, hold_back_ms=hold_back_ms)
    caller = Caller(desk, sender(suite, 0), ptime_ms)
    caller.begin(waits=True)
    caller.hum(2)
    caller.dial("123")
    caller.take_another_key(sender(suite, 1))
    caller.dial("456")
    paused_us = desk.now_us
    desk.pause(paused_us)
    caller.dial("789")
    desk.resume()
    resumed_us = desk.now_us
    caller.hum(1)
    desk.decide(keep=True)
    caller.dial(CARD)
    caller.hum(10)
    desk.end()
    desk.run(8)
    call = desk.opened()
    assert heard(samples_of(call)) == ""
    assert [pause.cause for pause in call.manifest.pauses] == ["payment", "dtmf"]
    assert not [at_us for at_us in call.arrivals_us(0) if paused_us <= at_us < resumed_us]
    assert [event.kind for event in desk.of(Alarm)] == ["payment_without_pause"]
    (told,) = desk.of(SelfPaused)
    assert max(call.arrivals_us(0)) < told.pause.from_us
    assert len(call.arrivals_us(0)) > 2_000 // ptime_ms


@every_suite
def test_nothing_of_a_discarded_call_over_srtp_is_left_for_the_next_one(tmp_path: Path, suite: CryptoSuite) -> None:
    """Neither sound nor digits nor keys, in rings, buffers and spool; the next call has its port and its row."""
    desk = Desk(tmp_path, ports=1)
    caller = Caller(desk, sender(suite, 0))
    caller.begin(waits=True)
    caller.hum(7)
    caller.dial(CARD[:8])
    sound = g711.encode(g711.Law.A, (3_000 * np.sin(np.arange(SIZE) * 0.35)).astype(np.int16)).tobytes()
    assert remembers(desk, sound)
    desk.decide(keep=False)
    desk.run(0.1)
    desk.settle_jobs()
    assert not remembers(desk, sound)
    assert files(desk.spool_dir) == []
    desk.end()
    desk.run(31)

    other = f"{CALL[:-2]}42"
    following = Caller(desk, sender(suite, 3))
    following.number = 10
    desk.tell(messages.Begin(call=other, at_us=desk.now_us, streams=following._streams(), policy=CallPolicy("blank")))
    following.dial(CARD[8:])
    following.hum(4)
    assert desk.of(SelfPaused) == []
    assert desk.of(Alarm) == []
    counters = desk.engine.counters()
    assert counters["unauthentic"] == 0
    desk.tell(messages.End(call=other, at_us=desk.now_us, reason="bye"))
    desk.run(8)
    desk.settle()
    assert [event.call for event in desk.of(messages.Finished)] == [other]
