"""What a cloud holds in the end, in a form in which two clouds are equal if they mean the same.

What is random by design is replaced by what it is: ids of attempts and events, versions, keys, nonces, signatures and
all that is sealed. What it seals is compared instead: the recording is opened, and its sound is part of the snapshot.
Queues promise to deliver at least once: they are compared as sets.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.domain import part
from dualtone.domain.part import RecordType
from dualtone.domain.signing import Envelope
from tests.adapters.finalize.cloud import AUDIT, DIRECTORY, INDEX, INGEST, KEYS, Cloud
from tests.call_samples import CALL, TENANT

_ULID: Final = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
_TOKEN: Final = re.compile(r"(?<![a-z2-7_])[a-z2-7]{32}(?![a-z2-7])")
_KEY: Final = re.compile(r"key/[0-9a-f-]{36}")
_RANDOM: Final = frozenset(
    {"vault_version_id", "vault_sha256", "manifest_sha256", "request_id", "object_sha256", "etag", "public_key"}
)
_DIGESTS: Final = frozenset({"parts", "lacking"})


def of(cloud: Cloud) -> dict[str, Any]:
    """The whole state of a cloud."""
    return {
        "ingest": sorted(_upload(cloud, key) for key in cloud.ingest_keys()),
        "vault": sorted(
            f"{_masked(key)} locked: {cloud.locked(key, version)}" for key, version in cloud.vault_versions()
        ),
        "sound": _sound(cloud),
        "receipts": sorted({_receipt(cloud, message) for message in _messages(cloud, cloud.queue_url)}),
        "finaliser's queue": sorted({_text(message) for message in _messages(cloud, cloud.finalize_url)}),
        "cutter's queue": sorted({_text(message) for message in _messages(cloud, cloud.cut_url)}),
        **{
            table: sorted(_row(table, item) for item in cloud.items(table)) for table in (INDEX, KEYS, DIRECTORY, AUDIT)
        },
    }


def differences(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Where two snapshots differ; empty if nowhere."""
    told = []
    for name, value in expected.items():
        if found[name] != value:
            missing = [row for row in value if row not in found[name]]
            added = [row for row in found[name] if row not in value]
            told.append(f"{name}: missing {missing}, added {added}, {len(value)} became {len(found[name])}")
    return "\n".join(told)


def _upload(cloud: Cloud, key: str) -> str:
    """An upload: its name, and of a part its digest, which holds whatever was cut, and how many records were."""
    if not key.endswith(".dtp"):
        return key
    found = part.read(cloud.s3.get_object(Bucket=INGEST, Key=key)["Body"].read())
    removed = sum(record.head.type is RecordType.REMOVED for record in found.records)
    return f"{key} {found.digest.hex()} removed: {removed}"


def _sound(cloud: Cloud) -> str:
    """SHA-256 of each recording as it plays."""
    told = []
    for item in cloud.recordings():
        entry, _ = RecordingQueries(cloud.dynamodb, INDEX).recording(TENANT, item["recording_id"])
        told.append(f"{entry.recording_id} {hashlib.sha256(cloud.opened(entry.call_id)).hexdigest()}")
    return "\n".join(sorted(told))


def _messages(cloud: Cloud, url: str) -> list[str]:
    """What is in a queue, left there."""
    found: dict[str, str] = {}
    while messages := cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get(
        "Messages"
    ):
        found |= {message["ReceiptHandle"]: message["Body"] for message in messages}
    for handle in found:
        cloud.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    return list(found.values())


def _receipt(cloud: Cloud, body: str) -> str:
    envelope = Envelope.from_json(json.loads(body))
    return _text(envelope.payload.decode())


def _row(table: str, item: dict[str, Any]) -> str:
    masked = _plain(item)
    if table == AUDIT or item["pk"].startswith("attempts#"):
        masked["pk"] = masked["pk"].rpartition("#")[0]  # the shard is drawn
    return json.dumps(masked, sort_keys=True)


def _plain(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            return {key: _plain(content, key) for key, content in value.items()}
        case list():
            return [_plain(content) for content in value]
        case bytes():
            return value.hex() if name in _DIGESTS else "<bytes>"
        case str():
            return f"<{name}>" if name in _RANDOM else _masked(value)
        case bool() | None:
            return value
        case _:
            return str(value)


def _masked(text: str) -> str:
    text = _ULID.sub(lambda match: CALL if match[0] == CALL else "<ulid>", text)
    return _TOKEN.sub("<token>", _KEY.sub("key/<key>", text))


def _text(body: str) -> str:
    return _masked(body)
