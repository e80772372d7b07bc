"""Reading the index: each access pattern is one query on a key that contains the tenant. No scan, no filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dualtone.adapters import recorded_pauses
from dualtone.adapters.table import Table
from dualtone.domain.direction import Direction
from dualtone.domain.errors import NotFound
from dualtone.domain.ids import AgentId, CallId, RecordingId, TenantId
from dualtone.domain.period import Period
from dualtone.domain.recording_entry import CallState, Channel, ChannelQuality, RecordingEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class RecordingQueries:
    """The index table, for reading. The tenant is part of every key, so that no argument can reach another's rows."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        """Takes the client and the table's name."""
        self._table = Table(dynamodb, table)

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[RecordingEntry, dict[str, Any]]:
        """Reads a recording, its certificates and its sealed metadata (empty if it has none) in one query.

        Raises:
            NotFound: If this tenant has no such recording, whoever else may have it.
        """
        items = {item["sk"]: item for item in self._table.partition(_pk(tenant, recording))}
        if "rec" not in items:
            raise NotFound("no such recording")
        entry = _entry(items["rec"])
        signed = items.get(recorded_pauses.certificates_sk(entry.generation))
        return replace(entry, certificates=recorded_pauses.certificates(signed)), items.get("meta", {})

    def started_in(
        self, tenant: TenantId, month: str, period: Period, *, before: str | None, limit: int
    ) -> list[tuple[str, RecordingEntry]]:
        """Reads a page of the recordings that started in a month, newest first.

        Args:
            tenant: Whose.
            month: ``YYYY-MM``, one of the period's.
            period: Bounds within the month.
            before: The position after which the page begins, as returned with the last row of the page before.
            limit: At most so many.

        Returns:
            Position and recording of each row.
        """
        partition = f"{tenant}#{month}"
        after = None
        if before is not None:
            recording = RecordingId(before.partition("#")[2])
            after = {"gsi1pk": partition, "gsi1sk": before, "pk": _pk(tenant, recording), "sk": "rec"}
        rows = self._table.newest(partition, _bounds(period), after=after, limit=limit, index="by_time")
        return [(row["gsi1sk"], _entry(row)) for row in rows]

    def with_number(
        self, tenant: TenantId, token: str, period: Period, *, before: str | None, limit: int
    ) -> list[tuple[str, RecordingId]]:
        """Reads a page of the recordings in which a number takes part, newest first.

        Args:
            tenant: Whose.
            token: The number's token in one month.
            period: Bounds within that month.
            before: As for ``started_in``.
            limit: At most so many.

        Returns:
            Position and recording id of each row.
        """
        partition = f"{tenant}#num#{token}"
        after = {"pk": partition, "sk": before} if before is not None else None
        rows = self._table.newest(partition, _bounds(period), after=after, limit=limit)
        return [(row["sk"], RecordingId(row["recording_id"])) for row in rows]

    def recordings(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, RecordingEntry]:
        """Reads many recordings at once; one that is gone is left out."""
        rows = self._table.get_many([(_pk(tenant, recording), "rec") for recording in recordings])
        return {entry.recording_id: entry for entry in map(_entry, rows)}

    def metadata(self, tenant: TenantId, recordings: Sequence[RecordingId]) -> dict[RecordingId, dict[str, Any]]:
        """Reads the sealed metadata of many recordings at once; one that has none is left out."""
        rows = self._table.get_many([(_pk(tenant, recording), "meta") for recording in recordings])
        return {RecordingId(row["pk"].rpartition("#")[2]): row for row in rows}

    def calls(self, tenant: TenantId, token: str) -> list[CallState]:
        """Reads what became of the calls with a SIP Call-ID, the oldest first.

        Args:
            tenant: Whose.
            token: The Call-ID's token.
        """
        rows = self._table.partition(f"{tenant}#sip#{token}")
        return [CallState(CallId(row["sk"]), row["state"], row.get("recording_id")) for row in rows]

    def recording_of(self, tenant: TenantId, call: CallId) -> RecordingId | None:
        """Reads the recording that a call became; None as long as there is none."""
        rows = self._table.partition(f"{tenant}#call#{call}", "gen#")
        return RecordingId(rows[-1]["recording_id"]) if rows else None


def _pk(tenant: TenantId, recording: RecordingId) -> str:
    return f"{tenant}#rec#{recording}"


def _bounds(period: Period) -> tuple[str, str]:
    """Bounds of a sort key `<13 digits>#<recording>`: a longer text sorts later, so the period's end is left out."""
    return f"{period.from_ms:013d}", f"{period.to_ms:013d}"


def _entry(item: dict[str, Any]) -> RecordingEntry:
    return RecordingEntry(
        tenant=TenantId(item["tenant"]),
        recording_id=RecordingId(item["recording_id"]),
        call_id=CallId(item["call_id"]),
        agent_id=AgentId(item["agent_id"]),
        generation=item["generation"],
        attempt=item["attempt"],
        state=item["state"],
        started_at_ms=item["started_at_ms"],
        answered_at_ms=item["answered_at_ms"],
        ended_at_ms=item["ended_at_ms"],
        duration_ms=item["duration_ms"],
        direction=Direction(item["direction"]),
        media_type=item["media_type"],
        vault_key=item["vault_key"],
        vault_version_id=item["vault_version_id"],
        vault_sha256=item["vault_sha256"],
        vault_size_bytes=item["vault_size_bytes"],
        segment_count=item["segment_count"],
        segment_ms=item["segment_ms"],
        manifest=item["manifest"],
        manifest_signature=item["manifest_signature"],
        signing_key_arn=item["signing_key_arn"],
        channels=tuple(map(_channel, item["channels"])),
        gaps=tuple(map(recorded_pauses.gap, item["gaps"])),
        quality=tuple(map(_quality, item["quality"])),
        flags=tuple(item["flags"]),
        retention_until_ms=item["retention_until_ms"],
        links=tuple(item.get("links", ())),
        copy_of=item.get("copy_of"),
        policy_rule=item.get("policy_rule"),
        policy_version=item.get("policy_version"),
    )


def _channel(value: dict[str, Any]) -> Channel:
    return Channel(
        value["channel"], value["label"], value.get("stream_id"), value.get("participant"), value.get("role", "unknown")
    )


def _quality(value: dict[str, Any]) -> ChannelQuality:
    return ChannelQuality(
        channel=value["channel"],
        packets=value["packets"],
        lost=value["lost"],
        duplicates=value["duplicates"],
        jitter_ms=float(value["jitter_ms"]),
        silence_ratio=float(value["silence_ratio"]),
        one_sided=value["one_sided"],
    )
