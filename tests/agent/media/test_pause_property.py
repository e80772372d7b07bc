"""Whatever comes in whatever order: nothing of a paused span leaves the ring, and all the rest is there once.

Random pauses and resumes of several causes, back-dated inside the hold-back, ahead, with ends and leases; a network
that delays, reorders, doubles and loses; packet times from 10 to 60 ms; hold-backs from none to three seconds; stalls;
SDP holds; the end of the call. What should have been kept is told by a model of a few lines.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain.call_files import Manifest
from sbc_agent.media.messages import Cause, CutDone, PauseApplied
from tests.agent.media.desk import START_US, TICK_US, Desk
from tests.agent.media.packets import packet, speech

CAUSES: tuple[Cause, ...] = ("payment", "manual", "hold")
FOREVER = 1 << 60


@dataclass
class Span:
    """Silence of one cause, of the call or of one stream."""

    cause: str
    from_us: int
    until_us: int
    stream: int | None


@dataclass
class Model:
    """What was asked for: spans with their causes, of the call or of one stream."""

    spans: list[Span] = field(default_factory=list)

    def pause(self, cause: str, from_us: int, until_us: int = FOREVER, stream: int | None = None) -> None:
        self.spans.append(Span(cause, from_us, until_us, stream))

    def resume(self, cause: str, at_us: int, stream: int | None = None) -> None:
        for span in self.spans:
            if span.cause == cause and span.stream == stream and span.until_us > at_us:
                span.until_us = max(at_us, span.from_us)

    def is_silent(self, stream: int, at_us: int) -> bool:
        return any(span.from_us <= at_us < span.until_us and span.stream in (None, stream) for span in self.spans)


class Conversation:
    """A call of a few seconds, driven by a seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.dice = random.Random(seed)
        self.hold_back_ms = self.dice.choice([0, 200, 1_000, 3_000])
        self.packet_ms = self.dice.choice([10, 20, 30, 40, 60])
        self.desk = Desk(directory, hold_back_ms=self.hold_back_ms, part_s=self.dice.choice([1, 60]))
        self.model = Model()
        self.arrived: dict[int, dict[int, int]] = {0: {}, 1: {}}
        self.too_late: list[tuple[int, int]] = []
        self.held: set[int] = set()
        self.network: list[tuple[int, int, int]] = []
        self.seconds = self.dice.uniform(2, 6)
        # What was overtaken misses its turn where the hold-back is shorter than the wait in the socket.
        self.is_reordering = self.hold_back_ms >= 1_000 and self.dice.random() < 0.5
        self.longest_stall_us = (3 if self.is_reordering else 20) * TICK_US

    def run(self) -> None:
        desk, dice = self.desk, self.dice
        desk.begin()
        self._send_all()
        while desk.now_us < START_US + self.seconds * 1_000_000:
            step_us = TICK_US if dice.random() < 0.9 else dice.randrange(TICK_US, self.longest_stall_us)
            due_us = desk.now_us + step_us
            for at_us in sorted(dice.randrange(desk.now_us, due_us) for _ in range(dice.choice([0, 0, 0, 1, 2]))):
                self._arrive(at_us)
                self._command()
            self._arrive(due_us)
            desk.engine.tick(desk.moment)
            desk.events += desk.engine.events()
        self.ended_us = desk.now_us
        desk.end()
        for _ in range(dice.choice([0, 1])):
            desk.run(dice.uniform(0, self.hold_back_ms / 1_000))
            self._pause()
        desk.run(self.hold_back_ms / 1_000 + 2)

    def _send_all(self) -> None:
        """All that the network will deliver: arrival, stream, number."""
        for stream in (0, 1):
            for number in range(int(self.seconds * 1_000 / self.packet_ms)):
                if number and self.dice.random() < 0.03:
                    continue
                at_us = START_US + number * self.packet_ms * 1_000
                late_us = self.dice.choice([0, 0, 0, 0, 30_000, 90_000]) if self.is_reordering else 0
                self.network.append((at_us + late_us * bool(number), stream, number))
                if self.dice.random() < 0.05:
                    self.network.append((at_us + late_us * bool(number) + 1_000, stream, number))
        self.network.sort()

    def _arrive(self, until_us: int) -> None:
        """Time passes, and datagrams reach their sockets."""
        self.desk.now_us = until_us
        size = self.packet_ms * 8
        while self.network and self.network[0][0] <= until_us:
            at_us, stream, number = self.network.pop(0)
            data = packet(number, speech(stream, number, size), timestamp=number * size, ssrc=stream + 1)
            self.desk.arrive(stream, data, at_us=at_us)
            self.arrived[stream].setdefault(number, at_us)

    def _command(self) -> None:
        """A pause, a resume, or a re-INVITE that holds a side or lets it go."""
        choice = self.dice.random()
        if choice < 0.5:
            self._pause()
        elif choice < 0.85:
            cause = self.dice.choice(CAUSES)
            self.desk.resume(cause)
            self.model.resume(cause, self.desk.now_us)
        else:
            stream = self.dice.randrange(2)
            if stream in self.held:
                self.held.remove(stream)
                self.model.resume("inactive", self.desk.now_us, stream)
            else:
                self.held.add(stream)
                self.model.pause("inactive", self.desk.now_us, stream=stream)
            self.desk.change(*(one not in self.held for one in (0, 1)))

    def _pause(self) -> None:
        dice, now_us = self.dice, self.desk.now_us
        back_us = dice.randrange(-300_000, self.hold_back_ms * 1_000 + dice.choice([1, 1, 1, 2_000_000]))
        from_us = max(now_us - back_us, 0)
        cause, lease_us, until_us = dice.choice(CAUSES), 0, None
        if dice.random() < 0.25:
            until_us = from_us + dice.randrange(1_500_000)
        elif dice.random() < 0.2:
            lease_us = dice.randrange(1, 1_500_000)
        answer = self.desk.pause(from_us, cause, until_us=until_us, lease_us=lease_us, on_expiry="resume")
        assert answer is not None
        self.model.pause(cause, from_us, FOREVER if until_us is None else max(until_us, from_us))
        if answer.outcome == "too_late":
            self.too_late.append((from_us, answer.left_until_us))
        else:
            assert answer.outcome == "acknowledged"


