"""The ledger of each call's pauses, in the index table.

| pk                     | sk                      | what                                                         |
|------------------------|-------------------------|--------------------------------------------------------------|
| `<tenant>#call#<call>` | `live`                  | the call as its agent reports it (see `live_calls`); counts  |
| `<tenant>#call#<call>` | `cmd#<origin>#<number>` | a command and its answer                                     |

Whatever changes a span raises ``ledger_version`` on `live` in the same transaction: who made something of a ledger can
make sure, in a transaction of its own, that it is the ledger still.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.attribute_values import to_item
from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import AckEvent, ClockOffset, SilentFrom
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.call_command import DEFAULT_LEASE_S
from dualtone.domain.errors import IntegrityError, Unavailable
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import UNKNOWN_CLOCK, Ledger, LedgerCommand, LiveCall
from dualtone.domain.recording_ruling import Kept

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import ConditionCheckTypeDef, TransactWriteItemTypeDef

LIVE: Final = "live"
MINE: Final = "attribute_not_exists(#agent_id) OR #agent_id = :agent"
"""The condition of everything that an agent says of a call: nobody else's agent said something of it before."""

_COMMANDS: Final = "cmd#"
_TRIES: Final = 8


class CallLedger:
    """Reads and writes ledgers."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, audit: AuditOutbox) -> None:
        """Takes the client, the index table's name, and the outbox that joins each transaction."""
        self._name = table
        self._table = Table(dynamodb, table)
        self._audit = audit

    def read(self, tenant: TenantId, call: CallId) -> Ledger:
        """Reads a call's ledger, consistently; an unknown call has an empty one of version 0."""
        rows = {item["sk"]: item for item in self._table.partition(call_pk(tenant, call))}
        item = rows.get(LIVE, {})
        commands = [row for sk, row in rows.items() if sk.startswith(_COMMANDS)]
        clock = _clock(item)
        return Ledger(
            version=item.get("ledger_version", 0),
            commands=tuple(_command(row, clock) for row in commands),
            live=live_call(item) if "state" in item else None,
            last_number=item.get("last_number", 0),
        )

    def command(self, tenant: TenantId, call: CallId, origin: str, number: int) -> LedgerCommand | None:
        """Reads one command; None if there is none of that number."""
        item = self._table.get(call_pk(tenant, call), command_sk(origin, number))
        return None if item is None else _command(item, UNKNOWN_CLOCK)

    def transact_unchanged(self, tenant: TenantId, call: CallId, version: int) -> TransactWriteItemTypeDef:
        """Makes the condition, for a transaction, that a ledger still has the version that was read."""
        check: ConditionCheckTypeDef = {
            "TableName": self._name,
            "Key": to_item({"pk": call_pk(tenant, call), "sk": LIVE}),
            "ConditionExpression": "attribute_not_exists(ledger_version)",
        }
        if version > 0:
            check["ConditionExpression"] = "ledger_version = :version"
            check["ExpressionAttributeValues"] = to_item({":version": version})
        return {"ConditionCheck": check}

    def issue(self, tenant: TenantId, call: CallId, command: LedgerCommand, event: AuditEvent | None) -> bool:
        """Writes a command of the cloud's, before it is sent.

        Args:
            tenant: Owner of the call.
            call: A call that an agent reported.
            command: The command.
            event: What was asked and granted, written in the same transaction; None if that is on record already.

        Returns:
            False if the call has a command with that number or a higher one.
        """
        counted = self._table.transact_update(
            call_pk(tenant, call),
            LIVE,
            set_to={"last_number": command.number},
            add_to={"ledger_version": 1},
            only_if="attribute_exists(#state) AND (attribute_not_exists(#last_number) OR #last_number < :number)",
            values={":number": command.number},
        )
        row = self._table.transact_put_new(_issued(tenant, call, command))
        recorded = [self._audit.transact_put(event)] if event is not None else []
        try:
            self._table.transact(row, counted, *recorded)
        except ConditionFailed:
            return False
        return True

    def answered(
        self, tenant: TenantId, agent: AgentId, ack: AckEvent, *, clock: ClockOffset, event: AuditEvent
    ) -> bool:
        """Takes an agent's answer; one to a command that is not in the ledger, by LAN or by match, brings it along.

        A command that went by call and by match has two numbers and one id; the answer to either is the command's.

        Args:
            tenant: The agent's.
            agent: Who answers.
            ack: The answer.
            clock: How far the agent's clock is off.
            event: What the agent did, written in the same transaction.

        Returns:
            Whether it says more than was known.

        Raises:
            IntegrityError: If the call is another agent's.
        """
        pk, given = call_pk(tenant, CallId(ack.call)), command_sk(ack.origin, ack.number)
        for _try in range(_TRIES):
            rows = [item for item in self._table.partition(pk, _COMMANDS) if item["command"] == ack.command]
            item = next((item for item in rows if item["sk"] == given), rows[0] if rows else None)
            sk = given if item is None else item["sk"]
            if item is not None and not pause_ledger.outweighs(ack.outcome, item.get("outcome")):
                return False
            if item is None:
                row = self._table.transact_put_new(
                    {"pk": pk, "sk": sk, **_told(ack, clock), **_answer(ack, event.when_ms)}
                )
            else:
                known = item.get("outcome")
                row = self._table.transact_update(
                    pk,
                    sk,
                    set_to=_answer(ack, event.when_ms),
                    only_if="#outcome = :known"
                    if known
                    else "attribute_exists(#pk) AND attribute_not_exists(#outcome)",
                    values={":known": known} if known else {},
                )
            try:
                self._count(pk, agent, ack)
                self._table.transact(row, self._changed(pk, agent), self._audit.transact_put(event))
            except ConditionFailed:
                self._require_mine(pk, agent)
                continue  # another answer to the same command was first
            self._show(pk, ack)
            if ack.outcome == "unknown":
                self._lost(pk, event.when_ms)
            return True
        raise Unavailable("answers to one command outran each other")

    def clean_at_agent(self, tenant: TenantId, agent: AgentId, call: CallId, command: str, now_ms: int) -> None:
        """Notes when an agent's spool held nothing of a command's span any more; the first word stays.

        Raises:
            IntegrityError: If the call is another agent's.
            Unavailable: If the command is not known yet: its answer, which brings it along, is on its way.
        """
        pk = call_pk(tenant, call)
        self._require_mine(pk, agent)
        known = [item for item in self._table.partition(pk, _COMMANDS) if item["command"] == command]
        if not known:
            raise Unavailable("a cut came before the answer that it follows")
        for item in known:
            only_if = "attribute_exists(#pk) AND attribute_not_exists(#agent_clean_at_ms)"
            with contextlib.suppress(ConditionFailed):
                changes = {"agent_clean_at_ms": now_ms}
                self._table.update(pk, item["sk"], set_to=changes, only_if=only_if, values={})

    def gone(self, tenant: TenantId, call: CallId, command: LedgerCommand, at_ms: int, event: AuditEvent) -> bool:
        """Notes when the last copy of a command's span was gone, with its event; False if that was noted before."""
        noted = self._table.transact_update(
            call_pk(tenant, call),
            command_sk(command.origin, command.number),
            set_to={"gone_at_ms": at_ms},
            only_if="attribute_exists(#pk) AND attribute_not_exists(#gone_at_ms)",
            values={},
        )
        try:
            self._table.transact(noted, self._audit.transact_put(event))
        except ConditionFailed:
            return False
        return True

    def _count(self, pk: str, agent: AgentId, ack: AckEvent) -> None:
        """Keeps the next number of the cloud's above one that an agent knows by match alone."""
        if ack.origin == "cloud":
            only_if = f"({MINE}) AND (attribute_not_exists(#last_number) OR #last_number < :number)"
            try:
                self._table.update(
                    pk,
                    LIVE,
                    set_to={"last_number": ack.number, "agent_id": agent},
                    only_if=only_if,
                    values={":agent": agent, ":number": ack.number},
                )
            except ConditionFailed:
                self._require_mine(pk, agent)

    def _show(self, pk: str, ack: AckEvent) -> None:
        """Lets those who look at the call see its causes at once, unless the agent has said something later."""
        try:
            self._table.update(
                pk,
                LIVE,
                set_to={"causes": list(ack.causes), "causes_at_us": ack.at_us},
                only_if="attribute_not_exists(#causes_at_us) OR #causes_at_us <= :at",
                values={":at": ack.at_us},
            )
        except ConditionFailed:
            return

    def _lost(self, pk: str, now_ms: int) -> None:
        """Ends a call that was thought to be live and that its agent knows nothing of: nothing more comes of it."""
        over = {"state": "spooled", "ended_at_ms": now_ms, "sealed": None, "gsi1pk": None, "gsi1sk": None}
        try:
            self._table.update(pk, LIVE, set_to=over, only_if="#state = :live", values={":live": "live"})
        except ConditionFailed:
            return

    def _changed(self, pk: str, agent: AgentId) -> TransactWriteItemTypeDef:
        return self._table.transact_update(
            pk, LIVE, set_to={"agent_id": agent}, add_to={"ledger_version": 1}, only_if=MINE, values={":agent": agent}
        )

    def _require_mine(self, pk: str, agent: AgentId) -> None:
        item = self._table.get(pk, LIVE)
        if item is not None and item.get("agent_id", agent) != agent:
            raise IntegrityError("an agent speaks of another agent's call")


