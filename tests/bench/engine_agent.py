"""The agent without SIP, in a process of its own: the real media process under it, the real uplink in its threads.

Standard input: one JSON line {"calls": n, "spool": path, "key": path, "sink": url, "ingest_key": base64 of its
SubjectPublicKeyInfo, "srtp": hex of a master key and salt, or ""}, then a line for each step. Standard output, a JSON
line each: {"ports", "pids"} when it is ready; the engine's counters after "begin" and each "count"; the milliseconds of
each pause after "pause"; and {"counters", "events", ...} when, after "end", every call is ended, sealed, and uploaded.
"exit" ends it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import botocore.session

from dualtone.domain import ids
from dualtone.domain.ids import CallId
from sbc_agent.media.client import MediaClient
from sbc_agent.media.messages import (
    Alarm,
    CryptoSpec,
    Event,
    Finished,
    FormatSpec,
    IngestKeySettings,
    MediaSettings,
    PartClosed,
    Pause,
    PauseApplied,
    Resume,
    StreamSpec,
)
from sbc_agent.runtime.ingest_bucket import IngestBucket, s3_client
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.spool import Spool
from sbc_agent.runtime.uplink import Uplink

TENANT = "bench"
PCMA = (FormatSpec(payload_type=8, codec="PCMA", clock_hz=8000),)
THREADS = 4
PAUSES = 300
BACK_DATED_US = 3_000_000  # inside the hold-back of five seconds


def settings(order: dict[str, object], calls: int) -> MediaSettings:
    return MediaSettings(
        tenant=TENANT,
        agent="agt_01HZX3Q8W0ABCDEFGHJKMNPQRS",
        agent_key_path=Path(str(order["key"])),
        spool_dir=Path(str(order["spool"])),
        address="127.0.0.1",
        port_first=10_000,
        port_last=30_000,
        pool_size=2 * calls,
        ingest_key=IngestKeySettings(
            key_arn="arn:aws:kms:eu-west-1:123456789012:key/0",
            public_key_der=base64.b64decode(str(order["ingest_key"])),
        ),
        version="0.1.0",
        log_level="error",
    )


async def step() -> str:
    return str(json.loads(await asyncio.to_thread(sys.stdin.readline)))


async def pause_calls(client: MediaClient, calls: list[str]) -> list[float]:
    """Pauses one call after another at moments that have nothing to do with the ticks, and resumes it.

    Returns:
        Milliseconds from sending each pause to hearing that its call is silent, and that a crash would not forget it.
    """
    dice, answered = random.Random(1), asyncio.Queue[PauseApplied]()
    client.subscribe(lambda event: answered.put_nowait(event) if isinstance(event, PauseApplied) else None)
    took_ms = []
    for number in range(PAUSES):
        call = calls[dice.randrange(len(calls))]
        common = {"call": call, "cause": "payment", "origin": "lan", "command": call, "by": "bench"}
        await asyncio.sleep(dice.uniform(0.01, 0.05))
        sent_ns, now_us = time.monotonic_ns(), client.clock.now_us()
        from_us = now_us - dice.randrange(BACK_DATED_US)
        client.pause(
            Pause(at_us=now_us, from_us=from_us, effective_at_us=from_us, lease_us=0, number=2 * number, **common)
        )
        answer = await answered.get()
        took_ms.append((time.monotonic_ns() - sent_ns) / 1e6)
        assert answer.outcome == "acknowledged", answer.outcome
        client.resume(Resume(at_us=client.clock.now_us(), number=2 * number + 1, **common))
        await answered.get()
    return took_ms


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    session = botocore.session.get_session()
    session.set_credentials("bench", "bench")
    session.set_config_variable("region", "eu-west-1")
    log = Log(level="error")
    store = IngestBucket(s3_client(session, threads=THREADS, endpoint_url=str(order["sink"])), "ingest", "bench/agent/")
    uplink = Uplink(spool=Spool(Path(str(order["spool"]))), store=store, log=log, threads=THREADS)
    counts: Counter[str] = Counter()
    all_finished = asyncio.Event()

    def heard(event: Event) -> None:
        if isinstance(event, PartClosed | Finished):
            uplink.notify(CallId(event.call))
        counts[event.event + (f":{event.kind}" if isinstance(event, Alarm) else "")] += 1
        if counts["finished"] == int(order["calls"]):
            all_finished.set()

    client = MediaClient.spawn(settings(order, int(order["calls"])))
    client.subscribe(heard)
    ports = await client.ready()
    uplink.start()
    print(json.dumps({"ports": ports, "pids": [os.getpid(), client.pid]}), flush=True)
    await step()
    now_us = client.clock.now_us()
    calls = [ids.ulid(now_us // 1000, index.to_bytes(10, "big")) for index in range(int(order["calls"]))]
    srtp = bytes.fromhex(str(order["srtp"]))
    crypto = (CryptoSpec(tag=1, suite="AES_CM_128_HMAC_SHA1_80", key=srtp),) if srtp else ()
    for index, call in enumerate(calls):
        sides = [
            StreamSpec(stream=side, label=str(side), port=ports[2 * index + side], formats=PCMA, crypto=crypto)
            for side in range(2)
        ]
        client.begin(call, client.clock.now_us(), sides)
    print((await client.stats()).model_dump_json(), flush=True)
    while (what := await step()) in {"count", "pause"}:
        if what == "count":
            print((await client.stats()).model_dump_json(), flush=True)
        else:
            print(json.dumps(await pause_calls(client, calls)), flush=True)
    for call in calls:
        client.end(call, client.clock.now_us(), "bye")
    await all_finished.wait()
    left = await asyncio.to_thread(uplink.drain, 120.0)
    state = uplink.state()
    counters = (await client.stats()).model_dump()
    print(
        json.dumps(
            {
                "counters": counters,
                "events": counts,
                "calls_left": left,
                "bytes_sent": state.bytes_sent,
                "objects": state.objects_sent,
            }
        ),
        flush=True,
    )
    await step()  # its CPU is read before it goes
    client.drain(flush=True)
    await client.closed()
    uplink.close()


if __name__ == "__main__":
    asyncio.run(main())
