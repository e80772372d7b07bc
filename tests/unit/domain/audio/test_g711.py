"""G.711 by table: the recommendation's values, and nothing lost between octets and samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.audio import g711
from dualtone.domain.audio.g711 import Law
from tests.call_samples import compress

# ITU-T G.711 tables 1a and 2a: code words and decoder output values, scaled to 16 bits.
A_LAW = {0xD5: 8, 0x55: -8, 0xAA: 32_256, 0x2A: -32_256, 0xC5: 264, 0xE5: 1056, 0x85: 4224, 0x80: 5504}
MU_LAW = {0xFF: 0, 0x7F: 0, 0x80: 32_124, 0x00: -32_124, 0xEF: 132, 0x8F: 16_764, 0xFE: 8}


@pytest.mark.parametrize(("law", "values"), [(Law.A, A_LAW), (Law.MU, MU_LAW)])
def test_values_of_the_recommendation(law: Law, values: dict[int, int]) -> None:
    """Code words and what they decode to."""
    octets = np.array(list(values), np.uint8)
    assert dict(zip(values, g711.decode(law, octets).tolist(), strict=True)) == values


@pytest.mark.parametrize("law", Law)
@given(octets=st.binary(max_size=400))
def test_octets_come_back(law: Law, octets: bytes) -> None:
    """Compressing what was expanded gives the same samples again, for odd and even lengths."""
    samples = g711.decode(law, np.frombuffer(octets, np.uint8))
    assert samples.size == len(octets)
    again = g711.decode(law, compress(law, samples))
    assert np.array_equal(again, samples)


@pytest.mark.parametrize("law", Law)
def test_expansion_is_odd_and_monotonic(law: Law) -> None:
    """256 code words: symmetric about zero, the positive half ordered by magnitude."""
    samples = g711.decode(law, np.arange(256, dtype=np.uint8)).astype(int)
    assert sorted(samples) == sorted(-samples)
    assert np.abs(samples).max() <= 32_767
