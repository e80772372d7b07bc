"""The product's own formats, as agent and cloud read them from disks, buckets, queues and each other."""

import base64
import hashlib
from dataclasses import asdict
from typing import Final

import numpy as np

from dualtone.domain import (
    call_decision,
    call_files,
    call_session,
    canonical,
    enrolment_code,
    media_record,
    part,
    recording_policy,
    recording_rule_form,
    recording_ruling,
    standard_webhooks,
)
from dualtone.domain.call_decision import Decision
from dualtone.domain.call_files import Manifest, Opening, OpeningFile
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.part import NO_PREVIOUS, PartHeader, RecordHead, RecordType
from dualtone.domain.recording_policy import HeaderConsent, Match, RecordingPolicy, Rule
from dualtone.domain.recording_ruling import CallFacts
from dualtone.domain.signing import Envelope
from dualtone.domain.standard_webhooks import SignatureRefused, TimestampRefused
from tests.call_samples import AGENT, CALL, TENANT, AgentKey, session
from tests.fuzz.target import Target, kept

_KEY: Final = AgentKey()
_NOW_S: Final = 1_800_000_000
_SECRET: Final = bytes(range(32))


def _part() -> bytes:
    head = RecordHead(RecordType.MEDIA, 1, 0, 5, 1_000_000)
    removed = RecordHead(RecordType.REMOVED, 1, 1, 6, 1_000_000)
    header = part.encode_header(PartHeader(TENANT, AGENT, CALL, 0, 0, NO_PREVIOUS))
    return header + part._frame(head, bytes(60)) + part._frame(removed, bytes(32)) + part.encode_trailer(bytes(70), 2)


def _read_part(data: bytes) -> None:
    """What is read is the head of a valid file, and cutting nothing out of it changes nothing."""
    found = part.read(data)
    assert part.valid_length(data) == found.signed_length <= len(data)
    if found.signature is not None:
        assert part.cut(data, []) == data


def _blocks() -> bytes:
    count = 5
    return media_record.encode(
        [
            StreamBlock(
                stream=0,
                ssrc=7,
                sequence=np.arange(count, dtype=np.uint16),
                timestamp=np.arange(count, dtype=np.uint32) * 160,
                arrival_us=np.arange(count, dtype=np.int64) * 20_000 + 1_800_000_000_000_000,
                payload_type=np.full(count, 8, np.uint8),
                size=np.full(count, 16, np.uint16),
                payload=np.zeros(16 * count, np.uint8),
            )
        ]
    )


def _read_blocks(data: bytes) -> None:
    for block in media_record.decode(data):
        assert block.payload.size == int(block.size.astype(np.int64).sum())


def _manifest() -> Manifest:
    return Manifest(
        tenant=TENANT,
        agent=AGENT,
        call=CALL,
        generation=1,
        epochs=[call_files.EpochEntry(0, "0" * 64)],
        parts=[call_files.PartEntry(0, 0, "1" * 64, 1_000, 12)],
        streams=[call_files.StreamEntry(0, "1", [call_files.StreamFormat(8, "PCMA", 8_000, 1, 0)])],
        answered_at_us=1,
        ended_at_us=2,
        end_reason="bye",
        gaps=[],
        statistics=[call_files.StreamStatistics(0, 1, 0, 0, 0, 0, 0)],
        flags=["no-ack"],
        version="0.1.0",
    )


def _resigned(data: bytes) -> None:
    """A manifest whose writer has the agent's key and means no good: signed is not well-formed."""
    envelope = Envelope.sealed_by(_KEY, "manifest", data)
    call_files.verified_manifest(canonical.encode(envelope.to_json()), _KEY.public_der)


def _manifest_file(data: bytes) -> None:
    call_files.verified_manifest(data, _KEY.public_der)


def _opening_file(data: bytes) -> None:
    OpeningFile.decode(data).verified(_KEY.public_der)


