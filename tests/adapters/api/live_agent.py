"""A real agent in miniature: it enrols, reports through the events queue, reads its commands, and answers them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from dualtone.adapters import clock, wiring
from dualtone.domain import call_command, call_decision, call_match
from dualtone.domain.agent_events import (
    AckEvent,
    CallEvent,
    ClockOffset,
    CutEvent,
    DecisionEvent,
    Event,
    HealthEvent,
    Report,
    SilentFrom,
    SpoolState,
)
from dualtone.domain.call_command import Command, Outcome
from dualtone.domain.call_decision import Decision, Refresh
from dualtone.domain.ids import CallId, TenantId, ulid
from dualtone.domain.signing import Envelope
from infra.local.cloud import LocalCloud
from tests.adapters.api.agents import assertion, enrol, invite, new_key
from tests.call_samples import session

SECOND: Final = 1_000_000
CLOCK: Final = ClockOffset(offset_us=-2_500_000, uncertainty_us=30_000)
"""The agent's clock is two and a half seconds ahead."""


class LiveAgent:
    """An enrolled agent.

    Attributes:
        agent_id: Its id.
        identity: What it was told when it enrolled.
        received: Every command that it has read.
        decided: Every decision.
        refreshed: Every word that there is a newer policy.
    """

    def __init__(self, cloud: LocalCloud, tenant: str, name: str = "SBC") -> None:
        self._cloud = cloud
        self._key = new_key()
        self.tenant = TenantId(tenant)
        invitation = invite(cloud.tenants[tenant].tokens["administrator"], name)
        self.identity: dict[str, Any] = enrol(invitation["code"], self._key).json
        self.agent_id: str = invitation["agent_id"]
        self.key_id = self.agent_id
        self.live_key = base64.b64decode(self.identity["live_key"])
        self.sequence = clock.now_ms()
        self.received: list[Command] = []
        self.decided: list[Decision] = []
        self.refreshed: list[Refresh] = []

    def sign(self, message: bytes) -> bytes:
        """DER-coded ECDSA with SHA-256."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    def assertion(self) -> str:
        """What it shows for new credentials."""
        return assertion(self._key, self.agent_id, self.identity["token_url"])

    def call(self, number: int, **changes: Any) -> CallEvent:
        """What it reports of a call that began ten seconds ago."""
        now_us = self.now_us()
        facts = changes.pop("facts", {})
        call = changes.pop("call", None) or ulid(clock.now_ms(), number.to_bytes(10, "big"))
        said = session() | facts
        sealed = call_match.seal(self.live_key, self.tenant, CallId(call), said, number.to_bytes(12, "big"))
        event = CallEvent(
            call=call,
            revision=1,
            state="live",
            started_at_us=now_us - 10 * SECOND,
            ended_at_us=None,
            matches=sorted(call_match.of_session(self.live_key, said)),
            sealed=base64.b64encode(sealed).decode(),
            causes=[],
        )
        return replace(event, **changes)

    def now_us(self) -> int:
        """Its own clock."""
        return 1000 * clock.now_ms() - CLOCK.offset_us

    def envelope(self, *events: Event, **changes: Any) -> Envelope:
        """A signed report."""
        self.sequence += 1
        report = Report(self.tenant, self.agent_id, self.sequence, self.now_us(), CLOCK, list(events))
        return replace(report, **changes).sealed_by(self)

    def report(self, *events: Event, **changes: Any) -> None:
        """Reports, and has the cloud take it."""
        self.send(json.dumps(self.envelope(*events, **changes).to_json()))

    def send(self, body: str) -> None:
        """Puts a message into the events queue, and has the cloud take it."""
        wiring.sqs().send_message(QueueUrl=self.identity["events_queue_url"], MessageBody=body)
        pump(self._cloud, "AgentEventsQueue")

    def commands(self) -> list[Command]:
        """Reads its command queue to the end; every message must be signed by the pinned key and be meant for it."""
        pinned = load_pem_public_key(self.identity["signing_public_key"].encode())
        key = pinned.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        queue, before = self.identity["command_queue_url"], len(self.received)
        while (
            messages := wiring.sqs()
            .receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=0)
            .get("Messages")
        ):
            for message in messages:
                told = self._told(Envelope.from_json(json.loads(message["Body"])), key)
                assert (told.tenant, told.agent) == (self.tenant, self.agent_id)
                wiring.sqs().delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return self.received[before:]

    def _told(self, envelope: Envelope, key: bytes) -> Command | Decision | Refresh:
        if envelope.kind == call_decision.KIND:
            self.decided.append(call_decision.verified(envelope, key))
            return self.decided[-1]
        if envelope.kind == call_decision.REFRESH_KIND:
            self.refreshed.append(call_decision.verified_refresh(envelope, key))
            return self.refreshed[-1]
        self.received.append(call_command.verified(envelope, key))
        return self.received[-1]

    def chose(self, call: str, decision: Decision, outcome: Any = "kept") -> DecisionEvent:
        """What it tells of a decision for a call that it keeps."""
        chosen = decision.choice(self.now_us()).chosen
        return DecisionEvent(call, decision.id, chosen.choice, chosen.how, chosen.at_us, chosen.by, outcome)

    def ack(self, command: Command, outcome: Outcome = "acknowledged", **changes: Any) -> AckEvent:
        """What it answers to a command to one of its calls."""
        now_us = self.now_us()
        assert command.call is not None
        effective_us = None if command.effective_at_ms is None else 1000 * command.effective_at_ms - CLOCK.offset_us
        from_us = now_us if effective_us is None else effective_us - 250_000 - CLOCK.uncertainty_us
        ack = AckEvent(
            call=command.call,
            command=command.id,
            number=command.number,
            origin="cloud",
            action=command.action,
            cause=command.cause,
            outcome=outcome,
            from_us=from_us,
            at_us=now_us,
            received_at_us=now_us,
            silent_from=[SilentFrom(0, 4_294_967_000, now_us), SilentFrom(1, None, now_us)],
            causes=[command.cause] if command.action == "pause" else [],
            by=command.by,
            effective_at_us=effective_us,
        )
        return replace(ack, **changes)

    def obeys(self, outcome: Outcome = "acknowledged", **changes: Any) -> Callable[[], None]:
        """A turn in which it answers every command to a call of its own."""

        def turn() -> None:
            for command in self.commands():
                if command.call is not None:
                    self.report(self.ack(command, outcome, **changes))

        return turn

    def cut(self, command: Command) -> CutEvent:
        """What it reports once its spool is clean."""
        assert command.call is not None
        return CutEvent(command.call, command.id, 0, self.now_us(), ["part-00-000000.dtp"])

    def health(self, live: Sequence[str] = ()) -> HealthEvent:
        """How it is."""
        return HealthEvent(list(live), SpoolState(2, 3_000, 40_000), {"disk": 1}, "0.1.0", 5)


def pump(cloud: LocalCloud, queue: str) -> int:
    """Feeds what is in a queue to its function; says how many messages there were."""
    arn = cloud.stack.created[queue].attributes["Arn"]
    (pumped,) = [one for one in cloud.pumps if one._source.queue_arn == arn]
    count = 0
    while taken := pumped.pump_once():
        count += taken
    return count


def waiting(cloud: LocalCloud, queue: str) -> list[dict[str, Any]]:
    """Takes all messages out of a queue that nobody feeds to anything in these tests."""
    url, found = cloud.stack.ref(queue), []
    while messages := wiring.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            wiring.sqs().delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found
