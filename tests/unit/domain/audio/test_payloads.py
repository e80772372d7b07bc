"""What payload types mean, by declaration, by RFC 3551, and over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualtone.domain.audio.payloads import Kind, PayloadTable
from dualtone.domain.call_files import StreamFormat


def entry(payload_type: int, codec: str, *, from_us: int = 0, **changes: Any) -> StreamFormat:
    return StreamFormat(
        **{"clock_hz": 8000, "channels": 1} | changes, payload_type=payload_type, codec=codec, from_us=from_us
    )


def kind(table: PayloadTable, payload_type: int, at_us: int = 0) -> Kind:
    return Kind(int(table.kinds(np.array([payload_type], np.uint8), np.array([at_us], np.int64))[0]))


@pytest.mark.parametrize(
    ("formats", "payload_type", "expected"),
    [
        ([], 0, Kind.MU_LAW),
        ([], 8, Kind.A_LAW),
        ([], 13, Kind.QUIET),
        ([], 96, Kind.UNDECLARED),
        ([entry(96, "PCMA")], 96, Kind.A_LAW),
        ([entry(96, "pcmu")], 96, Kind.MU_LAW),
        ([entry(101, "telephone-event")], 101, Kind.QUIET),
        ([entry(19, "CN")], 19, Kind.QUIET),
        ([entry(9, "G722")], 9, Kind.RAW),
        ([entry(111, "opus", clock_hz=48_000, channels=2)], 111, Kind.RAW),
        ([entry(97, "PCMA", clock_hz=16_000)], 97, Kind.RAW),
        ([entry(8, "G729")], 8, Kind.RAW),
    ],
)
def test_meaning(formats: list[StreamFormat], payload_type: int, expected: Kind) -> None:
    """The table of cases."""
    assert kind(PayloadTable(formats), payload_type) is expected


def test_a_meaning_changes_when_it_is_declared_anew() -> None:
    """The first meaning holds from the beginning, the next from its moment on."""
    table = PayloadTable(
        [entry(96, "PCMU", from_us=500), entry(96, "PCMA", from_us=100), entry(97, "PCMU", from_us=500)]
    )
    assert [kind(table, 96, at_us) for at_us in (0, 499, 500)] == [Kind.A_LAW, Kind.A_LAW, Kind.MU_LAW]
    assert kind(table, 97, 0) is Kind.MU_LAW