def check(conversation: Conversation) -> None:
    """Compares what lies in the files with the model, and the gaps with what lies in the files."""
    call = conversation.desk.opened()
    by_leases(conversation.model, call.manifest)
    removed = [(head.from_us, head.from_us + head.span_us) for head in call.removed]
    for from_us, to_us in removed:
        assert any(from_us <= late_to and to_us >= late_from for late_from, late_to in conversation.too_late)
    done = {event.command for event in conversation.desk.of(CutDone)}
    late = {event.command for event in conversation.desk.of(PauseApplied) if event.outcome == "too_late"}
    assert done == late
    for stream in (0, 1):
        sealed = dict(zip(call.sequences(stream), call.arrivals_us(stream), strict=True))
        assert len(sealed) == len(call.sequences(stream)), "each once"
        for number, at_us in sealed.items():
            assert not conversation.model.is_silent(stream, at_us), "nothing of a paused span leaves"
            assert number in conversation.arrived[stream]
        for number, at_us in conversation.arrived[stream].items():
            is_cut = any(from_us <= at_us <= to_us for from_us, to_us in removed)
            if not conversation.model.is_silent(stream, at_us) and at_us <= conversation.ended_us and not is_cut:
                assert number in sealed, "everything else is there"
        gaps = [(gap.from_us, gap.to_us) for gap in call.manifest.gaps if gap.stream == stream]
        for at_us in conversation.arrived[stream].values():
            is_gap = any(from_us <= at_us < to_us for from_us, to_us in gaps)
            if START_US <= at_us < conversation.ended_us:
                assert is_gap == conversation.model.is_silent(stream, at_us), "the gaps say what was left out"


def by_leases(model: Model, manifest: Manifest) -> None:
    """Leases are renewed by later pauses of their cause: where each ended is taken from the manifest."""
    calls = [span for span in model.spans if span.stream is None]
    assert len(calls) == len(manifest.pauses)
    for span, entry in zip(calls, manifest.pauses, strict=True):
        assert (span.cause, span.from_us) == (entry.cause, entry.from_us)
        if entry.lease_expired:
            assert entry.to_us <= span.until_us
            span.until_us = entry.to_us
        elif span.until_us == FOREVER:
            assert entry.to_us == max(manifest.ended_at_us, entry.from_us)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_nothing_of_a_paused_span_leaves_and_all_else_is_there_once(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        conversation = Conversation(seed, Path(directory))
        conversation.run()
        check(conversation)


@pytest.mark.long
@settings(max_examples=2_000, deadline=None)
@given(st.integers(0, 1 << 32))
def test_nothing_of_a_paused_span_leaves_in_a_thousand_conversations(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        conversation = Conversation(seed, Path(directory))
        conversation.run()
        check(conversation)
