"""A call becomes a recording: heard, found, sealed, locked, receipted."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.finalizer import finalizer
from dualtone.domain import call_files, canonical, vault_verifier
from dualtone.domain.audio.g711 import Law
from dualtone.domain.call_files import GapEntry, StreamFormat
from dualtone.domain.errors import IntegrityError, MalformedInput, NotFound, PolicyViolation
from dualtone.domain.period import DAY_MS
from dualtone.domain.recording_ruling import Chosen, Kept
from dualtone.usecases.finalize_recording import Finalized
from tests.adapters.finalize.cloud import AUDIT, INDEX, KEYS, VAULT, Cloud, decode
from tests.call_samples import (
    ANSWERED_US,
    CALL,
    CALLEE,
    CALLER,
    SIP_CALL_ID,
    TENANT,
    AgentKey,
    Packet,
    blocks,
    packets,
    session,
    speech,
    stream_entry,
)
from tests.listening import correlation

ALICE, BOB = speech("alice"), speech("bob")
S = 1_000_000


def two_sides(*, callee_law: Law = Law.A) -> list[Packet]:
    """Alice on stream 0 from the answer on, Bob on stream 1 half a second later."""
    return packets(ALICE) + packets(BOB, stream=1, ssrc=0x5678, law=callee_law, start_us=ANSWERED_US + S // 2)


def test_each_speaker_is_heard_on_the_right_channel(cloud: Cloud) -> None:
    """The caller on channel 0, the callee on channel 1, in time with each other, and the duration is exact."""
    key = cloud.receive(cloud.seal(blocks(two_sides())))
    assert finalizer()(key) is Finalized.RECORDED
    heard = decode(cloud.opened())
    caller, caller_lag = correlation(heard[:, 0], ALICE)
    callee, callee_lag = correlation(heard[4000:, 1], BOB)
    assert (caller >= 0.9, callee >= 0.9) == (True, True), (caller, callee)
    assert abs(caller_lag) <= 20
    assert abs(caller_lag - callee_lag) <= 5
    assert len(heard) == ALICE.size + 4000
    (recording,) = cloud.recordings()
    assert recording["duration_ms"] == 12_500 == len(heard) // 8
    assert (recording["started_at_ms"], recording["answered_at_ms"]) == (ANSWERED_US // 1000, ANSWERED_US // 1000)
    assert recording["direction"] == "outbound"
    assert recording["flags"] == []


def test_channels_follow_the_roles_whatever_the_order_of_the_streams(cloud: Cloud) -> None:
    """The callee's m-line comes first here; the caller is on channel 0 all the same."""
    told = session(roles=("callee", "caller"))
    finalizer()(cloud.receive(cloud.seal(blocks(two_sides()), session_content=told)))
    heard = decode(cloud.opened())
    assert correlation(heard[:, 1], ALICE)[0] >= 0.9
    assert correlation(heard[4000:, 0], BOB)[0] >= 0.9
    (recording,) = cloud.recordings()
    assert recording["channels"] == [
        {"channel": 0, "label": "0", "stream_id": "s2", "participant": 1, "role": "caller"},
        {"channel": 1, "label": "1", "stream_id": "s1", "participant": 0, "role": "callee"},
    ]


def test_a_recording_names_its_line_and_the_rule_that_keeps_it(cloud: Cloud) -> None:
    """Rule and version lie readable in the index; line, basis and choices are sealed with the parties."""
    kept = Kept(3, "hotline", "consent", "consent", "keep", "dtmf", ANSWERED_US, "")
    yes = Chosen("accept", "dtmf", ANSWERED_US, "")
    told = session() | {"policy": asdict(kept), "consents": [asdict(yes)]}
    finalizer()(cloud.receive(cloud.seal(blocks(two_sides()), session_content=told)))
    (recording,) = cloud.recordings()
    assert (recording["policy_rule"], recording["policy_version"]) == ("hotline", 3)
    sealed = cloud.metadata()
    assert sealed["lines"] == [CALLER]
    assert sealed["policy"] == asdict(kept)
    assert sealed["consents"] == [asdict(yes)]


def test_without_metadata_nobody_is_guessed(cloud: Cloud) -> None:
    """Channels follow the streams, roles stay unknown, participants and stream ids are absent."""
    finalizer()(cloud.receive(cloud.seal(blocks(two_sides()), session_content={"sip_call_id": SIP_CALL_ID})))
    (recording,) = cloud.recordings()
    assert recording["channels"] == [
        {"channel": 0, "label": "1", "role": "unknown"},
        {"channel": 1, "label": "0", "role": "unknown"},
    ]
    assert recording["direction"] == "unknown"
    assert correlation(decode(cloud.opened())[:, 0], ALICE)[0] >= 0.9


