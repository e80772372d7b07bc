"""The uplink is down for an hour while calls come and go: then everything arrives once, oldest first.

Engine, spool and uplink are the real ones, driven by one fake clock; what arrives are recorded datagrams. What the
spool holds is opened with the cloud's key and counted by sequence numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dualtone.domain import ids
from dualtone.domain.errors import Unavailable
from dualtone.domain.ids import CallId
from sbc_agent.media import messages
from sbc_agent.media.clock import Moment
from sbc_agent.media.disk import Disk
from sbc_agent.media.engine import Engine
from sbc_agent.media.engine_settings import EngineSettings
from sbc_agent.media.messages import Alarm, Event, Finished, FormatSpec, PartClosed, StreamSpec
from sbc_agent.media.recovery import Recovery
from sbc_agent.media.seal import AgentKey, IngestKey
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink
from tests.agent.media.sealed_call import AGENT, KEY_ARN, TENANT, agent_key, ingest_key, open_call
from tests.agent.recorded import RecordedPorts, recording
from tests.agent.runtime.spooled import Lines

START_US = 1_700_000_000_000_000
TICK_US = 100_000
HOLD_BACK_S = 5
CALL_S = 240
BACK_WITHIN_S = 310  # the uplink tries again after five minutes at the latest
PCMA = (FormatSpec(payload_type=8, codec="PCMA", clock_hz=8_000),)


class Cloud:
    """Takes objects as the ingest bucket does, while the link is up; keeps digests only."""

    def __init__(self) -> None:
        self.is_up = False
        self.refused = 0
        self.objects: dict[str, bytes] = {}
        self.order: list[CallId] = []

    def put(self, key: str, body: bytes, sha256: bytes) -> str:
        if not self.is_up:
            self.refused += 1
            raise Unavailable("the link is down")
        assert hashlib.sha256(body).digest() == sha256
        assert key not in self.objects, "put twice"
        self.objects[key] = sha256
        self.order.append(CallId(key.partition("/")[0]))
        return "stored"


@dataclass
class Live:
    """A call that lasts."""

    call: CallId
    slot: int
    lines: tuple[int, int]
    ends_us: int


@dataclass
class Site:
    """An agent without SIP: so many calls at once, each followed by the next."""

    directory: Path
    calls: int
    now_us: int = START_US
    events: list[Event] = field(default_factory=list)
    came: dict[CallId, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spool_dir = self.directory / "spool"
        self.cloud, self.lines, self._lives, self._number = Cloud(), Lines(), dict[int, Live](), 0
        self._turns, self._ending = [0] * self.calls, False
        self.ports = RecordedPorts(4 * self.calls, recording())  # those of the last call rest
        failures: list[BaseException] = []
        self.disk = Disk(failures.append)
        signer = AgentKey(AGENT, agent_key())
        self.engine = Engine(
            EngineSettings(TENANT, AGENT, "0.1.0", self.spool_dir, HOLD_BACK_S * 1_000_000, TICK_US, 60_000_000),
            receiver=self.ports,
            sockets=self.ports.by_port,
            signer=signer,
            ingest=IngestKey(KEY_ARN, ingest_key().public_key()),
            disk=self.disk,
            recovery=Recovery(self.spool_dir, TENANT, AGENT, "0.1.0", signer, 0),
            next_opening=iter(range(1 << 30)).__next__,
            randomness=lambda count: hashlib.shake_256(str(self._number).encode()).digest(count),
            moment=Moment(self.now_us, 0),
        )
        self.uplink = Uplink(
            spool=Spool(self.spool_dir),
            store=self.cloud,
            log=self.lines.log,
            clock=lambda: self.now_us / 1_000_000,
            random=lambda: 0.5,
        )

    def run(self, seconds: int) -> None:
        """Lets time pass: calls come and go, and the uplink does what it would do in that time."""
        for tick in range(seconds * 10):
            if tick % 10 == 0:
                self._calls_of_this_second()
                self.uplink.scan()
            self.now_us += TICK_US
            self.ports.now_us = self.now_us
            self.engine.tick(Moment(self.now_us, 0))
            self._hear()
            while self.uplink.send_next():
                pass

    def finish(self) -> None:
        """Ends every call and sends what is left."""
        self._ending = True
        for live in list(self._lives.values()):
            self._end(live)
        self.engine.handle(messages.Drain(), Moment(self.now_us, 0))
        while not self.engine.is_drained:
            self.run(1)
        self.run(60)

    def _calls_of_this_second(self) -> None:
        for live in [live for live in self._lives.values() if live.ends_us <= self.now_us]:
            self._end(live)
        if not self._ending:
            for slot in set(range(self.calls)) - set(self._lives):
                self._begin(slot)

    def _begin(self, slot: int) -> None:
        self._number += 1
        call = CallId(ids.ulid(self.now_us // 1_000, self._number.to_bytes(10, "big")))
        first = 4 * slot + 2 * (self._turns[slot] % 2)
        self._turns[slot] += 1
        lines = (first, first + 1)
        streams = tuple(
            StreamSpec(stream=side, label=str(side), port=20_000 + 2 * line, formats=PCMA)
            for side, line in enumerate(lines)
        )
        self.engine.handle(messages.Begin(call=call, at_us=self.now_us, streams=streams), Moment(self.now_us, 0))
        for line in lines:
            self.ports.play(line, self.now_us + 3_000 + 100 * line)
        first_round_s = 1 + slot * CALL_S // self.calls if self._number <= self.calls else CALL_S
        self._lives[slot] = Live(call, slot, lines, self.now_us + first_round_s * 1_000_000)

    def _end(self, live: Live) -> None:
        self.came[live.call] = (self.ports.stop(live.lines[0]), self.ports.stop(live.lines[1]))
        self.engine.handle(messages.End(call=live.call, at_us=self.now_us, reason="bye"), Moment(self.now_us, 0))
        del self._lives[live.slot]

    def _hear(self) -> None:
        for event in self.engine.events():
            if isinstance(event, PartClosed | Finished):
                self.uplink.notify(CallId(event.call))
            self.events.append(event)


@pytest.fixture(
    params=[
        pytest.param((6, 300), id="6 calls, 5 minutes"),
        pytest.param((100, 3_600), id="100 calls, an hour", marks=pytest.mark.long),
    ]
)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, int]]:
    calls, seconds = request.param
    made = Site(tmp_path, calls)
    yield made, seconds
    made.uplink.close()
    made.disk.close()


def test_after_an_outage_everything_arrives_once_and_oldest_first(site: tuple[Site, int]) -> None:
    """And calls that are running meanwhile lose nothing."""
    made, seconds = site
    made.run(seconds)
    assert made.cloud.objects == {}
    assert 0 < made.cloud.refused < seconds, "it tries, and not every second"
    backlog = sorted(path.name for path in made.spool_dir.iterdir() if (path / "manifest.json").exists())
    assert len(backlog) >= made.calls

    made.cloud.is_up = True
    made.run(BACK_WITHIN_S)
    arrived = [call for call in made.cloud.order if call in set(backlog)]
    assert arrived == sorted(arrived)
    assert sorted(set(arrived)) == backlog
    made.finish()

    spooled = {
        str(path.relative_to(made.spool_dir)): hashlib.sha256(path.read_bytes()).digest()
        for path in made.spool_dir.glob("*/*")
        if path.suffix in {".dtp", ".json"} and path.name != "state.json"
    }
    assert made.cloud.objects == spooled
    assert not [event for event in made.events if isinstance(event, Alarm)]
    for call, came in made.came.items():
        opened = open_call(made.spool_dir / call)
        for stream in range(2):
            numbers = np.array(opened.sequences(stream))
            assert numbers.size == came[stream], "lost or doubled"
            assert (np.diff(numbers) % 0x10000 == 1).all()
