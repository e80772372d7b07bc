"""Writing the index: attempts, claims, and the one transaction that makes a recording.

| pk                          | sk                         | what                                                |
|-----------------------------|----------------------------|-----------------------------------------------------|
| `<tenant>#rec#<recording>`  | `rec`                      | the recording; also in the index `by_time`          |
| `<tenant>#rec#<recording>`  | `meta`                     | its sealed metadata                                 |
| `<tenant>#rec#<recording>`  | `certificates#<nnnn>`      | the certificates of a generation's pauses           |
| `<tenant>#num#<token>`      | `<started ms>#<recording>` | a number that takes part in it                      |
| `<tenant>#sip#<token>`      | `<call>`                   | what became of a call                               |
| `<tenant>#call#<call>`      | `gen#<nnnn>`               | the claim on a generation of a call: exactly once   |
| `<tenant>#link#<token>`     | ...                        | see ``recording_links``                             |
| `attempts#<shard>`          | `<created ms>#<attempt>`   | an attempt that has not come to its end             |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters import recorded_pauses
from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.aws_errors import translated
from dualtone.adapters.call_ledger import CallLedger
from dualtone.adapters.key_store import KeyStore
from dualtone.adapters.recording_links import RecordingLinks, place
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain.commit_attempt import Attempt, AttemptState, Generation, Upload
from dualtone.domain.ids import AgentId, AttemptId, CallId, RecordingId, TenantId
from dualtone.domain.recording_entry import CANARY, ChannelQuality, RecordingEntry
from dualtone.usecases.commit_recording import Commit
from dualtone.usecases.link_recording import Linkage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

SHARDS: Final = 4
MOST_NUMBERS: Final = 32
"""Numbers of one recording that are indexed: a transaction has at most 100 writes, and a later generation moves all."""

_FINALISING: Final = "finalising"


class RecordingIndex:
    """The index table, for writing."""

    def __init__(
        self, dynamodb: DynamoDBClient, table: str, keys: KeyStore, audit: AuditOutbox, ledgers: CallLedger
    ) -> None:
        """Takes the client, the table's name, and the tables that take part in the commit."""
        self._dynamodb = dynamodb
        self._name = table
        self._table = Table(dynamodb, table)
        self._keys = keys
        self._audit = audit
        self._ledgers = ledgers
        self._links = RecordingLinks(dynamodb, table)

    def open_attempt(self, attempt: Attempt) -> None:
        """Writes an attempt down."""
        self._table.put_new(_attempt_item(attempt))

    def attempt(self, attempt: AttemptId, created_at_ms: int) -> Attempt | None:
        """Reads an attempt; None if it was forgotten."""
        item = self._table.get(*_attempt_key(attempt, created_at_ms))
        return _attempt(item) if item else None

    def attempts_before(self, before_ms: int) -> Iterator[Attempt]:
        """Reads all attempts that began before a moment, shard by shard, the oldest first."""
        for shard in range(SHARDS):
            for item in self._table.partition(f"attempts#{shard}"):
                attempt = _attempt(item)
                if attempt.created_at_ms >= before_ms:
                    break
                yield attempt

    def abandon(self, attempt: Attempt, now_ms: int) -> bool:
        """Makes an open attempt unable to commit; False if it is not open any more."""
        pk, sk = _attempt_key(attempt.attempt, attempt.created_at_ms)
        try:
            self._table.transact(self._to_state(pk, sk, {"state": AttemptState.ABANDONED, "abandoned_at_ms": now_ms}))
        except ConditionFailed:
            return False
        return True

    def forget(self, attempt: Attempt) -> None:
        """Removes an attempt."""
        pk, sk = _attempt_key(attempt.attempt, attempt.created_at_ms)
        with translated("removing an attempt"):
            self._dynamodb.delete_item(TableName=self._name, Key=to_item({"pk": pk, "sk": sk}))

    def generation(self, tenant: TenantId, call: CallId, generation: int) -> Generation | None:
        """Reads who claimed a generation of a call; None if nobody did."""
        item = self._table.get(f"{tenant}#call#{call}", f"gen#{generation:04d}")
        return _generation(item) if item else None

    def latest_generation(self, tenant: TenantId, call: CallId) -> Generation | None:
        """Reads who claimed the latest generation of a call; None if nobody claimed any."""
        items = self._table.partition(f"{tenant}#call#{call}", "gen#")
        return _generation(items[-1]) if items else None

    def announce(self, tenant: TenantId, call: CallId, sip_tokens: Sequence[str]) -> None:
        """Writes that a call is being finalised, unless its state is known already."""
        for token in sip_tokens:
            try:
                self._table.put_new({"pk": f"{tenant}#sip#{token}", "sk": call, "state": _FINALISING})
            except ConditionFailed:
                continue

    def commit(self, commit: Commit) -> bool:
        """Does the transaction.

        Returns:
            True if this attempt made the recording; False if the generation is taken, a pause came in, another
            recording of the call was committed since they were linked, or the attempt was abandoned.

        Raises:
            Unavailable: If DynamoDB does not answer, or another transaction is in the way.
        """
        attempt, entry = commit.attempt, commit.entry
        tenant = entry.tenant
        pk, sk = _attempt_key(attempt.attempt, attempt.created_at_ms)
        position = f"{entry.started_at_ms:013d}#{entry.recording_id}"
        number_tokens = list(dict.fromkeys(commit.number_tokens))[:MOST_NUMBERS]
        settled = {
            "state": AttemptState.COMMITTED,
            "releases": attempt.releases,
            "lacking": _packed(attempt.lacking),
            "vault_version_id": attempt.vault_version_id,
            "lock_until_ms": attempt.lock_until_ms,
        }
        claim = {
            "pk": f"{tenant}#call#{entry.call_id}",
            "sk": f"gen#{entry.generation:04d}",
            "attempt": attempt.attempt,
            "created_at_ms": attempt.created_at_ms,
            "recording_id": entry.recording_id,
            "manifest_sha256": attempt.manifest_sha256,
            "interrupted": attempt.interrupted,
            "releases": attempt.releases,
            "parts": _packed(attempt.upload.parts),
            "lacking": _packed(attempt.lacking),
            "times": recorded_pauses.times(entry),
            "position": position,
            "number_tokens": number_tokens,
        }
        recording = f"{tenant}#rec#{entry.recording_id}"
        found_by: list[dict[str, object]] = [
            {
                "pk": f"{tenant}#num#{token}",
                "sk": position,
                "recording_id": entry.recording_id,
                "duration_ms": entry.duration_ms,
            }
            for token in number_tokens
        ]
        found_before = self._numbers_before(entry) - {(str(item["pk"]), position) for item in found_by}
        followed_by: list[dict[str, object]] = [
            {
                "pk": f"{tenant}#sip#{token}",
                "sk": entry.call_id,
                "state": commit.call_state,
                "recording_id": entry.recording_id,
            }
            for token in commit.sip_tokens
        ]
        try:
            self._table.transact(
                self._table.transact_put_new(claim),
                self._to_state(pk, sk, settled),
                self._keys.transact_put(tenant, entry.recording_id, entry.generation, commit.keys),
                self._put({"pk": recording, "sk": "rec", **_recording(entry, commit.linkage)}),
                self._put({"pk": recording, "sk": "meta", **commit.metadata}),
                *(self._put(item) for item in recorded_pauses.items(entry)),
                self._ledgers.transact_unchanged(tenant, entry.call_id, commit.ledger_version),
                *(self._put(item) for item in (*found_by, *followed_by)),
                *self._links.writes(tenant, commit.linkage),
                *(self._table.transact_delete(*place) for place in sorted(found_before)),
                self._audit.transact_put(commit.event),
            )
        except ConditionFailed:
            return False
        return True

    def _numbers_before(self, entry: RecordingEntry) -> set[tuple[str, str]]:
        """Where the generation before is found by its numbers; its claim says so, and never changes."""
        if entry.generation == 1:
            return set()
        claim = self._table.get(f"{entry.tenant}#call#{entry.call_id}", f"gen#{entry.generation - 1:04d}") or {}
        tokens = claim.get("number_tokens", [])
        return {(f"{entry.tenant}#num#{token}", claim["position"]) for token in tokens}

    def _to_state(self, pk: str, sk: str, changes: Mapping[str, object]) -> TransactWriteItemTypeDef:
        return self._table.transact_update(
            pk, sk, set_to=changes, only_if="#state = :open", values={":open": AttemptState.OPEN}
        )

    def _put(self, values: Mapping[str, object]) -> TransactWriteItemTypeDef:
        return {"Put": {"TableName": self._name, "Item": to_item(values)}}


