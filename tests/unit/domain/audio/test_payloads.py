"""What payload types mean, by declaration, by RFC 3551, and over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualtone.domain.audio.codecs import Codec, Coding
from dualtone.domain.audio.payloads import FIRST_CODEC, QUIET, RAW, UNDECLARED, PayloadTable
from dualtone.domain.call_files import StreamFormat

PCMA, PCMU = Codec(Coding.PCMA, 8000, 8000), Codec(Coding.PCMU, 8000, 8000)
G722, G729 = Codec(Coding.G722, 8000, 16_000), Codec(Coding.G729, 8000, 8000)
OPUS = Codec(Coding.OPUS, 48_000, 48_000)


def entry(payload_type: int, codec: str, *, from_us: int = 0, **changes: Any) -> StreamFormat:
    return StreamFormat(
        **{"clock_hz": 8000, "channels": 1} | changes, payload_type=payload_type, codec=codec, from_us=from_us
    )


def meaning(table: PayloadTable, payload_type: int, at_us: int = 0) -> Codec | int:
    kind = int(table.kinds(np.array([payload_type], np.uint8), np.array([at_us], np.int64))[0])
    return table.codec(kind) if kind >= FIRST_CODEC else kind


@pytest.mark.parametrize(
    ("formats", "payload_type", "expected"),
    [
        ([], 0, PCMU),
        ([], 8, PCMA),
        ([], 9, G722),
        ([], 10, Codec(Coding.L16, 44_100, 44_100, 2)),
        ([], 13, QUIET),
        ([], 18, G729),
        ([], 96, UNDECLARED),
        ([entry(96, "PCMA")], 96, PCMA),
        ([entry(96, "pcmu")], 96, PCMU),
        ([entry(101, "telephone-event")], 101, QUIET),
        ([entry(101, "telephone-event", clock_hz=48_000)], 101, QUIET),
        ([entry(19, "CN")], 19, QUIET),
        ([entry(9, "G722")], 9, G722),
        ([entry(9, "G722", clock_hz=16_000)], 9, RAW),
        ([entry(111, "opus", clock_hz=48_000, channels=2)], 111, OPUS),
        ([entry(111, "opus", clock_hz=48_000)], 111, OPUS),
        ([entry(111, "opus", clock_hz=16_000, channels=2)], 111, RAW),
        ([entry(97, "PCMA", clock_hz=16_000)], 97, RAW),
        ([entry(8, "G729")], 8, G729),
        ([entry(97, "L16", clock_hz=16_000)], 97, Codec(Coding.L16, 16_000, 16_000)),
        ([entry(97, "L16", clock_hz=11_025, channels=2)], 97, Codec(Coding.L16, 11_025, 11_025, 2)),
        ([entry(97, "L16", clock_hz=7350)], 97, RAW),
        ([entry(97, "L16", clock_hz=16_001)], 97, RAW),
        ([entry(97, "L16", clock_hz=16_000, channels=0)], 97, RAW),
        ([entry(97, "iLBC")], 97, RAW),
        ([entry(97, "AMR-WB", clock_hz=16_000)], 97, RAW),
    ],
)
def test_meaning(formats: list[StreamFormat], payload_type: int, expected: Codec | int) -> None:
    """The table of cases."""
    assert meaning(PayloadTable(formats), payload_type) == expected


def test_a_meaning_changes_when_it_is_declared_anew() -> None:
    """The first meaning holds from the beginning, the next from its moment on."""
    table = PayloadTable(
        [entry(96, "PCMU", from_us=500), entry(96, "PCMA", from_us=100), entry(97, "PCMU", from_us=500)]
    )
    assert [meaning(table, 96, at_us) for at_us in (0, 499, 500)] == [PCMA, PCMA, PCMU]
    assert meaning(table, 97, 0) == PCMU


def test_two_names_of_one_codec_are_one_kind() -> None:
    """What means the same is decoded together."""
    table = PayloadTable([entry(96, "G722"), entry(97, "g722")])
    kinds = table.kinds(np.array([9, 96, 97], np.uint8), np.zeros(3, np.int64))
    assert len(set(kinds.tolist())) == 1
