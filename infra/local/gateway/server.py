"""HTTP/1.1 on loopback in front of a REST API: keep-alive, a thread per connection, and a bound on everything."""

import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from infra.local.gateway.message import HttpRequest, HttpResponse, Refused
from infra.local.gateway.rest_api import REQUEST_LIMIT_BYTES, RestApi

_IDLE_S = 60.0  # API Gateway closes idle connections too
_MOST_CONNECTIONS = 256
_BODILESS = (204, 304)


class _Connection(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    wbufsize = 65_536  # head and body leave in one segment
    disable_nagle_algorithm = True
    api: RestApi  # set on the subclass that GatewayServer makes

    def _serve(self) -> None:
        request_id = str(uuid.uuid4())
        try:
            body = self._body()
        except Refused as refused:
            self.close_connection = True
            self._send(self.api.refuse(refused, request_id))
            return
        target = urlsplit(self.path)
        self._send(
            self.api.answer(
                HttpRequest(
                    method=self.command,
                    path=target.path or "/",
                    query=target.query,
                    headers=tuple(self.headers.items()),
                    body=body,
                    source_ip=str(self.client_address[0]),
                    request_id=request_id,
                    at_ms=time.time_ns() // 1_000_000,
                )
            )
        )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - http.server's names

    def handle_expect_100(self) -> bool:
        """Say `100 Continue` at once: it must not wait in the buffer for the answer."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise Refused("DEFAULT_4XX", 411, "Length Required")
        lengths = self.headers.get_all("Content-Length", ["0"])
        if len(lengths) != 1 or not lengths[0].isdecimal():
            raise Refused("BAD_REQUEST_PARAMETERS", 400, "Bad Request")
        if int(lengths[0]) > REQUEST_LIMIT_BYTES:
            raise Refused("REQUEST_TOO_LARGE", 413, "Request Too Long")
        body = self.rfile.read(int(lengths[0]))
        if len(body) != int(lengths[0]):
            raise Refused("BAD_REQUEST_BODY", 400, "Bad Request")
        return body

    def _send(self, answer: HttpResponse) -> None:
        self.send_response_only(answer.status)
        self.send_header("Date", self.date_time_string())
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in _BODILESS:
            self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and answer.status not in _BODILESS:
            self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the request line holds the query; RestApi logs what may be logged."""


class _Server(ThreadingHTTPServer):
    """Threads bounded by a semaphore; connections beyond it are closed at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection if there is room for one."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and free its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away in the middle."""


class GatewayServer:
    """Binds first, so that its URL can be told to functions, and serves once it has an API.

    Args:
        port: to bind on loopback; 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._handler: type[_Connection] = type("Connection", (_Connection,), {})
        self._server = _Server(("127.0.0.1", port), self._handler)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self, api: RestApi) -> None:
        """Serve an API."""
        self._handler.api = api
        serve: Callable[..., None] = self._server.serve_forever
        self._thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.2}, name="api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and close the socket."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
