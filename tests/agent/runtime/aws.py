"""A foreign S3 and SQS for the uplink: moto's server on loopback, behind a gate that can cut and refuse."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import botocore.session
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"


@contextmanager
def moto_server() -> Iterator[str]:
    """Runs moto's server; yields its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def session() -> botocore.session.Session:
    """A botocore session with fixed credentials."""
    made = botocore.session.Session()
    made.set_credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    made.set_config_variable("region", REGION)
    return made


def client(name: str, endpoint_url: str) -> Any:
    """A client for the test's own looks at the foreign side."""
    return session().create_client(name, endpoint_url=endpoint_url)


class Gate:
    """A TCP relay in front of a server that can cut connections after so many bytes, or let nobody in.

    Attributes:
        cut_after: Bytes of a connection from the client after which it is cut, or None.
        cuts: How many connections were cut.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_after: int | None = None
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cuts every open connection."""
        for channel in self._open:
            channel.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client_side, _ = self._listener.accept()
            except OSError:
                return
            server_side = socket.create_connection(("127.0.0.1", self._upstream))
            self._open += [client_side, server_side]
            for source, sink, inward in ((client_side, server_side, True), (server_side, client_side, False)):
                threading.Thread(target=self._pump, args=(source, sink, inward), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, inward: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65_536):
                passed += len(data)
                if inward and self.cut_after is not None and passed > self.cut_after:
                    self.cuts += 1
                    break
                sink.sendall(data)
        for channel in (source, sink):
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
