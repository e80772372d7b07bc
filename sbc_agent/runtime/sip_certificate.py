"""What SIP over TLS proves itself with, and whom it trusts: read from files, and anew when they have changed.

TLS 1.2 or newer. Where ``clients`` names a file of CA certificates, TLS is mutual: a peer without a certificate of
theirs gets no connection, and where we connect (a response or a BYE whose connection is gone) the peer must prove
itself by them too. Without it nobody who connects is asked, and when we connect nobody is either: no CA is named that
could say who an SBC is, and what we send there is a response or a BYE. Standard: RFC 3261 section 26.3.1, RFC 5630.

Files are looked at when a connection comes, so that a renewed certificate serves the next peer without a restart.
Files that cannot be used leave the ones before in service: half a change is no reason to refuse calls.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from dualtone.domain.errors import MalformedInput
from sbc_agent.runtime.logs import Log, OwnWords
from sbc_agent.runtime.system_errors import plain

_Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: Our certificate, then those of the authorities between it and the root, if there are any.
        key: Its private key, without a passphrase.
        clients: CA certificates of which every peer must have one; None asks for none.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """For connections that peers make, and for those that we make."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def load(files: TlsFiles) -> TlsContexts:
    """Reads the files.

    Raises:
        MalformedInput: If one of them cannot be used; the text says which, and what it must be.
    """
    for path, what in ((files.certificate, "tls_certificate"), (files.key, "tls_key"), (files.clients, "tls_clients")):
        if path is not None:
            _check_readable(path, what)
    server, client = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    client.check_hostname = False  # SBCs are known by their addresses; their certificates name them otherwise
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        _load_own(context, files)
        if files.clients is not None:
            _load_clients(context, files.clients)
    return TlsContexts(server, client)


class SipCertificate:
    """The contexts in service.

    Args:
        files: Where they are read from.
        log: Where a change is told, and files that cannot be used.

    Raises:
        MalformedInput: As of ``load``.
    """

    def __init__(self, files: TlsFiles, log: Log) -> None:
        self._files = files
        self._log = log
        self._seen = _look(files)
        self._contexts = load(files)

    @property
    def contexts(self) -> TlsContexts:
        """The newest that can be used."""
        if (now := _look(self._files)) != self._seen:
            self._seen = now
            self.reload()
        return self._contexts

    def reload(self) -> None:
        """Reads the files anew, whether they have changed or not; connections that there are stay as they are."""
        try:
            self._contexts = load(self._files)
        except MalformedInput as error:
            self._log.error("tls_reload_failed", message=OwnWords(str(error)))
        else:
            self._log.info("tls_reloaded")


def _check_readable(path: Path, what: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise MalformedInput(f"sip.{what} {path}: {plain(error)}; name a PEM file that the agent may read") from error


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    def refuse_passphrase() -> bytes:
        raise MalformedInput(
            f"sip.tls_key {files.key}: the key is locked by a passphrase; write it without one, readable for the agent"
        )

    try:
        context.load_cert_chain(files.certificate, files.key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise MalformedInput(
                f"sip.tls_key {files.key}: not the key of {files.certificate}; name the key that the certificate "
                "was made for"
            ) from None
        wrong = files.certificate if not _is_certificate(files.certificate) else files.key
        what = "tls_certificate" if wrong is files.certificate else "tls_key"
        must = "a certificate in PEM" if wrong is files.certificate else "a private key in PEM, without a passphrase"
        raise MalformedInput(f"sip.{what} {wrong}: not {must}; name another file") from None


def _load_clients(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise MalformedInput(f"sip.tls_clients {path}: no CA certificates in PEM; name another file") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return True


def _look(files: TlsFiles) -> _Seen:
    """What tells a file from the one that was there before; of one that cannot be looked at, nothing."""
    return tuple(_stamp(path) for path in (files.certificate, files.key, files.clients) if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
