"""What SIP over TLS proves itself with: what is wrong with a file is said, and half a change takes nothing out."""

import io
import json
import os
import ssl
from pathlib import Path

import pytest

from dualtone.domain.errors import MalformedInput
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.sip_certificate import SipCertificate, TlsFiles, load
from tests.agent.runtime.certificates import Authority


def test_both_contexts_speak_tls_1_2_or_newer(tmp_path: Path) -> None:
    """Nothing older is offered, and nobody is asked for a certificate unless authorities are named."""
    contexts = load(Authority.new(tmp_path).sign("srs"))
    assert {each.minimum_version for each in (contexts.server, contexts.client)} == {ssl.TLSVersion.TLSv1_2}
    assert contexts.server.verify_mode is ssl.CERT_NONE


def test_with_authorities_everybody_must_prove_themselves(tmp_path: Path) -> None:
    """Mutual TLS holds for connections that we make too."""
    authority = Authority.new(tmp_path)
    own = authority.sign("srs")
    contexts = load(TlsFiles(own.certificate, own.key, authority.file("ca")))
    assert {each.verify_mode for each in (contexts.server, contexts.client)} == {ssl.CERT_REQUIRED}


def _wrong(tmp_path: Path) -> dict[str, tuple[TlsFiles, str]]:
    authority = Authority.new(tmp_path)
    own, other, locked = authority.sign("srs"), authority.sign("other"), authority.sign("locked", b"secret")
    text = tmp_path / "text"
    text.write_text("no certificate")
    return {
        "no file": (TlsFiles(tmp_path / "none", own.key), "sip.tls_certificate .*no such file or directory"),
        "a directory": (TlsFiles(own.certificate, tmp_path), "sip.tls_key .*is a directory"),
        "no certificate in it": (TlsFiles(text, own.key), "sip.tls_certificate .*not a certificate in PEM"),
        "no key in it": (TlsFiles(own.certificate, text), "sip.tls_key .*not a private key in PEM"),
        "the key of another": (TlsFiles(own.certificate, other.key), "sip.tls_key .*not the key of .*srs.crt"),
        "a locked key": (TlsFiles(locked.certificate, locked.key), "sip.tls_key .*locked by a passphrase"),
        "no authorities": (TlsFiles(own.certificate, own.key, text), "sip.tls_clients .*no CA certificates"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no file",
        "a directory",
        "no certificate in it",
        "no key in it",
        "the key of another",
        "a locked key",
        "no authorities",
    ],
)
def test_a_wrong_file_is_named(case: str, tmp_path: Path) -> None:
    """The setting, the file, and what is wrong with it."""
    files, message = _wrong(tmp_path)[case]
    with pytest.raises(MalformedInput, match=message):
        load(files)


def test_a_renewed_certificate_is_taken_when_both_files_are_there(tmp_path: Path) -> None:
    """Between the two files the old certificate stays in service; the log tells both."""
    authority, lines = Authority.new(tmp_path), io.StringIO()
    files, renewed = authority.sign("srs"), authority.sign("renewed")
    kept = SipCertificate(files, Log(stream=lines))
    before = kept.contexts
    os.replace(renewed.certificate, files.certificate)  # noqa: PTH105 - as certbot and others do
    assert kept.contexts is before
    os.replace(renewed.key, files.key)  # noqa: PTH105 - as above
    assert kept.contexts is not before
    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == [
        "tls_reload_failed",
        "tls_reloaded",
    ]
    assert kept.contexts is kept.contexts
