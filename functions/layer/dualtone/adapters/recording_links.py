"""Which recordings belong to one call, in the index table.

| pk                         | sk                   | what                                                           |
|----------------------------|----------------------|----------------------------------------------------------------|
| `<tenant>#link#<token>`    | `<call>`             | a recording that is found by a token that dialogs share        |
| `<tenant>#link#<token>`    | `revision#<parties>` | how often a recording of these parties was linked to the token |
| `<tenant>#rec#<recording>` | `rec`                | in `by_time`, unless another copy stands for its call          |

An SBC may give every call the same group: what is read of a token is bounded by time and number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.table import Table
from dualtone.domain.ids import ULID_RANDOM_BYTES, AgentId, CallId, RecordingId, TenantId, ulid
from dualtone.domain.linked_calls import LinkedRecording
from dualtone.domain.period import month_of
from dualtone.usecases.link_recording import Linkage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

MOST_READ: Final = 50
AROUND_MS: Final = 12 * 3_600_000
"""Calls of one token that began longer before or after are not looked at: ids of switches come again."""


class RecordingLinks:
    """The links of recordings."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        """Takes the client and the index table's name."""
        self._name = table
        self._table = Table(dynamodb, table)

    def revision(self, tenant: TenantId, token: str, parties: str) -> int:
        """Reads how often a recording of certain parties was linked to a token."""
        item = self._table.get(_pk(tenant, token), _revision_sk(parties)) or {}
        return int(item.get("number", 0))

    def linked(self, tenant: TenantId, token: str, around_ms: int) -> list[LinkedRecording]:
        """Reads what is linked to a token, the latest first.

        Args:
            tenant: Whose.
            token: The token.
            around_ms: When the call began whose other recordings are looked for, Unix time.
        """
        rows = self._table.newest(_pk(tenant, token), _bounds(around_ms), after=None, limit=MOST_READ)
        return [_linked(row) for row in rows]

    def writes(self, tenant: TenantId, linkage: Linkage) -> list[TransactWriteItemTypeDef]:
        """What the commit of a recording writes, if the revisions are what was read: its rows, its copies' places."""
        row = linkage.row
        rows: list[TransactWriteItemTypeDef] = [
            {
                "Put": {
                    "TableName": self._name,
                    "Item": to_item({"pk": _pk(tenant, token), "sk": row.call} | asdict(row)),
                }
            }
            for token in linkage.tokens
        ]
        revisions = [
            self._table.transact_update(
                _pk(tenant, token),
                _revision_sk(row.parties),
                set_to={},
                add_to={"number": 1},
                only_if="#number = :read" if linkage.revisions[token] else "attribute_not_exists(#number)",
                values={":read": linkage.revisions[token]} if linkage.revisions[token] else {},
            )
            for token in linkage.tokens
        ]
        places = [self._place(tenant, other, linkage.foremost) for other in linkage.others]
        return [*rows, *revisions, *places]

    def _place(self, tenant: TenantId, other: LinkedRecording, foremost: RecordingId) -> TransactWriteItemTypeDef:
        return self._table.transact_update(
            f"{tenant}#rec#{other.recording}",
            "rec",
            set_to=place(tenant, other.recording, other.started_at_ms, foremost),
            only_if="attribute_exists(#state)",
            values={},
        )


def place(tenant: TenantId, recording: RecordingId, started_at_ms: int, foremost: RecordingId) -> Mapping[str, object]:
    """Where lists find a recording: in its month if it stands for its call, nowhere if another copy does."""
    if recording != foremost:
        return {"copy_of": foremost, "gsi1pk": None, "gsi1sk": None}
    return {
        "copy_of": None,
        "gsi1pk": f"{tenant}#{month_of(started_at_ms)}",
        "gsi1sk": f"{started_at_ms:013d}#{recording}",
    }


def _pk(tenant: TenantId, token: str) -> str:
    return f"{tenant}#link#{token}"


def _revision_sk(parties: str) -> str:
    """Copies have the same parties: calls of one group and other parties need not wait for each other."""
    return f"revision#{parties}"


def _bounds(around_ms: int) -> tuple[str, str]:
    """Ids of calls begin with the time."""
    first = ulid(max(around_ms - AROUND_MS, 0), bytes(ULID_RANDOM_BYTES))
    return first, ulid(around_ms + AROUND_MS, b"\xff" * ULID_RANDOM_BYTES)


def _linked(row: Mapping[str, Any]) -> LinkedRecording:
    return LinkedRecording(
        recording=RecordingId(row["recording"]),
        call=CallId(row["call"]),
        agent=AgentId(row["agent"]),
        source=row["source"],
        end=row["end"],
        parties=row["parties"],
        streams=row["streams"],
        started_at_ms=row["started_at_ms"],
        ended_at_ms=row["ended_at_ms"],
        lost_ms=row["lost_ms"],
    )
