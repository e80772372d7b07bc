"""A paused span is silent in the recording, whoever knew of it, and certified; what lies beside it is as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from dualtone.adapters import wiring
from dualtone.adapters.finalizer import finalizer
from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.domain import gap_certificate, part, signing
from dualtone.domain.call_files import GapEntry
from dualtone.domain.gap_certificate import GapCertificate
from dualtone.domain.pause import How
from dualtone.domain.recording_entry import Gap, RecordingEntry
from dualtone.usecases.finalize_recording import Finalized
from tests.adapters.finalize.cloud import INDEX, Cloud, decode
from tests.adapters.finalize.pauses import command, tell
from tests.call_samples import CALL, TENANT, Packet, Upload, blocks, packets, speech
from tests.pause_samples import WHO, at, command_id, entry

ALICE, BOB = speech("alice"), speech("bob")
RATE: Final = 8000
INSIDE: Final = 60 * RATE // 1000
"""How far inside a gap's edges silence is measured: 60 ms."""


def two_sides() -> list[Packet]:
    return [*packets(ALICE), *packets(BOB, stream=1, ssrc=2)]


def without(kept: list[Packet], from_s: float, to_s: float) -> list[Packet]:
    """What an agent keeps that blanks in time."""
    return [packet for packet in kept if not at(from_s) <= packet.arrival_us < at(to_s)]


def recorded(cloud: Cloud) -> RecordingEntry:
    """The one recording."""
    (item,) = cloud.recordings()
    return RecordingQueries(cloud.dynamodb, INDEX).recording(TENANT, item["recording_id"])[0]


def certified(cloud: Cloud) -> list[GapCertificate]:
    """Its certificates, verified."""
    public = wiring.kms().public_key_der(cloud.certificate_key)
    return [gap_certificate.parse(one.verified(public, gap_certificate.KIND)) for one in recorded(cloud).certificates]


def peak(heard: Any, from_s: float, to_s: float) -> int:
    """The loudest sample 60 ms inside a span, on both channels."""
    return int(np.abs(heard[round(from_s * RATE) + INSIDE : round(to_s * RATE) - INSIDE].astype(np.int32)).max())


def finalized(cloud: Cloud, sent: Upload) -> Any:
    """Finalises an upload; returns what is heard."""
    assert finalizer()(cloud.receive(sent)) is Finalized.RECORDED
    return decode(cloud.opened())


def test_a_pause_that_came_in_time_is_silence_of_its_length(cloud: Cloud) -> None:
    """Silent 60 ms inside its edges, in both channels; before and after it the recording is what it would have been."""
    gaps = [GapEntry(stream, at(3.1), at(6.4), "payment") for stream in (0, 1)]
    sent = cloud.seal(blocks(without(two_sides(), 3.1, 6.4)), pauses=[entry(3.1, 6.4)], gaps=gaps)
    heard = finalized(cloud, sent)
    assert len(heard) == ALICE.size
    assert peak(heard, 3.1, 6.4) <= 2
    for channel, spoken in enumerate((ALICE, BOB)):
        before, after = slice(0, round(3.1 * RATE)), slice(round(6.4 * RATE), None)
        for span in (before, after):
            difference = heard[span, channel].astype(np.float64) - spoken[span]
            assert np.sqrt(np.mean(difference**2)) < 0.5 * np.sqrt(np.mean(spoken[span].astype(np.float64) ** 2))
    row = recorded(cloud)
    assert row.gaps == (
        Gap(0, 3100, 6400, "payment", 0, 4_294_901_760),
        Gap(1, 3100, 6400, "payment", 0, None),
    )
    assert row.flags == ()
    assert [channel.lost for channel in row.quality] == [0, 0]
    (certificate,) = certified(cloud)
    assert (certificate.from_us, certificate.to_us, certificate.how) == (at(3.1), at(6.4), How.WITHHELD)
    assert (certificate.cause, certificate.by, certificate.origin) == ("payment", WHO, "cloud")
    assert certificate.command == command_id(1)
    assert certificate.effective_at_ms == (at(3.1) + 250_000) // 1000
    assert [one.rtp_timestamp for one in certificate.silent_from] == [4_294_901_760, None]
    assert (certificate.tenant, certificate.recording, certificate.call) == (TENANT, row.recording_id, CALL)
    assert certificate.agent_manifest_sha256 in row.manifest.decode()


