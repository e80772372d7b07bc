"""Records laid out for many calls at once are, byte for byte, what the domain's encoder makes of the same packets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtone.domain import media_record
from dualtone.domain.media_record import StreamBlock
from sbc_agent.media.clock import FOREVER
from sbc_agent.media.intake import Intake
from sbc_agent.media.records import RecordLayout, Turn
from sbc_agent.media.ring import Ring
from tests.agent.media.feed import Arrival, received
from tests.agent.media.packets import packet, speech


@settings(max_examples=60, deadline=None)
@given(
    st.lists(  # calls; streams; packets: SSRC, payload size, milliseconds since the one before
        st.lists(
            st.lists(
                st.tuples(st.sampled_from([7, 7, 7, 9]), st.sampled_from([160, 160, 1, 80, 0]), st.integers(0, 60)),
                max_size=90,
            ),
            max_size=3,
        ),
        max_size=5,
    ),
)
def test_the_layout_is_the_domains(calls: list[list[list[tuple[int, int, int]]]]) -> None:
    rows = sum(len(streams) for streams in calls)
    ring = Ring(max(rows, 1), 5_000)
    intake = Intake(max(rows, 1), ring)
    expected: dict[int, list[StreamBlock]] = {}
    turn: list[tuple[int, int, int]] = []
    for call, streams in enumerate(calls):
        for stream, packets in enumerate(streams):
            row = len(turn)
            turn.append((row, stream + 10, call))
            intake.open_row(row)
            intake.explain(row, [(8, "PCMA")])
            intake.keep_from_us[row], intake.keep_until_us[row] = 0, FOREVER
            arrivals, at_us = [], 1_700_000_000_000_000 + row
            for index, (ssrc, size, pause_ms) in enumerate(packets):
                at_us += pause_ms * 1000
                payload = speech(row, index, size) if size > 4 else bytes([index]) * size
                arrivals.append(Arrival(0, packet(index, payload, ssrc=ssrc, timestamp=index * 160), at_us))
            batch, buffer = received(arrivals)
            intake.take(np.full(batch.offset.size, row), batch, batch.stamp_us, buffer)
            slots = ring.held(row)
            offsets = ring.offsets(np.full(slots.size, row), slots)
            edges = [0, *(np.flatnonzero(np.diff(ring.ssrc[slots].astype(np.int64))) + 1).tolist(), slots.size]
            for begin, end in pairwise(edges):
                if begin == end:
                    continue
                run = slots[begin:end]
                payload = b"".join(
                    ring.bytes[at : at + int(ring.size[slot])].tobytes()
                    for slot, at in zip(run, offsets[begin:end], strict=True)
                )
                expected.setdefault(call, []).append(
                    StreamBlock(
                        stream + 10, int(ring.ssrc[run[0]]), ring.sequence[run], ring.timestamp[run],
                        ring.arrival_us[run], ring.payload_type[run], ring.size[run],
                        np.frombuffer(payload, np.uint8),
                    )
                )  # fmt: skip
    row_, stream_, call_ = np.array(turn, np.int64).reshape(-1, 3).T
    records = RecordLayout().leave(ring, Turn(row_, stream_, call_), FOREVER)
    assert {record.call: bytes(record.plaintext) for record in records} == {
        call: media_record.encode(blocks) for call, blocks in expected.items()
    }
    assert [record.packets for record in records] == [
        sum(block.sequence.size for block in expected[call]) for call in sorted(expected)
    ]


@pytest.mark.parametrize("rows", [0, 2])
def test_nothing_to_leave_makes_no_record(rows: int) -> None:
    turn = Turn(*(np.zeros(rows, np.int64) for _ in range(3)))
    assert RecordLayout().leave(Ring(2, 5_000), turn, FOREVER) == []