def test_a_change_from_a_law_to_mu_law_is_followed(cloud: Cloud) -> None:
    """Payload type 96 means A-law until the re-INVITE, mu-law after it; sequence and timestamps start again."""
    half = 6 * 8000
    change_us = ANSWERED_US + 6 * S
    first = [replace(packet, payload_type=96) for packet in packets(ALICE[:half])]
    second = [
        replace(packet, payload_type=96)
        for packet in packets(ALICE[half:], law=Law.MU, start_us=change_us, sequence=65_000, timestamp=7)
    ]
    formats = [
        StreamFormat(96, "PCMA", 8000, 1, ANSWERED_US),
        StreamFormat(96, "PCMU", 8000, 1, change_us - 10_000),
    ]
    streams = (replace(stream_entry(0, "1"), formats=formats), stream_entry(1, "0"))
    sent = cloud.seal(blocks([*first, *second, *packets(BOB, stream=1, ssrc=2)]), streams=streams)
    finalizer()(cloud.receive(sent))
    heard = decode(cloud.opened())
    assert len(heard) == ALICE.size
    assert correlation(heard[:, 0], ALICE)[0] >= 0.9


def test_what_is_stored_verifies_and_shows_nothing(cloud: Cloud) -> None:
    """The signed manifest verifies against the object; all segments are of one size; no number lies in the clear."""
    sent = cloud.seal(blocks(two_sides()))
    finalizer()(cloud.receive(sent))
    (recording,) = cloud.recordings()
    ((key, version),) = cloud.vault_versions()
    stored = cloud.s3.get_object(Bucket=VAULT, Key=key, VersionId=version)["Body"].read()
    vault_verifier.verify_object(
        stored,
        recording["manifest"],
        recording["manifest_signature"],
        cloud.signing_public_key(),
        tenant=TENANT,
        recording=recording["recording_id"],
    )
    assert b'"offset_table":[[13,' in stored
    assert cloud.locked(key, version)
    everything = repr([cloud.items(table) for table in (INDEX, KEYS, AUDIT)]).encode() + stored
    for secret in (CALLER, CALLEE, SIP_CALL_ID, "Alice Example", "OpusHead"):
        assert secret.encode() not in everything.replace(b"T3B1c0hlYWQ", b"")


def test_it_is_found_by_number_and_followed_by_call_id(cloud: Cloud) -> None:
    """Tokens lead to it; the metadata opens for its tenant and says who took part."""
    finalizer()(cloud.receive(cloud.seal(blocks(two_sides()))))
    (recording,) = cloud.recordings()
    tokens = wiring.tokens()
    for number in (CALLER, CALLEE):
        (row,) = cloud.items(INDEX, f"{TENANT}#num#{tokens.number(TENANT, '2033-05', number)}")
        assert (row["sk"], row["recording_id"]) == (recording["gsi1sk"], recording["recording_id"])
    (row,) = cloud.items(INDEX, f"{TENANT}#sip#{tokens.sip_call_id(TENANT, SIP_CALL_ID)}")
    assert (row["sk"], row["state"], row["recording_id"]) == (CALL, "recorded", recording["recording_id"])
    metadata = cloud.metadata()
    assert [party["number"] for party in metadata["participants"]] == [CALLER, CALLEE]
    assert metadata["sip_call_id"] == SIP_CALL_ID
    assert metadata["extensions"] == {"ucid": "00FA08"}


def test_the_upload_goes_and_the_agent_is_told(cloud: Cloud) -> None:
    """Nothing is left in ingest, no attempt is left, one receipt names every part, one audit event is written."""
    sent = cloud.seal(blocks(two_sides()))
    finalizer()(cloud.receive(sent))
    assert cloud.ingest_keys() == []
    assert cloud.items(INDEX, "attempts#") == []
    (envelope,) = cloud.receipts()
    receipt = call_files.verified_receipt(envelope, cloud.signing_public_key())
    assert sent.manifest is not None
    assert receipt.parts == [entry.digest for entry in sent.manifest.parts]
    assert len(receipt.parts) == 3
    (event,) = cloud.items(AUDIT)
    assert event["what"] == "recordings:finalize"


def test_loss_is_silence_of_its_length(cloud: Cloud) -> None:
    """Half a second that never came is half a second of silence, and is counted."""
    kept = packets(ALICE)
    del kept[200:225]
    finalizer()(cloud.receive(cloud.seal(blocks([*kept, *packets(BOB, stream=1, ssrc=2)]))))
    heard = decode(cloud.opened())
    assert len(heard) == ALICE.size
    hole = heard[200 * 160 + 400 : 225 * 160 - 400, 0]
    assert float(np.sqrt(np.mean(hole.astype(np.float64) ** 2))) < 30
    (recording,) = cloud.recordings()
    assert [channel["lost"] for channel in recording["quality"]] == [25, 0]