def _opening() -> bytes:
    wrapped = b"wrapped" * 20
    opening = Opening(TENANT, AGENT, CALL, 0, "arn:key", _sha256(wrapped), 5, 1_795_000_000_000_000)
    return OpeningFile.sealed_by(_KEY, opening, wrapped).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _policy() -> RecordingPolicy:
    return RecordingPolicy(
        tenant=TENANT,
        version=7,
        issued_at_ms=2_000_000_000_000,
        rules=(
            Rule(
                id="dealers",
                record="always",
                basis="legal_obligation",
                match=Match(groups=("dealers",)),
                regulated=True,
            ),
            Rule(
                id="sales",
                record="consent",
                basis="consent",
                match=Match(queues=("Sales",), weekdays=("mon", "fri"), hours="22:00-06:00", timezone="Europe/London"),
                accept_keys="1",
                decline_keys="2",
                headers=HeaderConsent(name="X-Consent", accept=("yes",), decline=("no",)),
                undecided="keep",
                decide_within_s=60,
            ),
        ),
        groups={"dealers": ("21??", "+44207946*")},
        lines=("2*",),
    )


def _judge(data: bytes) -> None:
    """A policy that can be read judges every call, at every hour, in every state of knowledge."""
    policy = recording_policy.read(data)
    for at_ms in (0, 1_800_000_000_000, 1_800_043_200_000):
        for known in (session(), {}):
            facts = CallFacts.of_session(known, at_ms)
            recording_ruling.evaluate(policy, facts, final=True)
            recording_ruling.settle(recording_ruling.evaluate(policy, facts), [])


def _rule(data: bytes) -> None:
    recording_rule_form.rule_of(canonical.decode(data))


def _decision() -> bytes:
    ulid = "01JD0000000000000000000000"
    return canonical.encode(
        asdict(Decision(ulid, "acme", f"agt_{ulid}", 1, 2, ulid, None, "keep", "consent", "webhook", "person:p"))
    )


def _webhook(data: bytes) -> None:
    """Id, timestamp, signatures on a line each, then the body, under the endpoint's secret."""
    message_id, timestamp, signatures, body = (*data.split(b"\n", 3), b"", b"", b"", b"")[:4]
    named, at, signed = (each.decode("utf-8", "replace") for each in (message_id, timestamp, signatures))
    standard_webhooks.verify(_SECRET, named, at, signed, body, now_s=_NOW_S)


def _webhook_seed() -> bytes:
    body = b'{"type":"card_entry.started","data":{"call":{"ucid":"00FA080018803B69810C6D"}}}'
    signature = standard_webhooks.sign(_SECRET, "msg_1", _NOW_S, body)
    return b"\n".join([b"msg_1", str(_NOW_S).encode(), f"v1,AAAA {signature}".encode(), body])


def _code(data: bytes) -> None:
    enrolment_code.parse(data.decode("utf-8", "replace"))


def targets() -> dict[str, Target]:
    """All of these, by name."""
    code = enrolment_code.make(b"s" * 16, _KEY.public_der).encode()
    text = base64.b64encode(_SECRET)
    refused = (MalformedInput, IntegrityError)
    return {
        "part": Target([_part()], _read_part, still_read=0.2),
        "media-record": Target([_blocks()], _read_blocks, still_read=0.2),
        "manifest": Target([canonical.encode(asdict(_manifest()))], _resigned, still_read=0.02),
        "manifest-file": Target([_manifest().sealed_by(_KEY)], _manifest_file, still_read=0.0, refusals=refused),
        "opening-file": Target([_opening()], _opening_file, still_read=0.0, refusals=refused),
        "session": Target([canonical.encode(session())], call_session.parse),
        "policy": Target([canonical.encode(asdict(_policy()))], _judge, still_read=0.02),
        "policy-rule": Target(kept("policy-rule"), _rule, still_read=0.02),
        "decision": Target([_decision()], call_decision.read, still_read=0.05),
        "webhook": Target(
            [_webhook_seed()], _webhook, still_read=0.02, refusals=(MalformedInput, SignatureRefused, TimestampRefused)
        ),
        "webhook-secret": Target(
            [b"whsec_" + text],
            lambda data: standard_webhooks.read_secret(data.decode("utf-8", "replace")),
            still_read=0.02,
        ),
        "enrolment-code": Target([code, code.lower()], _code, still_read=0.05),
    }
