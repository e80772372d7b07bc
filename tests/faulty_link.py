"""A bad network between an HTTP client and a server on loopback: it fails as a plan says, and the same way every time.

Each request is read up to the end of its head; then the plan says what becomes of it. Every request gets a connection
of its own to the server. What the server answered is counted, so that a test knows what was stored how often.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

_PIECE = 16_384
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends a reset, as a link that breaks does


@dataclass(frozen=True)
class Request:
    """The head of a request: method, path, headers by lower-case name, length of the body."""

    method: str
    path: str
    headers: dict[str, str]
    length: int

    @property
    def is_upload(self) -> bool:
        """Whether it puts an object."""
        return self.method == "PUT" and self.path.count("/") > 1


@dataclass(frozen=True)
class Cut:
    """The connection breaks after so many bytes of the body; fewer than all, or nobody knows what the server did."""

    after: int


@dataclass(frozen=True)
class LoseAnswer:
    """The server gets all of it; its answer never arrives."""


@dataclass(frozen=True)
class Answer:
    """Somebody answers in the server's stead, as S3 does."""

    status: int
    code: str


@dataclass(frozen=True)
class Stall:
    """Nothing comes back until the client gives up."""


@dataclass(frozen=True)
class Hold:
    """All of the body has come, but it reaches the server only when ``go`` is set; ``held`` is set until then."""

    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Slow:
    """The body is taken in small pieces, with a pause in seconds before each."""

    pause_s: float


Fault = Cut | LoseAnswer | Answer | Stall | Hold | Slow
Plan = Callable[[Request], Fault | None]


def clean(_: Request) -> None:
    """The plan of a good network."""


class FaultyLink:
    """The network.

    Args:
        port: Of the server on 127.0.0.1.
        plan: What becomes of a request; asked once for each, in the order of their coming.

    Attributes:
        down: While set, every connection is broken as soon as it is made.
        faults: How often each kind of fault happened; ``down`` too.
        answers: How often the server answered what to which method and path.
    """

    def __init__(self, port: int, plan: Plan = clean) -> None:
        self.plan = plan
        self.down = False
        self.faults: Counter[str] = Counter()
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self._upstream = port
        self._lock = threading.Lock()
        self._never = threading.Event()
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def stored(self, path: str) -> int:
        """How often the server said that it stored an object."""
        return self.answers["PUT", path, 200]

    def open(self) -> None:
        """Lets clients in, again at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * _PIECE)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Lets nobody in any more: connections are refused. Whoever is stalled goes."""
        self._never.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            if self.down:
                self._count("down")
                return
            head, rest = _read_head(client)
            if not head:
                return
            request = _parse(head)
            with self._lock:
                fault = self.plan(request)
            if fault is not None:
                self._count(type(fault).__name__)
            if "expect" in request.headers:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._relay(client, request, _forwarded(head), rest, fault)

    def _relay(self, client: socket.socket, request: Request, head: bytes, rest: bytes, fault: Fault | None) -> None:
        body = _Body(client, rest, request.length)
        if isinstance(fault, Answer | Stall):
            body.read_all()
            if isinstance(fault, Answer):
                _finish(client, _error(fault))
            else:
                self._never.wait()
            return
        if isinstance(fault, Hold):
            body.read_all()
            fault.held.set()
            fault.go.wait()
        with socket.create_connection(("127.0.0.1", self._upstream)) as server:
            server.sendall(head)
            left = fault.after if isinstance(fault, Cut) else request.length
            while left > 0 and (piece := body.read(min(left, _PIECE))):
                if isinstance(fault, Slow):
                    self._never.wait(fault.pause_s)
                server.sendall(piece)
                left -= len(piece)
            if isinstance(fault, Cut):
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                return
            answer = b""
            while data := server.recv(_PIECE):
                answer += data
        with self._lock:
            self.answers[request.method, request.path, int(answer[9:12] or b"0")] += 1
        if not isinstance(fault, LoseAnswer):
            _finish(client, answer)

    def _count(self, fault: str) -> None:
        with self._lock:
            self.faults[fault] += 1


class _Body:
    """A request's body as it comes; what is read whole can be read again."""

    def __init__(self, client: socket.socket, rest: bytes, length: int) -> None:
        self._client, self._rest, self._left = client, rest, length - len(rest)

    def read(self, size: int) -> bytes:
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        if not self._left:
            return b""
        piece = self._client.recv(min(size, self._left))
        if not piece:
            raise ConnectionResetError
        self._left -= len(piece)
        return piece

    def read_all(self) -> None:
        pieces = [self._rest]
        self._rest = b""
        while piece := self.read(_PIECE):
            pieces.append(piece)
        self._rest = b"".join(pieces)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target.partition("?")[0], headers, int(headers.get("content-length", 0)))


def _forwarded(head: bytes) -> bytes:
    """The head as the server gets it: one request a connection, and nobody waits to be told to go on."""
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"expect:", b"connection:"))]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def _error(fault: Answer) -> bytes:
    body = f"<Error><Code>{fault.code}</Code><Message>as the plan says</Message></Error>".encode()
    head = f"HTTP/1.1 {fault.status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def _finish(client: socket.socket, answer: bytes) -> None:
    """Answers, and closes as one does who has said everything."""
    client.sendall(answer)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
