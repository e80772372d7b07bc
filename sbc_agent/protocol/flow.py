"""Where octets came from and how the way back is named. Pure; standard: RFC 3261 section 18, RFC 5626 section 1.1."""

from dataclasses import dataclass
from typing import Literal

HostPort = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Flow:
    """A pair of transport addresses; on a stream, one connection of its own number.

    Attributes:
        transport: `udp`, or a stream: `tcp`, `tls`.
        remote: IP address and port of the peer.
        local: IP address and port of ours that the peer reached.
        connection: the shell's number of the connection; 0 for datagrams.
    """

    transport: Literal["udp", "tcp", "tls"]
    remote: HostPort
    local: HostPort
    connection: int = 0

    @property
    def reliable(self) -> bool:
        """Whether the transport delivers by itself, so that timers need not repeat messages."""
        return self.transport != "udp"
