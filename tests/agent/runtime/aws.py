"""A foreign S3 and SQS for the uplink: moto's server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
