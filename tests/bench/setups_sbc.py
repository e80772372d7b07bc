"""An SBC that sets calls up at a fixed rate, in a process of its own: one UDP socket, messages made beforehand.

Standard input: one JSON line {"address": [host, port], "calls": n, "rate": n, "seconds": n}, then "begin". Standard
output: {"ports": [...]} when the first calls run, then what came of the others: how many were answered, refused and not
answered, and how soon, in milliseconds. It repeats nothing: a call without an answer within five seconds is lost.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

from sbc_agent.runtime import src_offer
from sbc_agent.runtime.src_offer import Party

_TO: re.Pattern[bytes] = re.compile(rb"\r\nTo: ([^\r\n]+)")
_CALL_ID: re.Pattern[bytes] = re.compile(rb"\r\nCall-ID: (\d+)@")
_CSEQ: re.Pattern[bytes] = re.compile(rb"\r\nCSeq: \d+ (\w+)")
_PORT: re.Pattern[bytes] = re.compile(rb"\r\nm=audio (\d+)")
_PATIENCE_S = 5.0
_HELD_S = 1.0
_RUNNING_RATE = 100


class Sbc:
    """The calls of one socket."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.connect(target)
        self._socket.setblocking(False)
        self._local = b"127.0.0.1:%d" % self._socket.getsockname()[1]
        self._uri = b"sip:recorder@%s:%d" % (target[0].encode(), target[1])
        self._body = _body()
        self._asked: dict[int, float] = {}
        self._to_end: deque[tuple[float, int, bytes]] = deque()
        self._last = 0
        self.ends = False
        self.answers_ms: list[float] = []
        self.refused = 0
        self.ports: list[int] = []

    @property
    def waiting(self) -> int:
        return len(self._asked)

    @property
    def holding(self) -> int:
        return len(self._to_end)

    def invite(self) -> None:
        self._last += 1
        number = self._last
        body = self._body.replace(b"@NUMBER@", b"%08d" % number)
        head = self._head(b"INVITE", number, 1, b"<%s>" % self._uri) + (
            b"Require: siprec\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
            % (src_offer.CONTENT_TYPE.encode(), len(body))
        )
        self._asked[number] = time.monotonic()
        self._socket.send(head + body)

    def serve(self, until: float) -> None:
        """Reads answers and ends calls until a time."""
        while (left := until - time.monotonic()) > 0:
            due = self._to_end[0][0] - time.monotonic() if self._to_end else left
            readable, _, _ = select.select([self._socket], [], [], max(0.0, min(left, due)))
            if readable:
                for data in self._datagrams():
                    self._take(data)
            while self._to_end and self._to_end[0][0] <= time.monotonic():
                _, number, to = self._to_end.popleft()
                self._socket.send(self._head(b"BYE", number, 2, to) + b"Content-Length: 0\r\n\r\n")

    def _datagrams(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._socket.recv(65_535)
            except BlockingIOError:
                return

    def _take(self, data: bytes) -> None:
        number, method = _CALL_ID.search(data), _CSEQ.search(data)
        if number is None or method is None or method[1] != b"INVITE" or data.startswith(b"SIP/2.0 1"):
            return
        asked = self._asked.pop(int(number[1]), None)
        to = _TO.search(data)
        if asked is None or to is None:
            return
        now = time.monotonic()
        self.answers_ms.append(1000 * (now - asked))
        cseq_branch = 1
        self._socket.send(self._head(b"ACK", int(number[1]), cseq_branch, to[1]) + b"Content-Length: 0\r\n\r\n")
        if not data.startswith(b"SIP/2.0 200"):
            self.refused += 1
        elif self.ends:
            self._to_end.append((now + _HELD_S, int(number[1]), to[1]))
        else:
            self.ports += [int(port) for port in _PORT.findall(data)]

    def _head(self, method: bytes, number: int, cseq: int, to: bytes) -> bytes:
        return (
            b"%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d-%s\r\nMax-Forwards: 70\r\n"
            b"From: <sip:src@%s>;tag=%d\r\nTo: %s\r\nCall-ID: %d@127.0.0.1\r\nCSeq: %d %s\r\n"
            b"Contact: <sip:src@%s>;+sip.src\r\n"
        ) % (method, self._uri, self._local, number, method, self._local, number, to, number, cseq, method, self._local)


def _body() -> bytes:
    parties = [
        Party(
            f"sip:+4420794601{side}@sbc.example",
            f"Side {side}",
            side == 0,
            str(side),
            6_000 + 2 * side,
            f"p{side}",
            f"s{side}",
        )
        for side in range(2)
    ]
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return src_offer.body(
        parties,
        address="127.0.0.1",
        session_id="@NUMBER@",
        sip_session_id="@NUMBER@0123456789abcdef01234567",
        now_iso=now,
        ucid="@NUMBER@AABBCCDD",
    )


def main() -> None:
    order = json.loads(sys.stdin.readline())
    host, port = order["address"]
    sbc = Sbc((str(host), int(port)))
    for _ in range(order["calls"]):
        sbc.invite()
        sbc.serve(time.monotonic() + 1 / _RUNNING_RATE)
    sbc.serve(time.monotonic() + 1)
    print(json.dumps({"ports": sbc.ports}), flush=True)
    sys.stdin.readline()
    sbc.ends, sbc.answers_ms, sbc.refused = True, [], 0
    sbc.serve(time.monotonic() + 1)
    started, late_s = time.monotonic(), 0.0
    for index in range(order["rate"] * order["seconds"]):
        due = started + index / order["rate"]
        sbc.serve(due)
        late_s = max(late_s, time.monotonic() - due)
        sbc.invite()
    until = time.monotonic() + _PATIENCE_S
    while (sbc.waiting or sbc.holding) and time.monotonic() < until:
        sbc.serve(time.monotonic() + 0.05)
    answers = sorted(sbc.answers_ms) or [0.0]
    print(
        json.dumps(
            {
                "answered": len(sbc.answers_ms) - sbc.refused,
                "refused": sbc.refused,
                "lost": sbc.waiting,
                "p50_ms": round(answers[len(answers) // 2], 2),
                "p99_ms": round(answers[len(answers) * 99 // 100], 2),
                "max_ms": round(answers[-1], 2),
                "late_ms": round(1000 * late_s, 1),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
