"""The agent's cost per RTP packet: receive, hold back, seal, spool, upload; beside a plain asyncio receiver.

The agent is the real media process and the real uplink; a generator, and a sink that stands for S3, are processes of
their own and are not counted. CPU is what the kernel accounts to the agent's processes in a window of the steady state:
once every call has closed a part of a minute, packets come in, leave, are sealed, spooled and uploaded at one rate.
What calls cost to begin and to end is stated per call. After the window, with all calls still running, single calls are
paused: from the command's leaving the SIP process to the answer that the ring is silent. What was lost is counted in
the spool, opened, by sequence numbers; what the pauses silenced is none of it.

    python -m tests.bench.engine --calls 1000 --seconds 30 --json
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sbc_agent.media.messages import KEY_BYTES
from tests.bench import peer_rtpengine, unsealed
from tests.bench.engine_agent import TENANT
from tests.bench.engine_generator import PACKET_BYTES

PEER_SECONDS = 8  # the peers' cost per packet does not change with time
WARM_UP_SECONDS = 64  # a part, and some
PAUSE_SECONDS = 20  # for the pauses


class Program:
    """A part of the benchmark in its own process, spoken to in lines of JSON."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def say(self, value: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a program of the benchmark ended with status {self.process.wait()}")
        return json.loads(line)


@contextmanager
def program(name: str) -> Iterator[Program]:
    one = Program(name)
    try:
        yield one
    finally:
        one.process.terminate()
        one.process.communicate()


def cpu_s(pid: int) -> float:
    """User and system time of a process, all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU of the agent's two processes so far, packets in the ring so far, and when that was."""

    runtime_s: float
    media_s: float
    packets: int
    at_s: float

    @property
    def total_s(self) -> float:
        return self.runtime_s + self.media_s


def usage(pids: list[int], packets: int) -> Usage:
    return Usage(cpu_s(pids[0]), cpu_s(pids[1]), packets, time.monotonic())


def pss_kb(pid: int) -> int | None:
    """Proportional set size, where the system lets us read it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def spelled(key: rsa.RSAPublicKey) -> str:
    """A public key as the programs are told it: base64 of SubjectPublicKeyInfo."""
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode("ascii")


def socket_buffers_bytes() -> int:
    """What UDP sockets hold at this moment, of the whole machine: `mem` of sockstat counts pages."""
    line = next(one for one in Path("/proc/net/sockstat").read_text().splitlines() if one.startswith("UDP:"))
    words = line.split()
    return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_per_call(pids: list[int], calls: int, empty_buffers: int) -> int | None:
    """PSS of the agent's processes, and the most that its sockets hold within a tick, by call."""
    sizes_kb = [pss_kb(pid) for pid in pids]
    buffers = 0
    for _ in range(40):
        buffers = max(buffers, socket_buffers_bytes())
        time.sleep(0.005)
    return None if None in sizes_kb else round((1024 * sum(filter(None, sizes_kb)) + buffers - empty_buffers) / calls)


