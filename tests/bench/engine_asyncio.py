"""The peer that the engine is compared with: asyncio's DatagramProtocol, header parsed per packet; its own process.

Standard input: {"streams": n}, then "stop". Standard output: {"ports": [...]}, then {"received": n}.
"""

from __future__ import annotations

import asyncio
import json
import resource
import struct
import sys

HEADER = struct.Struct(">BBHII")


class Receiver(asyncio.DatagramProtocol):
    """One stream."""

    def __init__(self) -> None:
        self.packets: list[int] = [0]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Parses and counts."""
        first, _payload_type, _sequence, _timestamp, _ssrc = HEADER.unpack_from(data)
        if first >> 6 == 2 and addr:
            self.packets[0] += 1


async def main() -> None:
    """Receives until told to stop."""
    loop = asyncio.get_running_loop()
    streams = json.loads(sys.stdin.readline())["streams"]
    receivers = [await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0)) for _ in range(streams)]
    ports = [transport.get_extra_info("sockname")[1] for transport, _ in receivers]
    print(json.dumps({"ports": ports}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps({"received": sum(protocol.packets[0] for _, protocol in receivers)}), flush=True)
    for transport, _ in receivers:
        transport.close()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
