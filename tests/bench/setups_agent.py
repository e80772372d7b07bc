"""The agent without a cloud, in a process of its own: SIP, recorder, journal, control channel, media process.

Standard input: one JSON line {"directory": path, "key": path, "ingest_key": base64 of its SubjectPublicKeyInfo,
"streams": n}, then "exit". Standard output: a JSON line {"sip_udp": [host, port], "pids": [SIP, media]} when ready, and
the counters of the wire at the end.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import os
import pstats
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from dualtone.domain.ids import CallId, TenantId
from sbc_agent.media import process_limits
from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import Event
from sbc_agent.runtime import journal
from sbc_agent.runtime.agent_state import STATE_FILE, AgentState
from sbc_agent.runtime.clock_offset import TrueTime
from sbc_agent.runtime.consents import Consents
from sbc_agent.runtime.control import Control
from sbc_agent.runtime.decisions import Decisions
from sbc_agent.runtime.durable import make_private_directory
from sbc_agent.runtime.journal import Journal
from sbc_agent.runtime.live_calls import LiveCalls
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.outbox import Outbox
from sbc_agent.runtime.pending_commands import PendingCommands
from sbc_agent.runtime.sip_shell import SipSettings, SipShell
from tests.bench.engine_agent import settings, step


def nothing_to_cut(_call: CallId, _names: object) -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


@contextmanager
def profiling(path: str | None) -> Iterator[None]:
    """Writes what took the time to a file, if one is named."""
    if path is None:
        yield
        return
    with cProfile.Profile(time.process_time) as profiler:
        yield
    with Path(path).open("w", encoding="utf-8") as out:
        pstats.Stats(profiler, stream=out).sort_stats("tottime").print_stats(60)
        pstats.Stats(profiler, stream=out).sort_stats("cumulative").print_stats(120)


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    process_limits.come_first(process_limits.ANSWERS_SECOND)  # as the agent's own process does
    directory = Path(str(order["directory"]))
    media_order = {"spool": str(directory / "spool"), "key": order["key"], "ingest_key": order["ingest_key"]}
    client = MediaClient.spawn(settings(media_order, int(order["streams"]) // 2))
    await client.ready()
    with (directory / "agent.log").open("w", encoding="utf-8") as stream:
        log = Log(stream=stream)
        make_private_directory(directory / "journal")
        kept = Journal(
            directory / "journal", boot_id=journal.boot_id(), clock_offset_us=client.clock.offset_us, log=log
        )
        state = AgentState(directory / STATE_FILE)
        consents = Consents(state, log, lambda: bytes(32))
        decisions = Decisions(lambda: None, consents, lambda: 0)
        shell = SipShell(
            SipSettings("127.0.0.1", ("127.0.0.1", 0), None), client, log, journal=kept, decisions=decisions
        )
        addresses = await shell.start()
        control = Control(
            tenant=TenantId("bench"),
            clock=client.clock,
            true_time=TrueTime(client.clock),
            media=client,
            calls=LiveCalls(state, log),
            pending=PendingCommands(state, log),
            events=Outbox(state, log),
            live_key=lambda: bytes(32),
            recut=nothing_to_cut,
            log=log,
            chooser=shell.recorder,
            consents=consents,
        )
        shell.recorder.attach(control)

        def heard(event: Event) -> None:
            control.media_event(event)

        client.subscribe(heard)
        print(json.dumps({"sip_udp": addresses.udp, "pids": [os.getpid(), client.pid]}), flush=True)
        gc.collect()
        gc.freeze()
        with profiling(os.environ.get("PROFILE")):
            await step()
        print(json.dumps(shell.counters.to_json()), flush=True)
        await shell.close()
    client.drain(flush=True)
    await client.closed()


if __name__ == "__main__":
    asyncio.run(main())
