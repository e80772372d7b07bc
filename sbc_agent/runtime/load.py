"""What ``dualtone-agent load`` does: very many calls at once against a recorder, to see how many it carries.

Signalling is this process's, one dialog a call (``src_link``); RTP is sent by a process of its own (``rtp_sender``), so
that neither delays the other. It places calls at a rate until all are placed, each of them lasts its time, and it says
how each attempt was answered and how late itself was: a load test is worth what its generator is.
"""

from __future__ import annotations

import asyncio
import base64
import json as encoding
import secrets
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from dualtone.domain.errors import DualtoneError
from sbc_agent.runtime import src_offer, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.src_dialog import Answered, Ended, Refused, TimedOut, Transport
from sbc_agent.runtime.src_link import CallFailed, SrcLink
from sbc_agent.runtime.src_offer import Party

SIDES: Final = 2
_TELL_S: Final = 5.0
_STOP_S: Final = 10.0
_NUMBERS: Final = 10_000
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The command's options; see ``dualtone-agent load --help``.

    Attributes:
        target: The recorder.
        transport: ``udp``, ``tcp`` or ``tls``, for SIP.
        calls: How many calls at once.
        seconds: How long each lasts.
        rate: How many are begun in a second.
        total: How many in all; those beyond ``calls`` begin as others end.
        each: Whether every call is told, not only the sum.
        json: Whether the answer is JSON.
        trust: By what the recorder proves itself on TLS; None trusts the system's authorities.
    """

    target: Endpoint
    transport: Transport
    calls: int
    seconds: float
    rate: float
    total: int
    each: bool = False
    json: bool = False
    trust: ssl.SSLContext | None = None


@dataclass(slots=True)
class Tally:
    """What came of the calls so far.

    Attributes:
        begun: How many INVITEs were sent.
        live: How many calls last now.
        answered_ms: From INVITE to its final answer, of calls that were taken.
        refused_ms: The same of those that were refused.
        refused: How often each status was answered.
        failed: Why others came to nothing.
        packets: Sent in all.
        dropped: Calls that the recorder ended.
    """

    begun: int = 0
    live: int = 0
    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """The sums."""
        every = self.answered_ms + self.refused_ms
        return {
            "calls": self.begun,
            "answered": len(self.answered_ms),
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
            "failed": dict(self.failed),
            "ended_by_recorder": self.dropped,
            "answer_ms_p50": _quantile(every, 50),
            "answer_ms_p99": _quantile(every, 99),
            "answer_ms_max": _quantile(every, 100),
            "packets": self.packets,
        }


class Load:
    """A load test.

    Args:
        plan: What to place.
        say: Prints a line.
    """

    def __init__(self, plan: LoadPlan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._tally = Tally()
        self._rows = set(range(SIDES * plan.calls))
        self._counts: dict[int, asyncio.Future[int]] = {}
        self._sender: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[float] | None = None
        self._ready = asyncio.Event()
        self._target, self._host = plan.target, ""

    async def run(self) -> dict[str, Any]:
        """Places all calls and waits for their end.

        Returns:
            What came of them: the sums of ``Tally``, the rate that was reached, and the generator's own lateness.

        Raises:
            CallFailed: If there is no way to the recorder.
        """
        plan, loop = self._plan, asyncio.get_running_loop()
        self._target = await test_call.resolved(plan.target)
        self._host = _local_host(self._target)
        self._sender = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sbc_agent.runtime.rtp_sender", str(SIDES * plan.calls)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._hearing = asyncio.create_task(self._hear())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({self._hearing, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            raise CallFailed("the sender of RTP did not start") from self._hearing.exception()
        telling = asyncio.create_task(self._tell())
        free = asyncio.Semaphore(plan.calls)
        calls, started, late_s = [], loop.time(), 0.0
        for number in range(plan.total):
            await free.acquire()
            due = started + number / plan.rate
            await asyncio.sleep(max(due - loop.time(), 0))
            late_s = max(late_s, loop.time() - due)
            calls.append(asyncio.create_task(self._call(free)))
        placed_s = loop.time() - started
        await asyncio.gather(*calls)
        telling.cancel()
        self._order({"stop": True})
        late = await asyncio.wait_for(self._hearing, _STOP_S)
        await self._sender.wait()
        return {
            **self._tally.to_json(),
            "setups_per_s": round(plan.total / max(placed_s, 1 / plan.rate), 1),
            "generator_late_ms_max": {"signalling": round(1000 * late_s, 1), "media": late},
        }

    async def _call(self, free: asyncio.Semaphore) -> None:
        self._tally.begun += 1
        try:
            result = await self._place()
        except (CallFailed, OSError) as error:
            self._tally.failed[str(error) if isinstance(error, DualtoneError) else type(error).__name__] += 1
            result = {"ok": False}
        finally:
            free.release()
        if self._plan.each:
            self._say(encoding.dumps(result))

    async def _place(self) -> dict[str, Any]:
        """Places one call; returns what is told of it."""
        plan, loop = self._plan, asyncio.get_running_loop()
        call_id = f"{secrets.token_hex(16)}@{self._host}"
        link = await SrcLink.open(
            self._target, plan.transport, self._host, call_id=call_id, offer=self._offer(), trust=plan.trust
        )
        try:
            started = loop.time()
            link.act(link.dialog.invite)
            event = await link.next_event()
            took_ms = 1000 * (loop.time() - started)
            if isinstance(event, Refused) and event.status not in _SUCCESS:
                self._tally.refused[event.status] += 1
                self._tally.refused_ms.append(took_ms)
                return {"ok": False, "sip_call_id": call_id, "status": event.status}
            if not isinstance(event, Answered):
                raise CallFailed("no answer" if isinstance(event, TimedOut) else "an answer that cannot be used")
            self._tally.answered_ms.append(took_ms)
            packets = await self._talk(link, event)
        finally:
            await link.close()
        self._tally.packets += sum(packets)
        return {"ok": True, "sip_call_id": call_id, "answered_ms": round(took_ms, 1), "packets": packets}

    async def _talk(self, link: SrcLink, answered: Answered) -> list[int]:
        """Sends both sides until the time is over or the recorder hangs up; returns the packets of each side."""
        self._require_sender()
        rows = [self._rows.pop() for _ in answered.streams[:SIDES]]
        self._order(
            {
                "add": [
                    [row, stream.host, stream.port]
                    for row, stream in zip(rows, answered.streams, strict=False)
                    if stream.port
                ]
            }
        )
        self._tally.live += 1
        ended = asyncio.create_task(link.next_event())
        await asyncio.wait([ended], timeout=self._plan.seconds)
        self._tally.live -= 1
        packets = await self._stop(rows)
        if ended.done():
            self._tally.dropped += 1
            await ended  # a lost connection is a failure of the call
        else:
            link.act(link.dialog.bye)
            while not isinstance(await ended, Ended | TimedOut):
                ended = asyncio.create_task(link.next_event())
        return packets

    async def _stop(self, rows: list[int]) -> list[int]:
        self._require_sender()
        counts = [asyncio.get_running_loop().create_future() for _ in rows]
        self._counts |= dict(zip(rows, counts, strict=True))
        self._order({"remove": rows})
        packets = list(await asyncio.gather(*counts))
        self._rows.update(rows)
        return packets

    def _require_sender(self) -> None:
        if self._hearing is None or self._hearing.done():
            raise CallFailed("the sender of RTP ended")

    def _order(self, order: dict[str, Any]) -> None:
        assert self._sender is not None
        assert self._sender.stdin is not None
        self._sender.stdin.write(encoding.dumps(order).encode() + b"\n")

    async def _hear(self) -> float:
        """Takes what the sender says; returns its worst lateness, in milliseconds."""
        assert self._sender is not None
        assert self._sender.stdout is not None
        async for line in self._sender.stdout:
            said = encoding.loads(line)
            if "ready" in said:
                self._ready.set()
            for row, packets in said.get("sent", {}).items():
                self._counts.pop(int(row)).set_result(packets)
            if "late_ms_max" in said:
                return float(said["late_ms_max"])
        for count in self._counts.values():
            count.set_exception(CallFailed("the sender of RTP ended"))
        raise CallFailed("the sender of RTP ended")

    async def _tell(self) -> None:
        """Says now and then how far it is, on standard error."""
        with suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(_TELL_S)
                tally = self._tally
                refused, failed = tally.refused.total(), tally.failed.total()
                sys.stderr.write(f"{tally.live} calls live, {tally.begun} begun, {refused} refused, {failed} failed\n")

    def _offer(self) -> bytes:
        host = self._host
        caller, callee = f"+4420794{secrets.randbelow(_NUMBERS):04d}", f"{2000 + secrets.randbelow(_NUMBERS // 2)}"
        parties = [
            Party(src_offer.address_of_record(number, host), name, calling, label, 9, _uuid(), _uuid())
            for number, name, calling, label in ((caller, "Caller", True, "1"), (callee, "Callee", False, "2"))
        ]
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        session = f"{secrets.token_hex(16)};remote={secrets.token_hex(16)}"
        return src_offer.body(parties, address=host, session_id=_uuid(), sip_session_id=session, now_iso=now)


async def run(plan: LoadPlan, say: Callable[[str], None]) -> bool:
    """Runs a load test and prints what came of it.

    Returns:
        Whether every call was taken and carried to its end.

    Raises:
        CallFailed: If there is no way to the recorder.
    """
    result = await Load(plan, say).run()
    if plan.json:
        say(encoding.dumps(result))
    else:
        for name, value in result.items():
            say(f"{name:22} {value}")
    return bool(result["answered"] == plan.total and not result["ended_by_recorder"] and not result["failed"])


def _local_host(target: Endpoint) -> str:
    """Our address on the way to the recorder."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target.host, target.port))
        except OSError as error:
            raise CallFailed(f"no way to {target}") from error
        return str(probe.getsockname()[0])


def _quantile(values: list[float], percent: int) -> float | None:
    if not values:
        return None
    return round(sorted(values)[min(len(values) * percent // 100, len(values) - 1)], 1)


def _uuid() -> str:
    return base64.b64encode(secrets.token_bytes(16)).decode("ascii")
