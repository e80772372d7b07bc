"""What the LAN endpoint proves itself with, and what its callers do: a self-signed certificate and a bearer token.

``state_dir/lan.crt`` and ``lan.key`` are a P-256 certificate of this agent's own; callers trust exactly that one.
``state_dir/lan.token`` is what they send. All are made at the first start and stay until somebody removes them or the
address changes; mode 0600. A certificate that is about to end gives way to a new one, also while the agent runs.
"""

from __future__ import annotations

import datetime as dt
import secrets
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sbc_agent.runtime import self_signed
from sbc_agent.runtime.durable import write_private

CERTIFICATE_FILE: Final = "lan.crt"
KEY_FILE: Final = "lan.key"
TOKEN_FILE: Final = "lan.token"  # noqa: S105 - a file's name
_TOKEN_BYTES: Final = 32
_SHORTEST_TOKEN: Final = 32
_RENEW_DAYS: Final = 30
_ANY: Final = "0.0.0.0"  # noqa: S104 - recognised, not bound


def bearer_token(state_dir: Path) -> str:
    """Reads the token, and draws it at the first call or if somebody made it too short to be one."""
    path = state_dir / TOKEN_FILE
    try:
        token = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        token = ""
    if len(token) < _SHORTEST_TOKEN:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        write_private(path, f"{token}\n".encode())
    return token


def server_context(state_dir: Path, host: str, now_s: float) -> ssl.SSLContext:
    """TLS 1.2 or newer with the agent's certificate, which is made if there is none for this address.

    Args:
        state_dir: Where key and certificate lie.
        host: The IPv4 address that is listened on.
        now_s: Unix time in seconds.

    Raises:
        OSError: If they cannot be written or read.
    """
    certificate, key = state_dir / CERTIFICATE_FILE, state_dir / KEY_FILE
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    if not (key.exists() and _is_good(certificate, host, now)):
        self_signed.write(certificate, key, host, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def renew(context: ssl.SSLContext, state_dir: Path, host: str, now_s: float) -> bool:
    """Makes a new certificate if the one in use ends within a month; new connections are shown that one.

    Args:
        context: Of :func:`server_context`, in use.
        state_dir: Where key and certificate lie.
        host: The IPv4 address that is listened on.
        now_s: Unix time in seconds.

    Returns:
        Whether there is a new one. Callers have to trust it anew.

    Raises:
        OSError: If it cannot be written or read.
    """
    certificate, key = state_dir / CERTIFICATE_FILE, state_dir / KEY_FILE
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    if _is_good(certificate, host, now):
        return False
    self_signed.write(certificate, key, host, now)
    context.load_cert_chain(certificate, key)
    return True


def fingerprint(state_dir: Path) -> str | None:
    """SHA-256 of the certificate as ``sha256:`` and hexadecimal: what callers may trust it by; None without one."""
    try:
        certificate = x509.load_pem_x509_certificate((state_dir / CERTIFICATE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def ends_at(state_dir: Path) -> dt.datetime | None:
    """When the certificate ends; None without one."""
    try:
        return x509.load_pem_x509_certificate((state_dir / CERTIFICATE_FILE).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None


def _is_good(path: Path, host: str, now: dt.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    known = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    lasts = certificate.not_valid_after_utc - now > dt.timedelta(days=_RENEW_DAYS)
    return lasts and (host == _ANY or host in known)
