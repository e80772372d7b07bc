"""What one version kept raw, a later one renders from the upload that was kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dualtone.adapters.finalizer import finalizer
from dualtone.domain.audio import codecs
from dualtone.domain.audio.codecs import Codec
from dualtone.usecases.finalize_recording import Finalized
from functions.finalize_recording.handler import handler
from tests.adapters.finalize.cloud import Cloud
from tests.adapters.finalize.test_handlers import NO_CONTEXT, message
from tests.call_samples import Upload, blocks
from tests.codec_samples import WIDE_HZ, g711, g722, played_file, wide
from tests.listening import likeness

NEW_CODEC = 98


def sample(cloud: Cloud) -> Upload:
    """Alice in G.711, Bob in G.722 under a payload type that only the signalling explains."""
    one, other = g711("alice"), g722("bob")
    strange = [replace(packet, payload_type=NEW_CODEC) for packet in other.packets(stream=1, ssrc=2)]
    entry = other.entry(1, "0")
    explained = replace(entry, formats=[replace(known, payload_type=NEW_CODEC) for known in entry.formats])
    return cloud.seal(blocks([*one.packets(), *strange]), streams=(one.entry(0, "1"), explained))


def again(sent: Upload, after: int) -> dict[str, Any]:
    """The event in which an operator's message comes."""
    return {"Records": [message("again", {"again": {"key": sent.manifest_key, "after": after}})]}


def test_a_later_version_renders_what_an_earlier_one_kept_raw(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next generation is heard on both sides, the upload is taken over, and the same message twice does nothing."""
    sent = sample(cloud)
    with monkeypatch.context() as earlier:
        earlier.setattr(codecs, "codec_of", without_g722(codecs.codec_of))
        assert finalizer()(cloud.receive(sent)) is Finalized.RECORDED
    (recording,) = cloud.recordings()
    assert (recording["flags"], recording["generation"]) == (["codec_raw"], 1)
    assert set(cloud.ingest_keys()) == set(sent.files)
    assert finalizer()(sent.manifest_key) is Finalized.REPEATED
    for _ in range(2):
        assert handler(again(sent, after=1), NO_CONTEXT) == {"batchItemFailures": []}
    (recording,) = cloud.recordings()
    assert (recording["flags"], recording["generation"]) == ([], 2)
    assert cloud.ingest_keys() == []
    (receipt,) = cloud.receipts()
    assert receipt.kind == "receipt"
    assert likeness(played_file(cloud.opened())[1], wide("bob"), WIDE_HZ)[0] >= 0.9


def test_what_was_taken_over_is_not_rendered_again(cloud: Cloud) -> None:
    """Nothing was kept raw: nothing to do, whatever an operator asks."""
    one = g711("alice")
    sent = cloud.seal(blocks(one.packets()), streams=(one.entry(0, "1"),))
    assert finalizer()(cloud.receive(sent)) is Finalized.RECORDED
    assert finalizer().again(sent.manifest_key, 1) is Finalized.REPEATED
    assert finalizer().again(sent.manifest_key, 7) is Finalized.REPEATED


def without_g722(known: Any) -> Any:
    """A version that does not know G.722."""

    def codec_of(name: str, clock_hz: int, channels: int) -> Codec | None:
        found: Codec | None = None if name == "G722" else known(name, clock_hz, channels)
        return found

    return codec_of
