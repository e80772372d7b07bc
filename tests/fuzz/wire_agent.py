"""The agent that is fuzzed over the wire, in a process of its own: SIP sockets, recorder, journal, media process.

Standard input: one JSON line {"directory", "key", "ingest_key" (base64), "streams", "first_port", "live"}, then "stop".
Standard output, a JSON line each: {"udp", "tcp", "pids"} when ready; {"counters", "finished"} when all calls are ended,
sealed and on disk. Its limits are out of the way: every message is to be read. All calls but the first, which live, are
freed when they are finished, as the cloud's receipts do.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from pathlib import Path

from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import Event, Finished, IngestKeySettings, MediaSettings
from sbc_agent.protocol.limits import Rate, SipLimits
from sbc_agent.runtime import journal
from sbc_agent.runtime.durable import make_private_directory
from sbc_agent.runtime.journal import Journal
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.sip_shell import SipSettings, SipShell
from tests.agent.media.sealed_call import AGENT, KEY_ARN, TENANT

ANY = ("127.0.0.1", 0)
SPARE = 98  # ports that somebody else may have
PLENTY = Rate(1e9, 1e9)


def settings(order: dict[str, object]) -> MediaSettings:
    return MediaSettings(
        tenant=TENANT,
        agent=AGENT,
        agent_key_path=Path(str(order["key"])),
        spool_dir=Path(str(order["directory"]), "spool"),
        address="127.0.0.1",
        port_first=int(str(order["first_port"])),
        port_last=int(str(order["first_port"])) + 2 * int(str(order["streams"])) + SPARE,
        pool_size=int(str(order["streams"])),
        hold_back_ms=1_000,
        ingest_key=IngestKeySettings(key_arn=KEY_ARN, public_key_der=base64.b64decode(str(order["ingest_key"]))),
        version="0.1.0",
        log_level="error",
    )


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    directory = Path(str(order["directory"]))
    spool = directory / "spool"
    client = MediaClient.spawn(settings(order))
    finished: list[str] = []

    def heard(event: Event) -> None:
        if isinstance(event, Finished):
            finished.append(event.call)
            if event.call not in sorted(path.name for path in spool.glob("0*"))[: order["live"]]:
                shutil.rmtree(spool / event.call)

    client.subscribe(heard)
    await client.ready()
    with (directory / "agent.log").open("w", encoding="utf-8") as stream:
        log = Log(stream=stream)
        make_private_directory(directory / "journal")
        kept = Journal(
            directory / "journal", boot_id=journal.boot_id(), clock_offset_us=client.clock.offset_us, log=log
        )
        limits = SipLimits(PLENTY, PLENTY, PLENTY, PLENTY)
        shell = SipShell(SipSettings("127.0.0.1", ANY, ANY, limits=limits), client, log, journal=kept)
        addresses = await shell.start()
        ready = {"udp": addresses.udp, "tcp": addresses.tcp, "pids": [os.getpid(), client.pid]}
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await shell.drain(grace_s=1.0)
        client.drain()
        await client.closed()
        await shell.close()
        print(json.dumps({"counters": shell.counters.to_json(), "finished": len(finished)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
