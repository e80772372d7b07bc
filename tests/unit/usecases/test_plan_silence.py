"""What goes to the encoder of a call with pauses: exact silence, and around it exactly what it would have been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from dualtone.adapters import speech_decoder
from dualtone.domain import pause
from dualtone.domain.call_files import GapEntry, Manifest
from dualtone.domain.call_session import CallSession
from dualtone.domain.pause import How, Pause
from dualtone.usecases.open_call import Gap
from dualtone.usecases.plan_silence import PAUSED_AUDIO_REMOVED
from dualtone.usecases.render_audio import RenderAudio, Rendering
from tests.call_samples import AgentKey, Packet, blocks, packets, speech, stream_entry, upload
from tests.pause_samples import at, entry

ALICE, BOB = speech("alice"), speech("bob")
RATE: Final = 8000


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
        assert rate_hz == 8000
        yield self


@dataclass
class Read:
    """What the reading of the parts found out."""

    session: CallSession = field(default_factory=CallSession)
    holes: list[Gap] = field(default_factory=list)
    removed: list[Gap] = field(default_factory=list)


def jittered() -> list[Packet]:
    """Two sides whose packets come 0 to 30 ms late."""
    late = [0, 30_000, 11_000, 0, 25_000]
    sides = [
        packets(ALICE, jitter_us=lambda n: late[n % 5]),
        packets(BOB, stream=1, ssrc=2, jitter_us=lambda n: late[-n % 5]),
    ]
    return [one for side in sides for one in side]


def manifest(kept: list[Packet], **options: Any) -> Manifest:
    made = upload(blocks(kept), key=AgentKey(), wrap=lambda key: key, ended_us=at(12), **options).manifest
    assert made is not None
    return made


def rendered(
    kept: list[Packet], *, read: Read | None = None, **options: Any
) -> tuple[npt.NDArray[np.int16], Rendering]:
    """What the encoder hears, and the rendering."""
    tape, said = Tape(), manifest(kept, **options)
    pauses = pause.union(pause.declared(said.pauses), (), answered_us=at(0), ended_us=at(12))
    rendering = RenderAudio(tape.started, speech_decoder.start)(said, read or Read(), [blocks(kept)], pauses)
    assert rendering is not None
    return np.concatenate(tape.samples), rendering


def place(rendering: Rendering, second: float) -> int:
    """The sample of a second of the call."""
    return round((at(second) - rendering.started_at_us) / 125)


@pytest.mark.parametrize("agent_blanks", [True, False], ids=["withheld", "uploaded all the same"])
@pytest.mark.parametrize(("from_s", "to_s"), [(3.1, 6.4), (3.100_125, 6.399_875), (0.02, 1), (10.5, 11.9)])
def test_a_pause_is_silent_to_the_sample_and_nothing_else_is_touched(
    from_s: float, to_s: float, *, agent_blanks: bool
) -> None:
    """Whatever the jitter: both edges, both channels, and the rest sample for sample as without the pause."""
    plain, whole = rendered(jittered())
    kept = [one for one in jittered() if not (agent_blanks and at(from_s) <= one.arrival_us < at(to_s))]
    heard, rendering = rendered(kept, pauses=[entry(from_s, to_s)])
    first, last = place(rendering, from_s), place(rendering, to_s)
    assert rendering.started_at_us == whole.started_at_us
    assert not heard[first:last].any()
    assert np.array_equal(heard[: max(first - 400, 0)], plain[: max(first - 400, 0)])
    assert np.array_equal(heard[last + 400 : len(plain)], plain[last + 400 :])
    assert heard[first - 400 : first].any() or first < 400
    (paused,) = rendering.pauses
    assert paused.how is (How.WITHHELD if agent_blanks else How.REMOVED)
    assert rendering.flags == (frozenset() if agent_blanks else {PAUSED_AUDIO_REMOVED})


def test_packets_that_were_on_their_way_are_cut_at_the_edge() -> None:
    """A packet that arrived 5 ms before a pause plays 5 ms of it, and one that arrived in it plays nothing."""
    heard, _ = rendered(
        packets(np.full(96_000, 1000, np.int16)), pauses=[entry(2.005, 3.005)], streams=(stream_entry(0, "1"),)
    )
    quiet = np.flatnonzero(heard[:, 0] == 0)
    assert (int(quiet[0]), int(quiet[-1])) == (round(2.005 * RATE), round(3.02 * RATE) - 1)
    assert quiet.size == quiet[-1] - quiet[0] + 1


def test_a_hold_is_silent_on_its_stream_alone() -> None:
    """And is no reason for an alarm."""
    gaps = [GapEntry(0, at(2), at(4), "inactive")]
    heard, rendering = rendered(jittered(), gaps=gaps)
    first, last = place(rendering, 2), place(rendering, 4)
    assert not heard[first:last, 0].any()
    assert heard[first:last, 1].any()
    assert rendering.flags == frozenset()


@pytest.mark.parametrize("cause", ["restart", "interrupted"])
def test_a_loss_silences_nothing(cause: str) -> None:
    """It says what is missing; what came is heard."""
    plain, _ = rendered(jittered())
    heard, rendering = rendered(jittered(), gaps=[GapEntry(0, at(2), at(4), cause)])
    assert np.array_equal(heard, plain)
    assert [gap.cause for gap in rendering.gaps] == [cause]
    assert rendering.gaps[0].to_ms - rendering.gaps[0].from_ms <= 60


def test_a_pauses_gaps_in_the_manifest_are_told_once() -> None:
    """The manifest names them beside the pause; one that no pause explains stays."""
    gaps = [GapEntry(stream, at(3.1), at(6.4), "payment") for stream in (0, 1)]
    gaps.append(GapEntry(0, at(8), at(9), "dtmf"))
    _, rendering = rendered(jittered(), gaps=gaps, pauses=[entry(3.1, 6.4)])
    assert [(gap.stream, gap.cause, gap.pause) for gap in rendering.gaps] == [
        (0, "payment", 0),
        (1, "payment", 0),
        (0, "dtmf", None),
    ]


def test_a_gap_reaches_over_the_records_that_were_cut_for_it() -> None:
    """Also at the end of the call, which does not become shorter by it."""
    kept = [one for one in packets(ALICE) if one.arrival_us < at(10)]
    read = Read(removed=[Gap(at(10), at(10.98)), Gap(at(11), at(11.98))])
    heard, rendering = rendered(kept, read=read, pauses=[entry(10.4, 11.2)], streams=(stream_entry(0, "1"),))
    (gap,) = rendering.gaps
    assert (gap.from_ms, gap.to_ms) == (10_000, 11_980)
    assert len(heard) == round(11.98 * RATE)
    assert rendering.pauses[0].how is How.REMOVED


def test_pauses_are_paused_by_arrival_whatever_their_order() -> None:
    """Overlapping pauses of two causes are two gaps and one silence."""
    pauses = [entry(3, 6), entry(5, 8, number=2, cause="manual")]
    heard, rendering = rendered(jittered(), pauses=pauses)
    assert not heard[place(rendering, 3) : place(rendering, 8)].any()
    assert [(gap.stream, gap.cause, gap.pause) for gap in rendering.gaps] == [
        (0, "payment", 0),
        (1, "payment", 0),
        (0, "manual", 1),
        (1, "manual", 1),
    ]


def test_a_pause_that_lasts_until_the_end_silences_what_comes_after_it() -> None:
    """The ring drains after BYE."""
    heard, rendering = rendered(jittered(), pauses=[entry(9, 12)])
    assert not heard[place(rendering, 9) :].any()
    assert isinstance(rendering.pauses[0], Pause)
