"""Calls that live while the agent is fuzzed: set up over UDP, spoken on all the time, ended at last."""

from __future__ import annotations

import collections
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import message
from sbc_agent.protocol.message import Response
from tests.agent.media.packets import packet, speech
from tests.agent.media.sealed_call import open_call
from tests.agent.protocol.builders import Src

PACKET_S = 0.02
PATIENCE_S = 20.0
_PORT = re.compile(rb"m=audio (\d+)")


@dataclass
class LiveCalls:
    """The calls, and how many packets each stream of theirs was sent.

    Attributes:
        target: The agent's UDP address.
        count: How many calls.
    """

    target: tuple[str, int]
    count: int
    sent: int = 0
    _ports: list[int] = field(default_factory=list)
    _src: list[Src] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Sets the calls up and begins to speak."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.2", 0))
        self._socket.settimeout(PATIENCE_S)
        for number in range(self.count):
            src = Src(call_id=f"live-{number}")
            answer = self._ask(src.invite())
            assert answer.status == 200, answer
            src.to_tag = addresses.parse(answer.required("to")).tag
            self._socket.sendto(self._local(src.request("ACK")), self.target)
            self._ports += [int(port) for port in _PORT.findall(answer.body)]
            self._src.append(src)
        self._stopping = threading.Event()
        self._speaking = threading.Thread(target=self._speak, name="live calls", daemon=True)
        self._speaking.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Falls silent; the sockets close."""
        self._stopping.set()
        self._speaking.join()
        self._socket.close()

    def ping(self) -> float:
        """Asks the agent in the first call whether it is there; returns how long its answer took, in seconds."""
        began = time.monotonic()
        assert self._ask(self._src[0].request("OPTIONS")).status == 200
        return time.monotonic() - began

    def end(self) -> None:
        """Falls silent and ends all calls by BYE: each is still known."""
        self._stopping.set()
        self._speaking.join()
        for src in self._src:
            assert self._ask(src.request("BYE")).status == 200

    def another(self, call_id: str) -> tuple[Response, float]:
        """Offers one more call; returns its answer and how long that took, in seconds."""
        began = time.monotonic()
        return self._ask(Src(call_id=call_id).invite()), time.monotonic() - began

    def unsealed(self, spool: Path) -> tuple[int, int]:
        """How many packets the calls were sent, and how many of them their unsealed records do not have."""
        lost, wanted = 0, collections.Counter(number & 0xFFFF for number in range(self.sent))
        directories = sorted(spool.glob("0*"))[: self.count]  # they began before all others
        assert len(directories) == self.count, "a live call is not in the spool"
        for directory in directories:
            opened = open_call(directory)
            assert b"Call-ID: live-" in opened.signalling[0][2]
            lost += sum((wanted - collections.Counter(opened.sequences(stream))).total() for stream in range(2))
        return 2 * self.count * self.sent, lost

    def _ask(self, data: bytes) -> Response:
        """Sends a request of a live call and waits for its answer, passing over what is no answer to it."""
        asked = self._local(data)
        named = {name: message.parse(asked).required(name) for name in ("call-id", "cseq")}
        self._socket.sendto(asked, self.target)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found = message.parse(self._socket.recv(65_535))
            if isinstance(found, Response) and all(found.required(name) == value for name, value in named.items()):
                return found
        raise TimeoutError("a live call got no answer")

    def _local(self, data: bytes) -> bytes:
        return data.replace(b"198.51.100.7:5060", b"127.0.0.2:%d" % self._socket.getsockname()[1])

    def _speak(self) -> None:
        """A packet to every stream every 20 ms, by a clock that does not drift."""
        started = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
            while not self._stopping.wait(max(0.0, started + self.sent * PACKET_S - time.monotonic())):
                for side, port in enumerate(self._ports):
                    media.sendto(packet(self.sent, speech(side, self.sent), ssrc=side + 1), ("127.0.0.1", port))
                self.sent += 1
