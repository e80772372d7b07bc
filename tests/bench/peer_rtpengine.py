"""The peer in C: rtpengine, record only (`publish`, so that nothing is forwarded), userspace, one pcap file a call.

What it receives it writes to disk in the clear: no ring, no hold-back, no sealing, no upload. It is told what to do by
its ng protocol: a cookie and a bencoded dictionary in a datagram. Loss is counted in the pcap files themselves.
"""

from __future__ import annotations

import re
import resource
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

COMMAND: Final = "rtpengine"
_PORTS: Final = (31_000, 60_999)  # two a stream and some to spare; above those of the agent's pool
_ANSWER_S: Final = 5.0
_READY_S: Final = 10.0
_MEDIA: Final = re.compile(rb"^m=audio (\d+) ", re.MULTILINE)
_PCAP_FILE_HEAD_BYTES: Final = 24
_PCAP_PACKET_HEAD_BYTES: Final = 16
_IP_AND_UDP_BYTES: Final = 28


def is_installed() -> bool:
    """Whether there is such a program here (Debian: rtpengine-daemon)."""
    return shutil.which(COMMAND) is not None


class Rtpengine:
    """A running one, and how to speak to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, directory: Path) -> None:
        self.pid = process.pid
        self._control = control
        self._directory = directory

    def publish(self, calls: int) -> list[int]:
        """Offers it so many calls of two G.711 streams to record; returns the ports that it answers with."""
        ports: list[int] = []
        for index in range(calls):
            media = "".join(f"m=audio {port} RTP/AVP 8\r\na=sendonly\r\n" for port in (2000, 2002))
            answer = self._ask(
                {
                    "command": "publish",
                    "call-id": f"call-{index}",
                    "from-tag": f"tag-{index}",
                    "sdp": f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{media}",
                }
            )
            found = [int(port) for port in _MEDIA.findall(answer)]
            if len(found) != 2:
                raise RuntimeError("rtpengine did not answer both streams of a call")
            ports += found
            self._ask({"command": "start recording", "call-id": f"call-{index}"})
        return ports

    def recorded(self, packet_bytes: int) -> int:
        """How many RTP packets its files hold, all of one size in bytes."""
        each = _PCAP_PACKET_HEAD_BYTES + _IP_AND_UDP_BYTES + packet_bytes
        sizes = [file.stat().st_size - _PCAP_FILE_HEAD_BYTES for file in self._directory.glob("pcaps/*.pcap")]
        return sum(size // each for size in sizes if size > 0)

    def end(self, calls: int) -> None:
        """Ends the calls: their files are whole when the last one is answered."""
        for index in range(calls):
            self._ask({"command": "delete", "call-id": f"call-{index}", "delete delay": 0})

    def _ask(self, asked: dict[str, str | int]) -> bytes:
        cookie = secrets.token_hex(8).encode()
        self._control.send(cookie + b" " + _bencoded(asked))
        answer = self._control.recv(65_535)
        if not answer.startswith(cookie) or b"6:result5:error" in answer:
            raise RuntimeError("rtpengine refused a command")
        return answer


@contextmanager
def running() -> Iterator[Rtpengine]:
    """Runs one on loopback with a recording directory of its own; both are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="dualtone-bench-") as name,
        socket.socket(type=socket.SOCK_DGRAM) as control,
    ):
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            where = probe.getsockname()
        arguments = [
            *(COMMAND, "--foreground", "--table=-1", "--interface=127.0.0.1", "--log-stderr", "--log-level=2"),
            *(f"--listen-ng=127.0.0.1:{where[1]}", f"--port-min={_PORTS[0]}", f"--port-max={_PORTS[1]}"),
            *("--recording-method=pcap", "--recording-format=raw", f"--recording-dir={name}"),
            f"--pidfile={name}/pid",
        ]
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # four sockets a call
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            control.settimeout(_ANSWER_S)
            control.connect(where)
            one = Rtpengine(process, control, Path(name))
            _wait_for(one, process)
            yield one
        finally:
            process.terminate()
            process.wait()


def _wait_for(one: Rtpengine, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _READY_S
    while True:
        try:
            one._ask({"command": "ping"})
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("rtpengine did not start") from None
            time.sleep(0.05)
        else:
            return


def _bencoded(value: str | int | dict[str, str | int]) -> bytes:
    if isinstance(value, dict):
        return b"d" + b"".join(_bencoded(key) + _bencoded(value[key]) for key in sorted(value)) + b"e"
    if isinstance(value, int):
        return b"i%de" % value
    data = value.encode()
    return b"%d:%s" % (len(data), data)
