"""What happens to each function: the world before its event, the event, and what comes after all deliveries of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pytest
from moto import mock_aws

from dualtone.adapters import clock, wiring
from dualtone.domain import call_files
from dualtone.domain.agent_events import AckEvent, CallEvent, CutEvent, HealthEvent, LeaseEvent, Report, SpoolState
from dualtone.domain.ids import CallId
from functions.cut_paused_spans.handler import handler as cut
from functions.finalize_recording.handler import handler as finalize
from functions.ingest_agent_events.handler import handler as ingest
from functions.reconcile_recordings.handler import handler as reconcile
from functions.sweep_calls.handler import handler as sweep
from infra.local.moto_fixes import mended
from tests.adapters.finalize.cloud import CREDENTIALS, Cloud, FakeClock, made_cloud
from tests.adapters.finalize.pauses import command, tell
from tests.adapters.finalize.test_handlers import NO_CONTEXT, arrived, message
from tests.adapters.survival.wire import Killed, Where, Wire, kill, wired
from tests.call_samples import AGENT, CALL, TENANT, Upload, blocks, packets, speech
from tests.pause_samples import at, command_id

PREFIX: Final = call_files.ingest_prefix(TENANT, AGENT, CALL)
OPENING: Final = PREFIX + call_files.opening_name(0)
MANIFEST: Final = PREFIX + call_files.MANIFEST_NAME
MOST_DELIVERIES: Final = 5


@dataclass
class World:
    """A cloud, its clock, and the wire between the functions and it."""

    cloud: Cloud
    time: FakeClock
    wire: Wire

    def receive(self, *, without: tuple[str, ...] = ()) -> Upload:
        """Two seconds of a call arrive, in two parts."""
        said = speech("alice")[:16_000]
        sent = self.cloud.seal(blocks([*packets(said), *packets(said, stream=1, ssrc=2)]), part_seconds=1)
        self.cloud.receive(sent, without=without, at_ms=self.time.now_ms)
        return sent


@dataclass(frozen=True)
class Scenario:
    """One function and one event.

    Attributes:
        prepare: Makes the world before the event.
        event: What the function is called with; it may come again.
        function: The handler.
        settle: Lets the time go by after which nothing of it is under way.
    """

    prepare: Callable[[World], None]
    event: Callable[[World], Any]
    function: Callable[[Any, Any], Any]
    settle: Callable[[World], None]

    def deliver(self, world: World) -> bool:
        """One delivery; False if the event must come again."""
        answer = self.function(self.event(world), NO_CONTEXT)
        return not answer.get("batchItemFailures") and not answer.get("failed")

    def deliver_until_done(self, world: World) -> None:
        """Deliveries as the queue makes them."""
        for _ in range(MOST_DELIVERIES):
            if self.deliver(world):
                return
        raise AssertionError("the event would end among the dead letters")


def in_queue(body: Any) -> dict[str, Any]:
    """An event of a queue with one message."""
    return {"Records": [message("00000000-0000-0000-0000-000000000001", body)]}


def settled(world: World) -> None:
    """The reconciler runs when no finaliser can be at work any more, and when nothing can come any more."""
    for minutes in (21, 90):
        world.time.pass_by(minutes=minutes)
        assert reconcile({}, NO_CONTEXT)["failed"] == 0


def _whole(world: World) -> None:
    world.receive()


def _silent(world: World) -> None:
    world.receive(without=(MANIFEST,))


def _late(world: World) -> None:
    """A first generation was made without a manifest, and the manifest arrives."""
    sent = world.receive(without=(MANIFEST,))
    answer = finalize(in_queue({"interrupted": {"key": MANIFEST, "lasted_until_ms": 0}}), NO_CONTEXT)
    assert not answer["batchItemFailures"]
    settled(world)
    world.cloud.receive(sent, without=tuple(set(sent.files) - {MANIFEST}), at_ms=world.time.now_ms)


def _crashed(world: World) -> None:
    """One finaliser died after its object was stored, the next one after its commit."""
    world.receive()
    for last in ("s3:PutObject", "dynamodb:TransactWriteItems"):
        with suppress(Killed), world.wire.watching(last, Where.ANSWER_LOST, kill):
            finalize(in_queue(arrived(MANIFEST)), NO_CONTEXT)
        assert world.wire.reached()
    world.time.pass_by(minutes=21)


def _watched(world: World) -> None:
    """One call is silent for minutes, another for days."""
    wiring.begin_watch(TENANT, AGENT, CALL)
    world.receive(without=(MANIFEST,))
    world.time.pass_by(hours=72)
    other = CallId("01JD0000000000000000000002")
    wiring.begin_watch(TENANT, AGENT, other)
    tell(world.cloud, state="live", call=other)
    world.time.pass_by(minutes=6)


def _paused(world: World) -> None:
    """A pause came too late for a call that is recorded, and lies in the ingest bucket again."""
    sent = world.receive()
    assert not finalize(in_queue(arrived(MANIFEST)), NO_CONTEXT)["batchItemFailures"]
    world.cloud.receive(sent, without=(MANIFEST,))
    tell(world.cloud, command(0.5, 1.2, agent_clean_at_ms=1))


def _report(world: World) -> dict[str, Any]:
    """An agent tells of a call, of a pause that came too late, and of itself."""
    call = CallEvent(CALL, 1, "live", at(0), None, ["a" * 32, "b" * 32], base64.b64encode(b"sealed").decode(), [])
    ack = AckEvent(
        call=CALL,
        command=command_id(1),
        number=1,
        origin="lan",
        action="pause",
        cause="payment",
        outcome="too_late",
        from_us=at(1),
        at_us=at(2),
        received_at_us=at(2),
        silent_from=[],
        causes=["payment"],
        by="lan:agent",
        effective_at_us=at(1),
        lease_s=900,
    )
    cut_event = CutEvent(CALL, command_id(1), at(1), at(2), ["part-00-000000.dtp"])
    lease = LeaseEvent(CALL, "payment", "silent", at(3))
    health = HealthEvent([CALL], SpoolState(1, 2, 3), {}, "test", 0)
    report = Report(TENANT, AGENT, 7, at(3), None, [call, ack, cut_event, lease, health])
    envelope = report.sealed_by(world.cloud.agent_key)
    return in_queue(envelope.to_json())


def _nothing(_: World) -> None:
    """Nothing comes after."""


SCENARIOS: Final[dict[str, Scenario]] = {
    "finalize: an opening": Scenario(_whole, lambda _: in_queue(arrived(OPENING)), finalize, _nothing),
    "finalize: a manifest": Scenario(_whole, lambda _: in_queue(arrived(MANIFEST)), finalize, settled),
    "finalize: a silent call": Scenario(
        _silent, lambda _: in_queue({"interrupted": {"key": MANIFEST, "lasted_until_ms": 0}}), finalize, settled
    ),
    "finalize: a manifest after all": Scenario(_late, lambda _: in_queue(arrived(MANIFEST)), finalize, settled),
    "reconcile: what two crashes left": Scenario(_crashed, lambda _: {}, reconcile, settled),
    "sweep: two silent calls": Scenario(_watched, lambda _: {}, sweep, _nothing),
    "cut: a pause that came too late": Scenario(
        _paused, lambda _: in_queue({"tenant": TENANT, "call": CALL}), cut, _nothing
    ),
    "agents: a report": Scenario(_nothing, _report, ingest, _nothing),
}


@contextmanager
def world() -> Iterator[World]:
    """A fresh cloud, with a wire to it and a clock that stands still."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(), mended():
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with wired() as wire:
            cloud, time = made_cloud(), FakeClock()
            for name, value in cloud.environment().items():
                patch.setenv(name, value)
            patch.setattr(clock, "now_ms", time)
            yield World(cloud, time, wire)