def test_a_hold_is_declared_and_silent(cloud: Cloud) -> None:
    """A declared gap keeps its length, also at the end of the call, and what is missing in it is not lost."""
    kept = packets(ALICE)
    del kept[100:300]
    gaps = [
        GapEntry(0, ANSWERED_US + 2 * S, ANSWERED_US + 6 * S, "inactive"),
        GapEntry(1, ANSWERED_US + 12 * S, ANSWERED_US + 15 * S, "inactive"),
    ]
    sent = cloud.seal(blocks([*kept, *packets(BOB, stream=1, ssrc=2)]), gaps=gaps, ended_us=ANSWERED_US + 15 * S)
    finalizer()(cloud.receive(sent))
    (recording,) = cloud.recordings()
    assert recording["duration_ms"] == 15_000
    assert recording["gaps"] == [
        {"channel": 0, "from_ms": 2000, "to_ms": 6000, "cause": "inactive"},
        {"channel": 1, "from_ms": 12_000, "to_ms": 15_000, "cause": "inactive"},
    ]
    assert recording["quality"][0]["lost"] == 0


def test_a_call_without_packets_is_silence_from_answer_to_end(cloud: Cloud) -> None:
    """No RTP at all still leaves a record, flagged."""
    finalizer()(cloud.receive(cloud.seal([], ended_us=ANSWERED_US + 3 * S)))
    (recording,) = cloud.recordings()
    assert (recording["duration_ms"], recording["flags"]) == (3000, ["no_media"])
    assert np.abs(decode(cloud.opened())).max() <= 2


def test_one_stream_is_one_channel(cloud: Cloud) -> None:
    """A mixed m-line is heard on channel 0 and says so."""
    sent = cloud.seal(blocks(packets(ALICE)), streams=(stream_entry(0, "mixed"),), session_content={})
    finalizer()(cloud.receive(sent))
    (recording,) = cloud.recordings()
    assert recording["flags"] == ["single_stream"]
    assert not any(channel["one_sided"] for channel in recording["quality"])
    heard = decode(cloud.opened())
    assert correlation(heard[:, 0], ALICE)[0] >= 0.9
    assert np.abs(heard[:, 1]).max() < 100


def test_a_side_that_never_sent_is_seen(cloud: Cloud) -> None:
    """Bob's stream was offered and stayed empty: his channel is there, silent, and the call is called one-sided."""
    finalizer()(cloud.receive(cloud.seal(blocks(packets(ALICE)))))
    (recording,) = cloud.recordings()
    assert [channel["role"] for channel in recording["channels"]] == ["caller", "callee"]
    assert [(channel["packets"], channel["one_sided"]) for channel in recording["quality"]] == [(600, False), (0, True)]


def test_four_streams_are_mixed_by_role(cloud: Cloud) -> None:
    """Two more m-lines of a conference: everything is heard, on two channels, and it says so."""
    more = [packets(ALICE, stream=2, ssrc=3), packets(BOB, stream=3, ssrc=4, start_us=ANSWERED_US + S)]
    streams = tuple(stream_entry(stream, label) for stream, label in enumerate(("1", "0", "2", "3")))
    sent = cloud.seal(blocks([*packets(ALICE), *packets(BOB, stream=1, ssrc=2), *more[0], *more[1]]), streams=streams)
    finalizer()(cloud.receive(sent))
    (recording,) = cloud.recordings()
    assert recording["flags"] == ["mixed_streams"]
    assert [(channel["channel"], channel["label"]) for channel in recording["channels"]] == [
        (0, "1"),
        (0, "2"),
        (1, "0"),
        (1, "3"),
    ]
    assert correlation(decode(cloud.opened())[: ALICE.size, 0], ALICE)[0] >= 0.85


def test_a_codec_that_cannot_be_decoded_keeps_its_upload(cloud: Cloud) -> None:
    """A codec such as iLBC is silence and flagged; its upload stays whole, and the agent keeps its spool."""
    raw = [replace(packet, payload_type=97) for packet in packets(BOB, stream=1, ssrc=2)]
    streams = (stream_entry(0, "1"), stream_entry(1, "0", payload_type=97, codec="iLBC"))
    sent = cloud.seal(blocks([*packets(ALICE), *raw]), streams=streams)
    assert finalizer()(cloud.receive(sent)) is Finalized.RECORDED
    (recording,) = cloud.recordings()
    assert recording["flags"] == ["codec_raw"]
    assert sorted(cloud.ingest_keys()) == sorted(sent.files)
    assert cloud.receipts() == []
    assert cloud.items(INDEX, "attempts#") == []