def call_pk(tenant: TenantId, call: CallId) -> str:
    """The partition of everything about a call but its recording."""
    return f"{tenant}#call#{call}"


def command_sk(origin: str, number: int) -> str:
    """The place of a command."""
    return f"{_COMMANDS}{origin}#{number:020d}"


def live_call(item: Mapping[str, Any]) -> LiveCall:
    """Reads a `live` item."""
    tenant, _call, call = item["pk"].split("#")
    return LiveCall(
        tenant=TenantId(tenant),
        call_id=CallId(call),
        agent_id=AgentId(item["agent_id"]),
        state=item["state"],
        started_at_ms=item["started_at_ms"],
        ended_at_ms=item.get("ended_at_ms"),
        ended_at_us=item.get("ended_at_us"),
        revision=item["revision"],
        sealed=item.get("sealed", b""),
        causes=tuple(item.get("causes", ())),
        clock=_clock(item),
        policy=Kept(**item["policy"]) if "policy" in item else None,
        links=tuple(item.get("links", ())),
    )


def _clock(item: Mapping[str, Any]) -> ClockOffset:
    if "clock_offset_us" not in item:
        return UNKNOWN_CLOCK
    return ClockOffset(item["clock_offset_us"], item["clock_uncertainty_us"])


def _issued(tenant: TenantId, call: CallId, command: LedgerCommand) -> dict[str, object]:
    return {
        "pk": call_pk(tenant, call),
        "sk": command_sk(command.origin, command.number),
        "command": command.command,
        "origin": command.origin,
        "number": command.number,
        "action": command.action,
        "cause": command.cause,
        "by": command.by,
        "received_at_ms": command.received_at_ms,
        "effective_at_ms": command.effective_at_ms,
        "until_ms": command.until_ms,
        "lease_s": command.lease_s,
        "on_expiry": command.on_expiry,
    }


