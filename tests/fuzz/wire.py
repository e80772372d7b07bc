"""Changed messages over the wire, at a running agent with live calls: it never stops and no live call loses a packet.

Messages of captured calls and of vendors' samples are changed as in the other fuzz runs and sent over UDP and TCP to
the agent's real processes. Whatever it answers 200 to an INVITE is acknowledged and hung up, so that whole calls come
and go. Meanwhile live calls are spoken on; at the end their spool is opened with the tenant's key and every packet that
was sent is looked for. Between batches a live call asks whether the agent is there: it reads every message.

    python -m tests.fuzz.wire --messages 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import message
from tests.agent.media.sealed_call import ingest_key, public_der, write_agent_key
from tests.bench.engine import pss_kb
from tests.fuzz.mutators import mutate
from tests.fuzz.targets import messages
from tests.fuzz.wire_calls import LiveCalls

FLOOD_HOST = "127.0.0.3"
STREAMS = 2_400
FIRST_PORT = 10_000
LIVE = 3
BATCH = 100
SAMPLE_EVERY = 5_000
_HEAD = re.compile(rb"\r\n(From|To|Call-ID|CSeq|Via): ([^\r\n]*)", re.IGNORECASE)
_VIA = re.compile(rb"(?i)(\r\n(?:via|v):\s*SIP/2\.0/)\w+ [^;\s,]+")


@dataclass
class Figures:
    """What a run found.

    Attributes:
        messages: Changed messages sent.
        valid: The share of them that is still a SIP message.
        statuses: What was answered, by status.
        seconds: How long it took.
        pss_kb: After so many messages: proportional set size of the SIP and of the media process.
        ping_ms_max: The longest that a live call waited for an answer.
        packets: Packets of the live calls.
        lost_packets: How many of them are not in the unsealed spool.
        calls: How many calls came and went, the live ones among them.
        counters: What the agent counted.
    """

    messages: int
    valid: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    pss_kb: list[tuple[int, int, int]] = field(default_factory=list)
    ping_ms_max: float = 0.0
    packets: int = 0
    lost_packets: int = 0
    calls: int = 0
    counters: dict[str, Any] = field(default_factory=dict)


class Flood:
    """Sends changed messages, and plays on with what the agent answers.

    Args:
        udp: The agent's UDP address.
        tcp: Its TCP address.
        seed: Of the changes.
    """

    def __init__(self, udp: tuple[str, int], tcp: tuple[str, int], seed: int) -> None:
        self.statuses: collections.Counter[str] = collections.Counter()
        self.valid = 0
        self._draw = random.Random(seed)
        self._udp_target, self._tcp_target = udp, tcp
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((FLOOD_HOST, 0))
        self._udp.setblocking(False)
        port = self._udp.getsockname()[1]
        self._seeds = [_VIA.sub(rb"\1UDP %s:%d" % (FLOOD_HOST.encode(), port), data) for data in messages()]
        self._tcp: socket.socket | None = None

    def send(self, number: int) -> None:
        """Sends one message, every tenth over TCP; answers to it are read later."""
        data = mutate(self._fresh(number), self._draw)
        with contextlib.suppress(MalformedInput):
            message.parse(data)
            self.valid += 1
        if number % 10 == 0:
            self._stream(data)
            return
        with contextlib.suppress(OSError):  # longer than a datagram can be
            self._udp.sendto(data[:65_507], self._udp_target)

    def read(self) -> None:
        """Reads what came, and acknowledges and ends the calls that were answered."""
        while True:
            try:
                data = self._udp.recv(65_535)
            except BlockingIOError:
                return
            if not data.startswith(b"SIP/2.0 "):
                continue  # a probe or a BYE of the agent's: a peer that does not answer
            self.statuses[data[8:11].decode("ascii", "replace")] += 1
            head = {name.lower(): value for name, value in reversed(_HEAD.findall(data.partition(b"\r\n\r\n")[0]))}
            if data.startswith(b"SIP/2.0 200") and head.get(b"cseq", b"").upper().endswith(b"INVITE"):
                self._hang_up(head)

    def close(self) -> None:
        self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def _fresh(self, number: int) -> bytes:
        """A seed as a call of its own: branch and Call-ID that no earlier message had."""
        seed = self._draw.choice(self._seeds)
        return seed.replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d-" % number).replace(
            b"Call-ID: ", b"Call-ID: %d-" % number, 1
        )

    def _hang_up(self, head: dict[bytes, bytes]) -> None:
        number = int(re.sub(rb"\D.*", b"", head.get(b"cseq", b"")) or 1) % 2**31
        via, port = FLOOD_HOST.encode(), self._udp.getsockname()[1]
        for method, cseq in ((b"ACK", number), (b"BYE", min(number + 1, 2**31 - 1))):
            with contextlib.suppress(OSError):
                lines = (
                    b"%s sip:recorder@127.0.0.1 SIP/2.0" % method,
                    b"Via: SIP/2.0/UDP %s:%d;branch=z9hG4bK%d" % (via, port, self._draw.getrandbits(60)),
                    b"Max-Forwards: 70",
                    *(b"%s: %s" % (name, head.get(name, b"")) for name in (b"from", b"to", b"call-id")),
                    b"CSeq: %d %s" % (cseq, method),
                    b"Content-Length: 0",
                )
                self._udp.sendto(b"\r\n".join(lines) + b"\r\n\r\n", self._udp_target)

    def _stream(self, data: bytes) -> None:
        """The same over TCP: a connection goes on until the agent has had enough of it."""
        try:
            if self._tcp is None:
                self._tcp = socket.create_connection(self._tcp_target, timeout=5, source_address=(FLOOD_HOST, 0))
            self._tcp.sendall(data)
            self._tcp.setblocking(False)
            while self._tcp.recv(65_536):
                pass
            raise ConnectionError("closed by the agent")
        except BlockingIOError:
            assert self._tcp is not None
            self._tcp.settimeout(5)
        except OSError:
            if self._tcp is not None:
                self._tcp.close()
            self._tcp = None


def run(count: int, seed: int) -> Figures:
    """Runs the agent, its live calls and the changed messages.

    Args:
        count: How many messages.
        seed: Of the changes.
    """
    found, started = Figures(count), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dualtone-fuzz-") as name, running_agent(Path(name)) as (agent, ready):
        flood = Flood(tuple(ready["udp"]), tuple(ready["tcp"]), seed)
        with LiveCalls(tuple(ready["udp"]), LIVE) as live:
            for number in range(count):
                flood.send(number)
                if number % BATCH == BATCH - 1:
                    found.ping_ms_max = max(found.ping_ms_max, 1_000 * live.ping())
                    flood.read()
                if number in (count // 5, count - 1) or number % SAMPLE_EVERY == SAMPLE_EVERY - 1:
                    sip_kb, media_kb = (pss_kb(pid) or 0 for pid in ready["pids"])
                    found.pss_kb.append((number, sip_kb, media_kb))
                assert agent.poll() is None, "the agent has ended"
            live.end()
        flood.read()
        flood.close()
        told = stopped(agent)
        found.counters, found.calls = told["counters"], told["finished"]
        found.valid, found.statuses = flood.valid / count, dict(flood.statuses)
        found.packets, found.lost_packets = live.unsealed(Path(name, "spool"))
    found.seconds = time.monotonic() - started
    return found


@contextmanager
def running_agent(
    directory: Path, *, streams: int = STREAMS, live: int = LIVE, first_port: int = FIRST_PORT
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """An agent's processes and what it says when it is ready.

    Args:
        directory: For its spool, journal and log.
        streams: How many it receives at once.
        live: How many calls, the first ones, stay in its spool.
        first_port: From where on it looks for ports.
    """
    key = directory / "agent.key"
    write_agent_key(key)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.wire_agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        ingest = base64.b64encode(public_der(ingest_key())).decode()
        _say(
            process,
            {
                "directory": str(directory),
                "key": str(key),
                "ingest_key": ingest,
                "streams": streams,
                "first_port": first_port,
                "live": live,
            },
        )
        yield process, _hear(process)
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Stops the agent; returns what it counted."""
    _say(process, "stop")
    return _hear(process)


def _say(process: subprocess.Popen[str], value: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the agent ended with {process.wait()}"
    heard: dict[str, Any] = json.loads(line)
    return heard


def main() -> int:
    """Prints what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.wire", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asdict(run(options.messages, options.seed))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