def test_a_certificate_is_checked_with_openssl(cloud: Cloud, tmp_path: Path) -> None:
    """By itself, with the public key and nothing of ours."""
    finalized(cloud, cloud.seal(blocks(without(two_sides(), 3, 6)), pauses=[entry(3, 6)]))
    (envelope,) = recorded(cloud).certificates
    public = load_der_public_key(wiring.kms().public_key_der(cloud.certificate_key))
    (tmp_path / "public.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "signature.der").write_bytes(envelope.signature)
    for change, status in ((b"", 0), (b" ", 1)):
        message = signing.message(gap_certificate.KIND, envelope.payload) + change
        (tmp_path / "message.bin").write_bytes(message)
        words = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature.der", "message.bin"]
        assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == status
    assert b"7946" not in envelope.payload


def test_packets_of_a_pause_that_came_up_are_left_out_and_alarmed(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent says that it paused, and uploaded the audio all the same."""
    heard = finalized(cloud, cloud.seal(blocks(two_sides()), pauses=[entry(3.1, 6.4)]))
    assert peak(heard, 3.1, 6.4) <= 2
    assert len(heard) == ALICE.size
    assert recorded(cloud).flags == ("paused_audio_removed",)
    assert [certificate.how for certificate in certified(cloud)] == [How.REMOVED]
    assert '"PausedAudioArrived"' in capsys.readouterr().out
    assert cloud.ingest_keys() == []


@pytest.mark.parametrize("outcome", [None, "too_late", "unknown"])
def test_a_pause_that_the_ledger_alone_knows_is_silent(cloud: Cloud, outcome: str | None) -> None:
    """A report three seconds late, or after the end, or one that never reached the agent."""
    tell(cloud, command(3.1, 6.4, outcome=outcome))
    heard = finalized(cloud, cloud.seal(blocks(two_sides())))
    assert peak(heard, 3.1, 6.4) <= 2
    (certificate,) = certified(cloud)
    assert (certificate.from_us, certificate.to_us) == (at(3.1), at(6.4))
    assert (certificate.how, certificate.by) == (How.REMOVED, "endpoint:pay_1")


def test_manifest_and_ledger_are_united(cloud: Cloud) -> None:
    """One pause, known to both: the earlier beginning, the later end, and true time from the ledger."""
    tell(cloud, command(2.9, 6.0, outcome="acknowledged"), command(8, 9, number=2, cause="manual"))
    heard = finalized(cloud, cloud.seal(blocks(two_sides()), pauses=[entry(3.1, 6.4)]))
    assert peak(heard, 2.9, 6.4) <= 2
    assert peak(heard, 8, 9) <= 2
    first, second = certified(cloud)
    assert (first.from_us, first.to_us, first.effective_at_ms) == (at(2.9), at(6.4), at(3.15) // 1000)
    assert (second.cause, second.from_us, second.to_us) == ("manual", at(8), at(9))


def test_an_end_that_the_ledger_does_not_know_is_the_manifests(cloud: Cloud) -> None:
    """The call was resumed on the LAN, and the report of it is still on its way: what followed is heard."""
    tell(cloud, command(3.1, None, outcome="acknowledged"))
    heard = finalized(cloud, cloud.seal(blocks(without(two_sides(), 3.1, 6.4)), pauses=[entry(3.1, 6.4)]))
    assert peak(heard, 3.1, 6.4) <= 2
    assert peak(heard, 7, 12) > 1000


def test_a_pause_without_an_end_lasts_until_the_last_packet(cloud: Cloud) -> None:
    """What arrives while the ring drains belongs to it."""
    tell(cloud, command(9, None, outcome=None))
    sent = cloud.seal(blocks(two_sides()), ended_us=at(11.5))
    heard = finalized(cloud, sent)
    assert int(np.abs(heard[9 * RATE + INSIDE :].astype(np.int32)).max()) <= 2


def test_a_pause_from_before_the_call_begins_with_it(cloud: Cloud) -> None:
    """The recording does not become longer by it."""
    finalized(cloud, cloud.seal(blocks(without(two_sides(), -30, 2)), pauses=[entry(-30, 2)]))
    row = recorded(cloud)
    assert (row.duration_ms, row.gaps[0].from_ms, row.gaps[0].to_ms) == (12_000, 0, 2000)


def test_a_pause_beside_the_call_leaves_no_trace(cloud: Cloud) -> None:
    """Two seconds after its end."""
    tell(cloud, command(14, 20))
    finalized(cloud, cloud.seal(blocks(two_sides())))
    assert (recorded(cloud).gaps, recorded(cloud).certificates) == ((), ())


def cut(sent: Upload, from_s: float, to_s: float) -> Upload:
    """The upload after what happens to it when a pause came too late."""
    spans = [(at(from_s), at(to_s) - 1)]
    files = {key: part.cut(data, spans) if key.endswith(".dtp") else data for key, data in sent.files.items()}
    assert files != sent.files
    return replace(sent, files=files)


def test_records_that_were_cut_for_a_pause_are_no_damage(cloud: Cloud) -> None:
    """The gap reaches over the whole records, and says so."""
    tell(cloud, command(3.1, 6.4))
    heard = finalized(cloud, cut(cloud.seal(blocks(two_sides())), 3.1, 6.4))
    row = recorded(cloud)
    assert row.flags == ()
    assert [(gap.channel, gap.from_ms // 100, gap.to_ms // 100) for gap in row.gaps] == [(0, 30, 69), (1, 30, 69)]
    assert peak(heard, 3.02, 6.9) <= 2
    assert [certificate.how for certificate in certified(cloud)] == [How.REMOVED]
    assert cloud.ingest_keys() == []


def test_records_that_were_cut_for_no_pause_are_damage(cloud: Cloud) -> None:
    """Whoever can write the bucket cannot make a second vanish unseen."""
    finalized(cloud, cut(cloud.seal(blocks(two_sides())), 3.1, 6.4))
    row = recorded(cloud)
    assert row.flags == ("damaged",)
    assert {gap.cause for gap in row.gaps} == {"damaged"}
    assert cloud.ingest_keys() != []


@contextmanager
def meanwhile(operation: str, act: Any) -> Iterator[list[str]]:
    """Does something once, just before the finaliser's next such operation; yields all that it does."""
    done: list[str] = []

    def before(model: Any, **_: object) -> None:
        done.append(model.name)
        if model.name == operation and done.count(operation) == 1:
            act()

    client = wiring.dynamodb()
    client.meta.events.register("before-call", before)
    try:
        yield done
    finally:
        client.meta.events.unregister("before-call", before)


def test_a_pause_that_comes_in_before_the_commit_is_rendered(cloud: Cloud) -> None:
    """The transaction holds only for the ledger that was rendered."""
    key = cloud.receive(cloud.seal(blocks(two_sides())))
    with meanwhile("TransactWriteItems", lambda: tell(cloud, command(3.1, 6.4))) as done:
        assert finalizer()(key) is Finalized.RECORDED
    assert done.count("TransactWriteItems") == 2
    assert peak(decode(cloud.opened()), 3.1, 6.4) <= 2
    assert [certificate.cause for certificate in certified(cloud)] == ["payment"]
    assert cloud.ingest_keys() == []


def test_parts_that_are_cut_while_it_reads_are_no_damage(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger was read before the pause came in: it is read again before anybody is alarmed."""
    sent = cloud.seal(blocks(two_sides()))
    key, store = cloud.receive(sent), wiring.ingest_store()
    get = type(store).get
    read: list[str] = []

    def overtaken(self: Any, name: str) -> bytes:
        if name.endswith(".dtp") and not read:
            read.append(name)
            tell(cloud, command(3.1, 6.4))
            cloud.receive(cut(sent, 3.1, 6.4))
        return get(self, name)

    monkeypatch.setattr(type(store), "get", overtaken)
    assert finalizer()(key) is Finalized.RECORDED
    assert recorded(cloud).flags == ()
    assert "RecordingDamaged" not in capsys.readouterr().out


def test_a_ledger_that_never_rests_is_tried_again_later(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed that a later pause contradicts."""
    key, ledger = cloud.receive(cloud.seal(blocks(two_sides()))), wiring.call_ledger()
    read = type(ledger).read

    def restless(self: Any, *call: Any) -> Any:
        tell(cloud, state="live")
        return read(self, *call)

    monkeypatch.setattr(type(ledger), "read", restless)
    with pytest.raises(Exception, match="faster than it can be rendered"):
        finalizer()(key)
    assert cloud.recordings() == []
    assert key in cloud.ingest_keys()


def test_a_restart_is_declared_as_far_as_something_was_lost(cloud: Cloud) -> None:
    """What reached the disk before and after it is heard."""
    kept = without(two_sides(), 4, 6)
    gaps = [GapEntry(stream, at(3.2), at(6.5), "restart") for stream in (0, 1)]
    heard = finalized(cloud, cloud.seal(blocks(kept), gaps=gaps))
    row = recorded(cloud)
    assert [(gap.channel, gap.from_ms, gap.to_ms, gap.cause) for gap in row.gaps] == [
        (0, 3980, 6000, "restart"),
        (1, 3980, 6000, "restart"),
    ]
    assert peak(heard, 3.3, 3.9) > 500
