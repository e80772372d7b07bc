"""A P-256 certificate that signs itself: peers that have it trust exactly that one. Standard: RFC 5280."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sbc_agent.runtime.durable import write_private

_DAYS: Final = 3_650
_FIRST_DAY: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # peers take it even if this machine's clock runs ahead
_ANY: Final = "0.0.0.0"  # noqa: S104 - recognised, not bound


def write(certificate_path: Path, key_path: Path, host: str, now: dt.datetime) -> None:
    """Makes key and certificate and writes them, mode 0600.

    Args:
        certificate_path: For the certificate, in PEM.
        key_path: For its key, in PEM.
        host: The IPv4 address that is listened on; 0.0.0.0 names none.
        now: The time.

    Raises:
        OSError: If they cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Dualtone agent")])
    addresses = {"127.0.0.1"} | ({host} - {_ANY})
    host_name = socket.gethostname()
    alternatives: list[x509.GeneralName] = [x509.IPAddress(ipaddress.IPv4Address(each)) for each in sorted(addresses)]
    alternatives += [x509.DNSName(each) for each in dict.fromkeys(("localhost", host_name)) if each.isascii()]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(_FIRST_DAY, now))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        # Callers that trust it trust nothing else by it: it signs no other certificate.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(
        key_path,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
