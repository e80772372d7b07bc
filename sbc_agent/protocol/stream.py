"""Cutting a stream into SIP messages. Pure; standard: RFC 3261 sections 7.5 and 18.3, RFC 5626 section 3.5.1.

REQ: RFC 3261 section 18.3: on a stream, Content-Length is required: a message without it, or with one that cannot be
read, ends the stream, because nothing after it can be trusted to begin a message.
"""

import re
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.message import MAX_HEAD_BYTES, MAX_MESSAGE_BYTES, content_length, read_headers

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_ENDS: Final = re.compile(rb"[\r\n]*")
_PING: Final = b"\r\n\r\n"  # REQ: RFC 5626 section 4.4.1: a double CRLF asks for a single one
MAX_PINGS: Final = 4  # who sends more of them at once floods, and is answered no more often


class StreamFramer:
    """The octets of one stream, gathered until they make a message.

    Use: `feed` what came, then call `next_message` until it gives None.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._end: int | None = None  # of the message that has begun, once its head is whole: a head is read once
        self._pings = 0

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take octets in."""
        self._buffer += data

    def take_pings(self) -> int:
        """How many keep-alives came since the last call; each is answered by one CRLF."""
        pings, self._pings = min(self._pings, MAX_PINGS), 0
        return pings

    def next_message(self) -> bytes | None:
        """The next whole message.

        Returns:
            Its octets, or None if more must come first.

        Raises:
            MalformedInput: the stream cannot be read on and must be closed.
        """
        self._skip_line_ends()
        if self._end is None:
            self._end = self._find_end()
        if self._end is None or len(self._buffer) < self._end:
            return None
        message = bytes(self._buffer[: self._end])
        del self._buffer[: self._end]
        self._scanned, self._end = 0, None
        return message

    def _find_end(self) -> int | None:
        """Where the message that has begun ends, or None if its head is not whole."""
        found = _HEAD_END.search(self._buffer, max(self._scanned - 3, 0))
        self._scanned = len(self._buffer) if found is None else found.start()
        if self._scanned > MAX_HEAD_BYTES:
            raise MalformedInput("the headers on a stream are larger than 32768 octets", sip_status=513)
        if found is None:
            return None
        head = bytes(self._buffer[: found.start()])
        length = content_length(read_headers(head.partition(b"\n")[2]))
        if length is None:
            raise MalformedInput("a message on a stream has no Content-Length")
        end = found.end() + length
        if end > MAX_MESSAGE_BYTES:
            raise MalformedInput("a message on a stream is larger than 65535 octets", sip_status=513)
        return end

    def _skip_line_ends(self) -> None:
        """Drop line ends between messages, counting keep-alives."""
        if self._scanned:
            return
        found = _LINE_ENDS.match(self._buffer)
        if found is not None and (line_ends := found.group()):
            self._pings += line_ends.count(_PING)
            del self._buffer[: len(line_ends)]