def test_a_call_that_waited_beyond_its_retention_is_locked_for_a_day(cloud: Cloud) -> None:
    """S3 takes no lock that ends in the past; such a call is committed and locked all the same."""
    long_ago_us = 1_000_000_000 * S
    kept = [replace(packet, arrival_us=packet.arrival_us - ANSWERED_US + long_ago_us) for packet in packets(ALICE)]
    sent = cloud.seal(blocks(kept), answered_at_us=long_ago_us, ended_at_us=long_ago_us + 12 * S)
    finalizer()(cloud.receive(sent))
    ((key, version),) = cloud.vault_versions()
    assert cloud.locked(key, version)


def test_a_clock_far_ahead_locks_no_longer_than_retention_from_now(cloud: Cloud) -> None:
    """A lock cannot be lifted and S3 takes none beyond a century: an agent's clock does not decide about it alone."""
    ahead_us = 9_000_000_000 * S
    kept = [replace(packet, arrival_us=packet.arrival_us - ANSWERED_US + ahead_us) for packet in packets(ALICE)]
    sent = cloud.seal(blocks(kept), answered_at_us=ahead_us, ended_at_us=ahead_us + 12 * S)
    before_ms = clock.now_ms()
    finalizer()(cloud.receive(sent))
    (recording,) = cloud.recordings()
    assert recording["ended_at_ms"] == ahead_us // 1000 + 12_000
    assert 366 * DAY_MS <= recording["retention_until_ms"] - before_ms < 367 * DAY_MS
    ((key, version),) = cloud.vault_versions()
    assert cloud.locked(key, version)


@pytest.mark.parametrize("answered_us", [-S, 0], ids=["before 1970", "1970"])
def test_a_call_from_before_the_clock_began_is_malformed(cloud: Cloud, answered_us: int) -> None:
    """It is refused before anything is written, and its upload is left alone."""
    times = {"answered_at_us": answered_us, "ended_at_us": answered_us + 12 * S}
    key = cloud.receive(cloud.seal(blocks(packets(ALICE)), **times))
    with pytest.raises(MalformedInput):
        finalizer()(key)
    assert cloud.items(INDEX, "attempts#") == []
    assert key in cloud.ingest_keys()


def test_an_agent_that_is_not_active_is_refused(cloud: Cloud) -> None:
    """A revoked agent's calls are not taken; what it uploaded stays where it is."""
    cloud.enrol("revoked")
    key = cloud.receive(cloud.seal(blocks(packets(ALICE))))
    with pytest.raises(PolicyViolation):
        finalizer()(key)
    assert cloud.recordings() == []
    assert key in cloud.ingest_keys()


def test_a_manifest_that_the_agent_did_not_sign_is_refused(cloud: Cloud) -> None:
    """Another key, or a place that belongs to another call."""
    forged = cloud.seal(blocks(packets(ALICE)), sign_by=AgentKey())
    with pytest.raises(IntegrityError):
        finalizer()(cloud.receive(forged))
    moved = cloud.seal(blocks(packets(ALICE)))
    other = moved.manifest_key.replace(CALL, "01JD00000000000000000CA111")
    cloud.receive(moved)
    cloud.s3.put_object(Bucket="dualtone-ingest", Key=other, Body=moved.files[moved.manifest_key])
    with pytest.raises(IntegrityError):
        finalizer()(other)
    assert cloud.recordings() == []
    assert cloud.items(INDEX, "attempts#") == []


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("acme/manifest.json", MalformedInput),
        ("../x/y/manifest.json", MalformedInput),
        ("acme/agt_01JD0000000000000000000000/01JD00000000000000000CA110/part-00-000000.dtp", None),
        ("acme/agt_01JD0000000000000000000000/01JD00000000000000000CA110/manifest.json", None),
    ],
)
def test_events_that_name_no_manifest(cloud: Cloud, key: str, error: type[Exception] | None) -> None:
    """Keys outside the layout are malformed; other files and manifests that are gone are nothing to do."""
    if error is None:
        assert finalizer()(key) is Finalized.NOTHING
    else:
        with pytest.raises(error):
            finalizer()(key)


def test_an_unknown_agent_is_not_found(cloud: Cloud) -> None:
    """A manifest under the prefix of an agent that the tenant does not have."""
    sent = cloud.seal(blocks(packets(ALICE)))
    stranger = sent.manifest_key.replace("agt_01JD00000000000000000AGENT", "agt_01JD0000000000000000000000")
    cloud.s3.put_object(Bucket="dualtone-ingest", Key=stranger, Body=canonical.encode({}))
    with pytest.raises(NotFound):
        finalizer()(stranger)