def _told(ack: AckEvent, clock: ClockOffset) -> dict[str, object]:
    """A command as its answer tells of it."""
    received_at_ms = pause_ledger.true_ms(ack.received_at_us, clock)
    effective_at_us, until_us = ack.effective_at_us, ack.until_us
    return {
        "command": ack.command,
        "origin": ack.origin,
        "number": ack.number,
        "action": ack.action,
        "cause": ack.cause,
        "by": ack.by,
        "received_at_ms": received_at_ms,
        "effective_at_ms": received_at_ms if effective_at_us is None else pause_ledger.true_ms(effective_at_us, clock),
        "until_ms": None if until_us is None else pause_ledger.true_ms(until_us, clock),
        "lease_s": ack.lease_s or DEFAULT_LEASE_S,
        "on_expiry": ack.on_expiry,
    }


def _answer(ack: AckEvent, now_ms: int) -> dict[str, object]:
    return {
        "outcome": ack.outcome,
        "from_us": ack.from_us,
        "at_us": ack.at_us,
        "silent_from": [asdict(stream) for stream in ack.silent_from],
        "causes": list(ack.causes),
        "answered_at_ms": now_ms,
    }


def _command(item: Mapping[str, Any], clock: ClockOffset) -> LedgerCommand:
    """Reads a command; what no answer says is reckoned, on the side of silence."""
    received_at_ms, effective_at_ms, until_ms = item["received_at_ms"], item["effective_at_ms"], item.get("until_ms")
    not_before_us = pause_ledger.not_before_us(received_at_ms, clock)
    pause = item["action"] == "pause"
    reckoned_us = pause_ledger.from_us(effective_at_ms, clock) if pause else not_before_us
    return LedgerCommand(
        command=item["command"],
        origin=item["origin"],
        number=item["number"],
        action=item["action"],
        cause=item["cause"],
        by=item["by"],
        received_at_ms=received_at_ms,
        effective_at_ms=effective_at_ms,
        until_ms=until_ms,
        lease_s=item["lease_s"],
        on_expiry=item["on_expiry"],
        outcome=item.get("outcome"),
        from_us=item.get("from_us", reckoned_us),
        at_us=item.get("at_us", not_before_us),
        until_us=None if until_ms is None else pause_ledger.not_before_us(until_ms, clock),
        silent_from=tuple(
            SilentFrom(each["stream"], each.get("rtp_timestamp"), each["at_us"]) for each in item.get("silent_from", ())
        ),
        causes=tuple(item["causes"]) if "causes" in item else None,
        agent_clean_at_ms=item.get("agent_clean_at_ms"),
        gone_at_ms=item.get("gone_at_ms"),
    )
