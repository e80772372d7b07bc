"""One TLS connection without its socket: octets of the wire in and out, octets of the application in and out.

The event loop's own TLS keeps 256 KiB for each connection and takes one certificate for all its life; here a
connection costs what it carries, and each one may be made with another context. Standard: RFC 8446, RFC 5246.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

_READ_BYTES: Final = 16_384  # the largest record


class TlsStream:
    """One connection.

    Use: send what ``outgoing`` yields after every call. ``ssl.SSLError`` ends it: what ``outgoing`` then yields is the
    alert that tells the peer.

    Args:
        context: Certificate, trust, versions.
        server_side: Whether the peer made the connection.

    Attributes:
        established: Whether the handshake is done.
        closed: Whether the peer said that it sends no more.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = True) -> None:
        self.established = False
        self.closed = False
        self._from_wire = ssl.MemoryBIO()
        self._to_wire = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_wire, self._to_wire, server_side=server_side)
        self._waiting = bytearray()
        if not server_side:
            self._shake_hands()

    def receive(self, data: bytes) -> bytes:
        """Octets came from the wire.

        Returns:
            What the peer said, as far as it is whole.

        Raises:
            ssl.SSLError: If the peer does not speak TLS as it must, or is not trusted.
        """
        self._from_wire.write(data)
        if not self.established:
            self._shake_hands()
        said = bytearray()
        while self.established and not self.closed:
            try:
                said += self._read()
            except ssl.SSLWantReadError:
                break
        return bytes(said)

    def send(self, data: bytes) -> None:
        """Octets for the peer; before the handshake is done they wait."""
        if self.established:
            self._tls.write(data)
        else:
            self._waiting += data

    def close(self) -> None:
        """Says that nothing more will be sent."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # the peer has not said the same yet: nobody waits for that
                self._tls.unwrap()

    def outgoing(self) -> bytes:
        """What the wire must be given now."""
        return self._to_wire.read()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.established = True
        if self._waiting:
            self._tls.write(self._waiting)
            self._waiting.clear()

    def _read(self) -> bytes:
        try:
            said = self._tls.read(_READ_BYTES)
        except ssl.SSLZeroReturnError:
            said = b""
        self.closed = not said
        return said
