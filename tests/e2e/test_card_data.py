"""Keys that are typed on a line whose policy blanks tones: through agent, cloud and player, nothing of them is left."""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.local import listening, proofs
from infra.local.client import ApiClient
from infra.local.unsealing import SealedCopies
from tests.agent.media.dial import CARD, CLOCK_HZ, Key, heard, placed, spoken
from tests.e2e.conftest import Local, start_local, stop_local
from tests.e2e.talking import Talking

HOLD_BACK_S = 1.0
FIRST_S, EVERY_S = 3.0, 0.3
RECORD_S = 1.0  # what had left the hold-back is cut by whole records, which no key opens any more
LEAKAGE = 10  # of the other side into a silent one, by coding both together: 70 dB below full scale
POLICY: dict[str, Any] = {
    "rules": [{"id": "shop", "match": {}, "record": "always", "tones": "blank", "basis": "legitimate_interests"}]
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local cloud and an agent that has fetched the policy."""
    data_dir = tmp_path_factory.mktemp("shop")
    running = start_local(data_dir, "--hold-back", str(HOLD_BACK_S))
    administrator = ApiClient(running.line["api"], running.line["tenants"][running.tenant]["administrator"])
    administrator.put("/v1/recording-policy", POLICY, if_match='"0"')
    deadline = time.monotonic() + 20
    while not any(data_dir.rglob("recording-policy.json")):
        assert time.monotonic() < deadline, "the agent did not fetch the policy"
        time.sleep(0.1)
    yield running
    assert stop_local(running) == 0


@pytest.fixture
def sealed(shop: Local) -> Iterator[SealedCopies]:
    with SealedCopies(shop.line) as copies:
        yield copies


def typed(directory: Path, keys: str) -> Path:
    """A WAV file in which somebody talks, and types."""
    presses = [(FIRST_S + EVERY_S * index, Key(key, 100, level=-8.0)) for index, key in enumerate(keys)]
    samples = placed(presses, 12, spoken("alice") * 0.35)
    path = directory / "typed.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(CLOCK_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    found = iter(heard(samples))
    assert all(key in found for key in keys)
    return path


def test_a_card_number_that_nobody_paused_for_is_nowhere(shop: Local, sealed: SealedCopies, tmp_path: Path) -> None:
    """The call pauses itself: officers see why, both sides are silent from the first digit on, and it is certified."""
    with Talking(shop, 11.5, caller=typed(tmp_path, CARD)) as talking:
        deadline = time.monotonic() + 14
        while not (live := shop.officer.get(f"/v1/calls/{talking.call_id}"))["causes"]:
            assert time.monotonic() < deadline, "the call did not pause itself"
            time.sleep(0.1)
        assert (live["causes"], live["paused"]) == (["dtmf"], True)
        assert [(one["origin"], one["cause"], one["action"]) for one in live["commands"]] == [
            ("agent", "dtmf", "pause")
        ]
        call = talking.ended()
    recording = shop.wait_recorded(call["sip_call_id"])
    gaps = [gap for gap in recording["gaps"] if gap["cause"] == "dtmf"]
    assert {gap["channel"] for gap in gaps} == {0, 1}
    assert all(gap["certificate"] for gap in gaps)
    first_ms = min(gap["from_ms"] for gap in gaps)
    assert 1000 * (FIRST_S - 0.6 - RECORD_S) <= first_ms <= 1000 * FIRST_S
    played = listening.decode_opus(shop.officer.audio(recording["recording_id"]))
    assert proofs.peak(played, first_ms, 11_000) <= proofs.MAX_GAP_PEAK
    assert np.abs(played[: round(first_ms * 8) - 800]).max() > 1_000
    began_s = proofs.moment(recording["started_at"])
    for store in ("spool", "ingest"):
        arrivals = sealed.now(store, recording["call_id"])
        assert not (arrivals >= (began_s + first_ms / 1000) * 1e6).any()


def test_a_menus_keys_are_blanked_and_the_rest_is_heard(shop: Local, tmp_path: Path) -> None:
    """Four digits are no card's number: one gap of the caller's side says that keys were pressed; bob is whole."""
    with Talking(shop, 11.5, caller=typed(tmp_path, "4711")) as talking:
        call = talking.ended()
    recording = shop.wait_recorded(call["sip_call_id"])
    (gap,) = recording["gaps"]
    assert gap["cause"] == "tones"
    assert 1000 * (FIRST_S - 0.15) <= gap["from_ms"] <= 1000 * FIRST_S
    assert 1000 * (FIRST_S + 3 * EVERY_S + 0.1) <= gap["to_ms"] <= 1000 * (FIRST_S + 3 * EVERY_S + 0.25)
    played = listening.decode_opus(shop.officer.audio(recording["recording_id"]))
    caller = played[:, gap["channel"], None]
    assert proofs.peak(caller, gap["from_ms"], gap["to_ms"]) <= LEAKAGE
    bob = listening.read_wav(Path(__file__).parents[1] / "vectors" / "speech" / "bob.wav")
    assert proofs.likeness(bob[: played.shape[0]], played[: bob.size, 1 - gap["channel"]], []) >= 0.85
