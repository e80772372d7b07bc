"""Calls while they last: as their agents report them, what they are found by, and orders that wait for one.

| pk                       | sk        | what                                                                  |
|--------------------------|-----------|-----------------------------------------------------------------------|
| `<tenant>#call#<call>`   | `live`    | the call; in the index `by_time` under `<tenant>#live` while it lasts |
| `<tenant>#match#<token>` | `<call>`  | that a call has a match token; gone 80 hours after its end            |
| `<tenant>#match#<token>` | `pending` | orders for calls to come, the latest of each cause; for 60 seconds    |

Reports come late, twice and in any order: a revision below the one that is known changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.call_ledger import LIVE, MINE, call_pk, live_call
from dualtone.adapters.table import ConditionFailed, Table
from dualtone.domain import pause_ledger
from dualtone.domain.agent_events import CallEvent, ClockOffset
from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.call_command import MARGIN_US, PENDING_S, WORST_UNCERTAINTY_US
from dualtone.domain.call_match import MOST_TOKENS
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import AgentId, CallId, TenantId
from dualtone.domain.pause_ledger import UNKNOWN_CLOCK, LiveCall
from dualtone.domain.pause_order import MATCHES_KEPT_S, Order

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_LISTED: Final = 1_000
_PENDING: Final = "pending"
_LIVE_KEPT_S: Final = 14 * 86_400  # a match token of a call whose agent was never heard of again
_SETTLED_MS: Final = 120_000  # an agent that starts lists its calls before it has taken all of them up again
_SLACK_MS: Final = (MARGIN_US + WORST_UNCERTAINTY_US) // 1000


class LiveCalls:
    """Reads and writes calls while they last."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, audit: AuditOutbox) -> None:
        """Takes the client, the index table's name, and the outbox that joins transactions."""
        self._table = Table(dynamodb, table)
        self._name = table
        self._audit = audit

    def take(
        self,
        tenant: TenantId,
        agent: AgentId,
        event: CallEvent,
        *,
        clock: ClockOffset | None,
        sent_at_us: int,
        now_ms: int,
    ) -> frozenset[str]:
        """Takes what an agent reports of a call. Tokens are written before the call.

        Args:
            tenant: The agent's.
            agent: Who reports.
            event: The report.
            clock: How far the agent's clock is off; None leaves what is known.
            sent_at_us: When it was sent, by the agent's clock.
            now_ms: True time.

        Returns:
            The tokens for which orders may wait: those that the call did not have before this revision.

        Raises:
            IntegrityError: If the call is another agent's.
        """
        pk = call_pk(tenant, CallId(event.call))
        known = self._table.get(pk, LIVE) or {}
        if known.get("agent_id", agent) != agent:
            raise IntegrityError("an agent reports another agent's call")
        revision = known.get("revision", -1)
        if event.revision < revision:
            return frozenset()
        had = frozenset(known.get("matches", ()))
        tokens = tuple(dict.fromkeys([*event.matches, *sorted(had)]))[:MOST_TOKENS]
        item = _reported(tenant, event, tokens, clock, known)
        if known.get("causes_at_us", 0) <= sent_at_us:
            item |= {"causes": list(event.causes), "causes_at_us": sent_at_us}
        ended_before = known.get("ended_at_ms") is not None and had.issuperset(tokens)
        changed = set(tokens) - had if event.state == "live" else set() if ended_before else set(tokens)
        self._name_call(tenant, CallId(event.call), changed, item, now_ms)
        try:
            self._table.update(
                pk,
                LIVE,
                set_to={"agent_id": agent, **item},
                only_if=f"({MINE}) AND (attribute_not_exists(#revision) OR #revision <= :revision)",
                values={":agent": agent, ":revision": event.revision},
            )
        except ConditionFailed:
            return frozenset()  # a later report was first
        # The same report again: whoever took it before may have been stopped before looking for orders.
        return frozenset(tokens) if event.revision == revision else frozenset(tokens) - had

    def live(self, tenant: TenantId) -> list[LiveCall]:
        """Calls that last, the newest first; at most a thousand."""
        rows = self._table.newest(f"{tenant}#live", ("0", "9~"), after=None, limit=MOST_LISTED, index="by_time")
        return [live_call(row) for row in rows]

    def end_all_but(
        self, tenant: TenantId, agent: AgentId, live: Iterable[str], *, sent_at_us: int, now_ms: int
    ) -> list[CallId]:
        """Ends calls that are thought to be live while their agent, which lists those that are, lists them no more.

        An agent that was replaced, or lost its disk, never reports the end of what it recorded. Should it speak of such
        a call again, the call is what it says.

        Args:
            tenant: The agent's.
            agent: Who lists.
            live: Ids of the calls that it records.
            sent_at_us: When it listed them, by its clock.
            now_ms: True time.

        Returns:
            The calls that were ended.
        """
        listed, ended = set(live), []
        for call in self.live(tenant):
            if call.agent_id != agent or call.call_id in listed or call.started_at_ms > now_ms - _SETTLED_MS:
                continue
            over = {"state": "spooled", "ended_at_ms": now_ms, "sealed": None, "gsi1pk": None, "gsi1sk": None}
            try:
                self._table.update(
                    call_pk(tenant, call.call_id),
                    LIVE,
                    set_to=over,
                    only_if="#state = :live AND #revision = :revision AND #causes_at_us < :heard",
                    values={
                        ":live": "live",
                        ":revision": call.revision,
                        ":heard": sent_at_us - 1000 * _SETTLED_MS,
                    },
                )
            except ConditionFailed:
                continue
            ended.append(call.call_id)
        return ended

    def matching(self, tenant: TenantId, token: str, from_ms: int) -> list[CallId]:
        """Calls that have a token and had not ended before a moment, the newest first."""
        rows = self._table.partition(_match_pk(tenant, token))
        return [
            CallId(row["sk"])
            for row in reversed(rows)
            if row["sk"] != _PENDING and row.get("ended_at_ms", from_ms) >= from_ms - _SLACK_MS
        ]

    def latest(self, tenant: TenantId, token: str) -> CallId | None:
        """The latest call that has a token."""
        calls = self.matching(tenant, token, 0)
        return calls[0] if calls else None

    def keep(self, tenant: TenantId, token: str, order: Order, number: int, event: AuditEvent | None) -> None:
        """Keeps an order for calls to come, and writes the event, both or none; a newer one of its cause stays."""
        entry = {**asdict(order), "number": number, "expires_at_ms": order.received_at_ms + 1000 * PENDING_S}
        kept = self._table.transact_update(
            _match_pk(tenant, token),
            _PENDING,
            set_to={
                f"for_{order.cause}": entry,
                f"number_{order.cause}": number,
                "expires_at_s": number // 1000 + 60 * PENDING_S,
            },
            only_if=f"attribute_not_exists(#number_{order.cause}) OR #number_{order.cause} < :number",
            values={":number": number},
        )
        recorded = [self._audit.transact_put(event)] if event is not None else []
        try:
            self._table.transact(kept, *recorded)
        except ConditionFailed:
            if event is not None:
                self._audit.write(event)

    def waiting(self, tenant: TenantId, tokens: Iterable[str], now_ms: int) -> list[tuple[Order, int]]:
        """Orders that wait for a call with one of these tokens, with their numbers, the oldest first."""
        keys = [(_match_pk(tenant, token), _PENDING) for token in tokens]
        found: dict[str, tuple[Order, int]] = {}
        for item in self._table.get_many(keys, consistent=True):
            for name, entry in item.items():
                if name.startswith("for_") and entry["expires_at_ms"] > now_ms:
                    order, number = _order(entry)
                    found[order.command] = order, number
        return sorted(found.values(), key=lambda waiting: waiting[1])

    def _name_call(
        self, tenant: TenantId, call: CallId, tokens: Iterable[str], item: Mapping[str, Any], now_ms: int
    ) -> None:
        ended_at_ms = item["ended_at_ms"]
        kept_s = _LIVE_KEPT_S if ended_at_ms is None else MATCHES_KEPT_S
        row = {"started_at_ms": item["started_at_ms"], "ended_at_ms": ended_at_ms}
        for token in sorted(tokens):
            place = {"pk": _match_pk(tenant, token), "sk": call}
            self._table.put({**place, **row, "expires_at_s": now_ms // 1000 + kept_s})


def _match_pk(tenant: TenantId, token: str) -> str:
    return f"{tenant}#match#{token}"


def _reported(
    tenant: TenantId, event: CallEvent, tokens: tuple[str, ...], clock: ClockOffset | None, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Attributes of the `live` item; None removes one."""
    if clock is None and "clock_offset_us" in known:
        clock = ClockOffset(known["clock_offset_us"], known["clock_uncertainty_us"])
    started_at_ms = pause_ledger.true_ms(event.started_at_us, clock or UNKNOWN_CLOCK)
    ended_at_us, lasts = event.ended_at_us, event.state == "live"
    return {
        "state": event.state,
        "started_at_ms": started_at_ms,
        "ended_at_us": ended_at_us,
        "ended_at_ms": None if ended_at_us is None else pause_ledger.true_ms(ended_at_us, clock or UNKNOWN_CLOCK),
        "revision": event.revision,
        "sealed": event.sealed_bytes if lasts else None,
        "matches": list(tokens),
        "links": list(event.links or known.get("links", ())),
        "policy": asdict(event.policy) if event.policy is not None else known.get("policy"),
        "clock_offset_us": clock.offset_us if clock is not None else None,
        "clock_uncertainty_us": clock.uncertainty_us if clock is not None else None,
        "gsi1pk": f"{tenant}#live" if lasts else None,
        "gsi1sk": f"{started_at_ms:013d}#{event.call}" if lasts else None,
    }


def _order(entry: Mapping[str, Any]) -> tuple[Order, int]:
    order = Order(
        command=entry["command"],
        action=entry["action"],
        cause=entry["cause"],
        by=entry["by"],
        received_at_ms=entry["received_at_ms"],
        effective_at_ms=entry["effective_at_ms"],
        until_ms=entry.get("until_ms"),
        lease_s=entry["lease_s"],
        on_expiry=entry["on_expiry"],
    )
    return order, entry["number"]