def measure_agent(calls: int, seconds: float, warm_up: float, *, srtp: bytes = b"") -> dict[str, Any]:
    """Runs calls through the agent; as SRTP under this master key if there is one."""
    with tempfile.TemporaryDirectory(prefix="dualtone-bench-") as directory, program("engine_sink") as sink:
        key = Path(directory, "agent.key")
        key.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        url = f"http://127.0.0.1:{sink.hear()}"
        spool, ingest_key = Path(directory, "spool"), rsa.generate_private_key(65537, 4096)
        with program("engine_agent") as agent, program("engine_generator") as generator:
            agent.say(
                {
                    "calls": calls,
                    "spool": str(spool),
                    "ingest_key": spelled(ingest_key.public_key()),
                    "key": str(key),
                    "sink": url,
                    "srtp": srtp.hex(),
                }
            )
            ready = agent.hear()
            empty_buffers = socket_buffers_bytes()
            steps = [usage(ready["pids"], 0)]
            agent.say("begin")
            steps.append(usage(ready["pids"], agent.hear()["stored"]))
            generator.say({"ports": ready["ports"], "seconds": warm_up + seconds + PAUSE_SECONDS, "srtp": srtp.hex()})
            for pause in (warm_up, seconds - 1):
                time.sleep(pause)
                agent.say("count")
                steps.append(usage(ready["pids"], agent.hear()["stored"]))
            each_bytes = bytes_per_call(ready["pids"], calls, empty_buffers)
            memory_kb = pss_kb(ready["pids"][1])
            agent.say("pause")
            pauses_ms = agent.hear()
            sent = generator.hear()
            steps.append(usage(ready["pids"], 0))
            agent.say("end")
            ended = agent.hear()
            steps.append(usage(ready["pids"], ended["counters"]["stored"]))
            agent.say("exit")
            agent.process.wait(30)
        spooled = unsealed.packets(spool, TENANT, ingest_key)
    idle, begun, warm, measured, sent_all, finished = steps
    counters, packets = ended["counters"], measured.packets - warm.packets
    runtime_s, media_s = measured.runtime_s - warm.runtime_s, measured.media_s - warm.media_s
    setting_up_s = begun.total_s - idle.total_s + finished.total_s - sent_all.total_s
    return {
        "us_per_packet": round(1e6 * (runtime_s + media_s) / packets, 3),
        "us_per_packet_media": round(1e6 * media_s / packets, 3),
        "us_per_packet_uplink": round(1e6 * runtime_s / packets, 3),
        "us_per_packet_whole_run": round(1e6 * (finished.total_s - begun.total_s) / counters["stored"], 3),
        "cpu_ms_per_call_set_up_and_end": round(1e3 * setting_up_s / calls, 2),
        "packets": sent["sent"],
        "lost_packets": sent["sent"] - spooled - counters["dropped"],
        "silenced_packets": counters["dropped"],
        "pauses": len(pauses_ms),
        "pause_ms_p50": round(statistics.median(pauses_ms), 2),
        "pause_ms_p99": round(sorted(pauses_ms)[len(pauses_ms) * 99 // 100], 2),
        "packets_per_second": round(packets / (measured.at_s - warm.at_s)),
        "generator_late_ms_max": sent["late_ms_max"],
        "media_tick_ms_max": counters["tick_ms_max"],
        "bytes_per_call": each_bytes,
        "media_pss_kb_per_call": None if memory_kb is None else round(memory_kb / calls),
        "uploaded_mb": round(ended["bytes_sent"] / 1e6, 1),
        "uploaded_objects": ended["objects"],
        "calls_not_uploaded": ended["calls_left"],
        "alarms": {name: count for name, count in ended["events"].items() if name.startswith("alarm")},
    }


def measure_asyncio(calls: int, seconds: float) -> dict[str, Any]:
    """The same packets into asyncio."""
    with program("engine_asyncio") as receiver, program("engine_generator") as generator:
        receiver.say({"streams": 2 * calls})
        ports = receiver.hear()["ports"]
        before = cpu_s(receiver.process.pid)
        generator.say({"ports": ports, "seconds": seconds})
        sent = generator.hear()["sent"]
        used_s = cpu_s(receiver.process.pid) - before
        receiver.say("stop")
        received = receiver.hear()["received"]
    return {
        "us_per_packet_asyncio": round(1e6 * used_s / received, 3),
        "lost_packets_asyncio": sent - received,
    }


def measure_rtpengine(calls: int, seconds: float) -> dict[str, Any]:
    """The same packets into rtpengine's record-only mode; null where it is not installed."""
    if not peer_rtpengine.is_installed():
        return {"us_per_packet_rtpengine": None, "lost_packets_rtpengine": None}
    with peer_rtpengine.running() as peer, program("engine_generator") as generator:
        ports = peer.publish(calls)
        before = cpu_s(peer.pid)
        generator.say({"ports": ports, "seconds": seconds})
        sent = generator.hear()["sent"]
        used_s = cpu_s(peer.pid) - before
        peer.end(calls)
        recorded = peer.recorded(PACKET_BYTES)
    return {
        "us_per_packet_rtpengine": round(1e6 * used_s / recorded, 3),
        "lost_packets_rtpengine": sent - recorded,
    }


def run(calls: int = 1000, seconds: int = 30, warm_up: int = WARM_UP_SECONDS) -> dict[str, Any]:
    """The agent and its peers, one after the other, with the same generator.

    Args:
        calls: How many at once, two streams each.
        seconds: How long is measured.
        warm_up: How long before that packets already flow.
    """
    result: dict[str, Any] = {"calls": calls, "seconds": seconds, "warm_up_seconds": warm_up}
    result |= measure_agent(calls, seconds, warm_up)
    protected = measure_agent(calls, seconds, warm_up, srtp=os.urandom(KEY_BYTES["AES_CM_128_HMAC_SHA1_80"]))
    result |= {f"{name}_srtp": protected[name] for name in ("us_per_packet", "lost_packets", "bytes_per_call")}
    result |= measure_asyncio(calls, min(seconds, PEER_SECONDS))
    result |= measure_rtpengine(calls, min(seconds, PEER_SECONDS))
    result["asyncio_ratio"] = round(result["us_per_packet_asyncio"] / result["us_per_packet"], 1)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="calls of two streams each (default: 1000)")
    parser.add_argument("--seconds", type=int, default=30, help="seconds that are measured (default: 30)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP_SECONDS, help="seconds of RTP before that")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    result = run(arguments.calls, arguments.seconds, arguments.warm_up)
    for name, value in result.items():
        print(f"{name:26} {value}")
    if arguments.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
