"""The AWS endpoint on loopback: moto's server, on the same backends that in-process clients use.

What `moto.server.ThreadedMotoServer` does, except that it says nothing on standard error, speaks HTTP/1.1 with
keep-alive, and closes its socket when it is stopped.
"""

import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server


class _SilentHandler(MotoRequestHandler):
    """Logs nothing: request lines hold object keys, which name tenants and calls."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing."""


class AwsEndpoint:
    """Serves moto over HTTP; the mock must have been started before.

    Args:
        port: to bind on loopback; 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        application = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", port, application, threaded=True, request_handler=_SilentHandler
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="aws", daemon=True
        )

    @property
    def url(self) -> str:
        """The endpoint, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and close the socket."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