def _attempt_key(attempt: AttemptId, created_at_ms: int) -> tuple[str, str]:
    return f"attempts#{sum(attempt.encode()) % SHARDS}", f"{created_at_ms:013d}#{attempt}"


def _attempt_item(attempt: Attempt) -> dict[str, object]:
    pk, sk = _attempt_key(attempt.attempt, attempt.created_at_ms)
    upload = attempt.upload
    return {
        "pk": pk,
        "sk": sk,
        "attempt": attempt.attempt,
        "created_at_ms": attempt.created_at_ms,
        "state": attempt.state,
        "recording_id": attempt.recording,
        "vault_key": attempt.vault_key,
        "manifest_sha256": attempt.manifest_sha256,
        "interrupted": attempt.interrupted,
        "releases": attempt.releases,
        "vault_version_id": attempt.vault_version_id,
        "lock_until_ms": attempt.lock_until_ms,
        "tenant": upload.tenant,
        "agent_id": upload.agent,
        "call_id": upload.call,
        "generation": upload.generation,
        "files": list(upload.files),
        "parts": _packed(upload.parts),
    }


def _attempt(item: Mapping[str, Any]) -> Attempt:
    return Attempt(
        attempt=AttemptId(item["attempt"]),
        created_at_ms=item["created_at_ms"],
        recording=RecordingId(item["recording_id"]),
        vault_key=item["vault_key"],
        upload=Upload(
            tenant=TenantId(item["tenant"]),
            agent=AgentId(item["agent_id"]),
            call=CallId(item["call_id"]),
            generation=item["generation"],
            files=tuple(item["files"]),
            parts=_unpacked(item["parts"]),
        ),
        manifest_sha256=item["manifest_sha256"],
        interrupted=item["interrupted"],
        state=AttemptState(item["state"]),
        releases=item["releases"],
        lacking=_unpacked(item.get("lacking", b"")),
        vault_version_id=item.get("vault_version_id"),
        lock_until_ms=item.get("lock_until_ms"),
        abandoned_at_ms=item.get("abandoned_at_ms"),
    )


