"""TLS without a socket: two ends that hand each other what the wire would carry."""

import ssl
from pathlib import Path

import pytest

from sbc_agent.runtime.sip_certificate import TlsContexts, load
from sbc_agent.runtime.tls_stream import TlsStream
from tests.agent.runtime.certificates import Authority


@pytest.fixture
def contexts(tmp_path: Path) -> TlsContexts:
    return load(Authority.new(tmp_path).sign("srs"))


def exchange(client: TlsStream, server: TlsStream, *, size: int = 1 << 20) -> tuple[bytes, bytes]:
    """Carries octets, so many at once, until neither has more; returns what each was told."""
    told_client, told_server = b"", b""
    while True:
        up, down = client.outgoing(), server.outgoing()
        if not up and not down:
            break
        for start in range(0, len(up), size):
            told_server += server.receive(up[start : start + size])
        for start in range(0, len(down), size):
            told_client += client.receive(down[start : start + size])
    return told_client, told_server


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_one_end_says_the_other_hears(contexts: TlsContexts, size: int) -> None:
    """However the wire cuts it; what was said before the handshake waits for it."""
    client, server = TlsStream(contexts.client, server_side=False), TlsStream(contexts.server)
    client.send(b"OPTIONS" * 5_000)
    assert exchange(client, server, size=size) == (b"", b"OPTIONS" * 5_000)
    server.send(b"200")
    assert exchange(client, server, size=size) == (b"200", b"")


def test_an_end_that_closes_is_heard_to(contexts: TlsContexts) -> None:
    """REQ: RFC 8446 section 6.1: close_notify says that nothing follows; it is no error."""
    client, server = TlsStream(contexts.client, server_side=False), TlsStream(contexts.server)
    exchange(client, server)
    client.close()
    exchange(client, server)
    assert server.closed


def test_plain_sip_on_a_tls_port_is_refused(contexts: TlsContexts) -> None:
    """What is no TLS ends the connection."""
    server = TlsStream(contexts.server)
    with pytest.raises(ssl.SSLError):
        server.receive(b"OPTIONS sip:a SIP/2.0\r\n\r\n")
    assert not server.established


def test_tls_1_1_is_refused(contexts: TlsContexts) -> None:
    """A peer that knows nothing newer gets no connection."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    client, server = TlsStream(old, server_side=False), TlsStream(contexts.server)
    with pytest.raises(ssl.SSLError):
        exchange(client, server)
    assert not server.established
