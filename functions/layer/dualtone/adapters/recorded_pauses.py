"""The pauses of what is recorded of a call, generation by generation, in the index table.

| pk                         | sk                    | what                                                            |
|----------------------------|-----------------------|-----------------------------------------------------------------|
| `<tenant>#call#<call>`     | `gen#<nnnn>`          | the claim on a generation, with the times of its audio          |
| `<tenant>#rec#<recording>` | `certificates#<nnnn>` | the certificates of its pauses, and how often they were changed |
| `<tenant>#rec#<recording>` | `rec`                 | the latest generation, with its gaps                            |

A late pause changes keys, certificates and gaps in one transaction, and only if none of them changed since it read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.call_ledger import call_pk
from dualtone.adapters.key_store import KeyStore
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId
from dualtone.domain.recording_entry import Gap, RecordingEntry
from dualtone.domain.signing import Envelope
from dualtone.usecases.puncture_recording import Puncture, Recorded, Times

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


def items(entry: RecordingEntry) -> list[dict[str, object]]:
    """What the commit of a recording writes of its pauses: nothing if it has none."""
    if not entry.certificates:
        return []
    return [_certificates_item(entry.tenant, entry.recording_id, entry.generation, entry.certificates, revision=1)]


def times(entry: RecordingEntry) -> dict[str, object]:
    """What the claim on a generation says of its audio."""
    return {
        "agent_id": entry.agent_id,
        "started_at_ms": entry.started_at_ms,
        "answered_at_ms": entry.answered_at_ms,
        "ended_at_ms": entry.ended_at_ms,
        "duration_ms": entry.duration_ms,
        "segment_ms": entry.segment_ms,
    }


def certificates_sk(generation: int) -> str:
    """Where the certificates of a generation are."""
    return f"certificates#{generation:04d}"


def certificates(item: Mapping[str, Any] | None) -> tuple[Envelope, ...]:
    """Reads an item of certificates."""
    return tuple(
        Envelope(one["kind"], one["payload"], one["signature"], one["key_id"]) for one in (item or {}).get("signed", ())
    )


class RecordedPauses:
    """Reads and changes what is paused in recordings."""

    def __init__(self, dynamodb: DynamoDBClient, index_table: str, keys: KeyStore, audit: AuditOutbox) -> None:
        """Takes the client, the index table's name, and the tables that take part in a change."""
        self._name = index_table
        self._table = Table(dynamodb, index_table)
        self._keys = keys
        self._audit = audit

    def of_call(self, tenant: TenantId, call: CallId) -> list[Recorded]:
        """Reads the generations of a call, consistently, the first one first; none if it is not recorded."""
        claims = self._table.partition(call_pk(tenant, call), "gen#")
        if not claims:
            return []
        partition = {row["sk"]: row for row in self._table.partition(f"{tenant}#rec#{claims[0]['recording_id']}")}
        return [_recorded(tenant, call, claim, partition) for claim in claims]

    def change(self, puncture: Puncture) -> bool:
        """Changes keys, certificates and gaps of a generation, and writes the event.

        Returns:
            False if one of them changed since it was read: nothing is changed then.

        Raises:
            Unavailable: If DynamoDB does not answer, or another transaction is in the way.
        """
        was = puncture.of
        writes: list[TransactWriteItemTypeDef] = [
            self._certificates(puncture),
            self._audit.transact_put(puncture.event),
        ]
        if puncture.keys is not None:
            writes.append(self._keys.transact_replace(was.tenant, was.recording, was.generation, puncture.keys))
        if was.is_latest:
            writes.append(
                self._table.transact_update(
                    f"{was.tenant}#rec#{was.recording}",
                    "rec",
                    set_to={"gaps": [asdict(gap) for gap in puncture.gaps], "flags": list(puncture.flags)},
                    only_if="#generation = :generation",
                    values={":generation": was.generation},
                )
            )
        try:
            self._table.transact(*writes)
        except ConditionFailed:
            return False
        return True

    def _certificates(self, puncture: Puncture) -> TransactWriteItemTypeDef:
        was = puncture.of
        item = _certificates_item(
            was.tenant, was.recording, was.generation, puncture.certificates, revision=was.revision + 1
        )
        if not was.revision:
            return self._table.transact_put_new(item)
        return {
            "Put": {
                "TableName": self._name,
                "Item": to_item(item),
                "ConditionExpression": "revision = :before",
                "ExpressionAttributeValues": to_item({":before": was.revision}),
            }
        }


def _certificates_item(
    tenant: TenantId, recording: RecordingId, generation: int, signed: Sequence[Envelope], *, revision: int
) -> dict[str, object]:
    return {
        "pk": f"{tenant}#rec#{recording}",
        "sk": certificates_sk(generation),
        "revision": revision,
        "signed": [asdict(one) for one in signed],
    }


def _recorded(
    tenant: TenantId, call: CallId, claim: Mapping[str, Any], partition: Mapping[str, Mapping[str, Any]]
) -> Recorded:
    generation = int(claim["sk"].removeprefix("gen#"))
    row, signed, audio = partition["rec"], partition.get(certificates_sk(generation)), claim["times"]
    is_latest = row["generation"] == generation
    return Recorded(
        tenant=tenant,
        recording=RecordingId(claim["recording_id"]),
        call=call,
        agent=AgentId(audio["agent_id"]),
        generation=generation,
        agent_manifest_sha256=claim["manifest_sha256"],
        times=Times(
            started_at_ms=audio["started_at_ms"],
            answered_at_ms=audio["answered_at_ms"],
            ended_at_ms=audio["ended_at_ms"],
            duration_ms=audio["duration_ms"],
            segment_ms=audio["segment_ms"],
        ),
        certificates=certificates(signed),
        revision=signed["revision"] if signed else 0,
        is_latest=is_latest,
        channels=tuple(dict.fromkeys(channel["channel"] for channel in row["channels"])),
        gaps=tuple(gap(one) for one in row["gaps"]) if is_latest else (),
        flags=tuple(row["flags"]) if is_latest else (),
    )


def gap(value: Mapping[str, Any]) -> Gap:
    """Reads a gap."""
    return Gap(
        value["channel"],
        value["from_ms"],
        value["to_ms"],
        value["cause"],
        value.get("pause"),
        value.get("rtp_timestamp"),
    )
