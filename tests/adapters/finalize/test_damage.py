"""What does not verify is left out and declared; the rest is kept; nothing is deleted and nobody is told to free it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dualtone.adapters import wiring
from dualtone.adapters.finalizer import finalizer
from dualtone.adapters.ingest_store import MOST_BYTES, IngestStore
from dualtone.usecases.finalize_recording import Finalized
from tests.adapters.finalize.cloud import INDEX, Cloud, decode
from tests.call_samples import SIP_CALL_ID, TENANT, Upload, blocks, packets, speech
from tests.listening import correlation

ALICE, BOB = speech("alice"), speech("bob")


def damaged(cloud: Cloud, damage: Callable[[Upload], None]) -> Upload:
    """Finalises a call of three parts of 5, 5 and 2 seconds after something happened to its files."""
    sent = cloud.seal(blocks([*packets(ALICE), *packets(BOB, stream=1, ssrc=2)]))
    damage(sent)
    assert finalizer()(cloud.receive(sent)) is Finalized.RECORDED
    return sent


def assert_kept_and_flagged(cloud: Cloud, sent: Upload, capsys: pytest.CaptureFixture[str]) -> None:
    """The recording says it is damaged, the upload is whole as it came, the alarm was raised, no receipt was sent."""
    (recording,) = cloud.recordings()
    assert "damaged" in recording["flags"]
    token = wiring.tokens().sip_call_id(TENANT, SIP_CALL_ID)
    states = [item["state"] for item in cloud.items(INDEX, f"{TENANT}#sip#{token}")]
    assert states in (["damaged"], [])
    assert sorted(cloud.ingest_keys()) == sorted(sent.files)
    assert cloud.receipts() == []
    assert cloud.items(INDEX, "attempts#") == []
    ((key, version),) = cloud.vault_versions()
    assert cloud.locked(key, version)
    assert any("RecordingDamaged" in line and '"Metrics"' in line for line in capsys.readouterr().out.splitlines())


def gone(which: int) -> Callable[[Upload], None]:
    """A part is missing."""

    def remove(sent: Upload) -> None:
        del sent.files[sent.part_keys[which]]

    return remove


def changed(which: int, at: int) -> Callable[[Upload], None]:
    """One bit of a part is another."""

    def change(sent: Upload) -> None:
        key = sent.part_keys[which]
        data = bytearray(sent.files[key])
        data[at] ^= 1
        sent.files[key] = bytes(data)

    return change


def huge(sent: Upload) -> None:
    """A part is larger than the function's memory should be asked to hold."""
    sent.files[sent.part_keys[1]] = bytes(MOST_BYTES + 1)


def torn(sent: Upload) -> None:
    """The last part ends in the middle of a record."""
    key = sent.part_keys[-1]
    sent.files[key] = sent.files[key][: len(sent.files[key]) // 2]


def exchanged(sent: Upload) -> None:
    """Two parts lie in each other's place."""
    first, second, _ = sent.part_keys
    sent.files[first], sent.files[second] = sent.files[second], sent.files[first]


def without_opening(sent: Upload) -> None:
    """The opening record, with the wrapped key in it, is missing."""
    sent.files.pop(next(key for key in sent.files if "opening" in key))


def test_a_missing_part_is_silence_of_its_length(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds 5 to 10 are silent and declared; before and after, both sides are where they belong."""
    sent = damaged(cloud, gone(1))
    (recording,) = cloud.recordings()
    assert recording["duration_ms"] == 12_000
    assert {(gap["channel"], gap["cause"]) for gap in recording["gaps"]} == {(0, "damaged"), (1, "damaged")}
    for gap in recording["gaps"]:
        assert 4960 <= gap["from_ms"] <= 5000
        assert 9960 <= gap["to_ms"] <= 10_040
    heard = decode(cloud.opened())
    assert len(heard) == ALICE.size
    assert np.abs(heard[5 * 8000 + 800 : 10 * 8000 - 800]).max() < 200
    assert correlation(heard[:40_000, 0], ALICE[:40_000])[0] >= 0.9
    assert correlation(heard[80_000:, 1], BOB[80_000:])[0] >= 0.85
    assert_kept_and_flagged(cloud, sent, capsys)


def test_a_changed_bit_costs_one_record(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """A part whose hash fails gives what authenticates of it: all but the record that was touched."""
    sent = damaged(cloud, changed(1, 4000))
    (recording,) = cloud.recordings()
    assert [channel["packets"] for channel in recording["quality"]] == [550, 550]
    assert recording["duration_ms"] == 12_000
    assert_kept_and_flagged(cloud, sent, capsys)


@pytest.mark.parametrize(
    "damage",
    [gone(0), gone(2), changed(0, 2), changed(0, 300), changed(2, -1), torn, huge, exchanged, without_opening],
    ids=["first missing", "last missing", "magic", "session", "signature", "torn", "huge", "exchanged", "no key"],
)
def test_damage_never_stops_a_recording(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], damage: Callable[[Upload], None]
) -> None:
    """Whatever is broken, there is a recording of the whole length of the call."""
    sent = damaged(cloud, damage)
    (recording,) = cloud.recordings()
    assert 11_960 <= recording["duration_ms"] <= 12_040
    assert cloud.opened()
    assert_kept_and_flagged(cloud, sent, capsys)


def test_a_repeated_event_of_a_damaged_call_deletes_nothing(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """The upload stays for those who will look into it."""
    sent = damaged(cloud, gone(1))
    assert finalizer()(sent.manifest_key) is Finalized.REPEATED
    assert_kept_and_flagged(cloud, sent, capsys)


def test_the_alarm_tells_what_and_never_who(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """The log names call, recording and part; no number, no name, no audio."""
    damaged(cloud, changed(1, 4000))
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    said = record.__dict__
    assert record.message == "RecordingDamaged"
    assert said["damage"][0].startswith("part 0-1 has another digest")
    assert said["damage_count"] == len(said["damage"])
    assert "7946" not in str(said)
    assert "Alice" not in str(said)


def test_parts_that_another_finaliser_took_over_meanwhile_are_no_damage(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two finalisers at once: the slower one finds its parts deleted, and alarms nobody."""
    sent = cloud.seal(blocks([*packets(ALICE), *packets(BOB, stream=1, ssrc=2)]))
    key, get, outcomes = cloud.receive(sent), IngestStore.get, list[Finalized]()

    def overtaken(store: IngestStore, name: str) -> bytes:
        if name == sent.part_keys[1] and not outcomes:
            monkeypatch.setattr(IngestStore, "get", get)
            outcomes.append(finalizer()(key))
        return get(store, name)

    monkeypatch.setattr(IngestStore, "get", overtaken)
    outcomes.append(finalizer()(key))
    assert outcomes == [Finalized.RECORDED, Finalized.REPEATED]
    (recording,) = cloud.recordings()
    assert "damaged" not in recording["flags"]
    assert "RecordingDamaged" not in capsys.readouterr().out