def _generation(item: Mapping[str, Any]) -> Generation:
    lacking = frozenset(_unpacked(item["lacking"]))
    return Generation(
        number=int(item["sk"].removeprefix("gen#")),
        attempt=AttemptId(item["attempt"]),
        created_at_ms=item["created_at_ms"],
        recording=RecordingId(item["recording_id"]),
        manifest_sha256=item["manifest_sha256"],
        interrupted=item["interrupted"],
        releases=item["releases"],
        parts=frozenset(_unpacked(item["parts"])) - lacking,
        lacking=lacking,
    )


def _packed(digests: Sequence[str]) -> bytes:
    return b"".join(map(bytes.fromhex, digests))


def _unpacked(packed: bytes) -> tuple[str, ...]:
    return tuple(packed[start : start + 32].hex() for start in range(0, len(packed), 32))


def _recording(entry: RecordingEntry, linkage: Linkage) -> dict[str, object]:
    values: dict[str, object] = {name: value for name, value in asdict(entry).items() if value is not None}
    del values["certificates"]  # in an item of their own: a list of recordings has no use for them
    return values | {
        **(
            {}
            if CANARY in entry.flags
            else place(entry.tenant, entry.recording_id, entry.started_at_ms, linkage.foremost)
        ),
        "links": list(linkage.tokens),
        "direction": entry.direction.value,
        "channels": [asdict(channel) for channel in entry.channels],
        "gaps": [asdict(gap) for gap in entry.gaps],
        "quality": [_quality(quality) for quality in entry.quality],
        "flags": list(entry.flags),
    }


def _quality(quality: ChannelQuality) -> dict[str, object]:
    return asdict(quality) | {
        "jitter_ms": Decimal(str(quality.jitter_ms)),
        "silence_ratio": Decimal(str(quality.silence_ratio)),
    }
