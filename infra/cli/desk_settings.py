"""Which agent ``dualtone desk`` speaks to, with which token, and by what it knows the agent.

From ``~/.config/dualtone/desk.toml`` (``agent``, ``token`` or ``token_file``, ``fingerprint`` or ``certificate``), then
the environment (``DUALTONE_DESK_AGENT`` and so on), then the command line, which takes no token: other users of a
machine can read it. A file that holds a token must be its owner's alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_KEYS: Final = ("agent", "token", "token_file", "fingerprint", "certificate")
_VARIABLE: Final = "DUALTONE_DESK_{}"
_OTHERS: Final = 0o077
_FINGERPRINT: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_TOKEN: Final = re.compile(r"[!-~]{20,200}")


class UnusableSettings(Exception):  # noqa: N818 - what is wrong, in two words
    """The settings cannot be used; the text says what to write, and never holds the token."""


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """What the client needs.

    Attributes:
        agent: Base address of the agent's LAN endpoint.
        token: The desk's token.
        fingerprint: SHA-256 of the agent's certificate, 64 hexadecimal digits.
    """

    agent: str
    token: str = field(repr=False)
    fingerprint: str


def default_path(environment: Mapping[str, str]) -> Path:
    """Where the settings are looked for."""
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or "~").expanduser() / ".config"
    return Path(base) / "dualtone" / "desk.toml"


def load(path: Path, given: Mapping[str, str | None], environment: Mapping[str, str]) -> DeskSettings:
    """Reads the settings.

    Args:
        path: The file; one that is not there counts as empty.
        given: Options of the command line by key.
        environment: The process's.

    Raises:
        UnusableSettings: If something is missing or cannot be used.
    """
    found = _from_file(path)
    for source in (
        {key: environment.get(_VARIABLE.format(key.upper())) for key in _KEYS},
        {key: given.get(key) for key in _KEYS if key != "token"},
    ):
        said = {key: value for key, value in source.items() if value}
        # Whoever names a token or a certificate in one way overrules every way of saying it before.
        for pair in (("token", "token_file"), ("fingerprint", "certificate")):
            if not said.keys().isdisjoint(pair):
                found = {key: value for key, value in found.items() if key not in pair}
        found |= said
    return DeskSettings(_agent(found, path), _token(found, path), _pinned(found, path))


def _from_file(path: Path) -> dict[str, str]:
    try:
        text = _private(path)
    except FileNotFoundError:
        return {}
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnusableSettings(f'{path} is no TOML ({error}): a setting is written name = "text"') from None
    for key, value in document.items():
        if key not in _KEYS:
            raise UnusableSettings(f"{path}: there is no setting {key}; those there are: {', '.join(_KEYS)}")
        if not isinstance(value, str):
            raise UnusableSettings(f'{path}: write {key} = "text"')
    return {key: value for key, value in document.items() if value}


def _private(path: Path) -> str:
    """A file's text; refuses one that others may read. Raises FileNotFoundError, UnusableSettings."""
    try:
        status = path.stat()
        if status.st_mode & _OTHERS:
            raise UnusableSettings(f"{path} can be read by others: run chmod 600 {path}")
        if status.st_uid not in {os.geteuid(), 0}:
            raise UnusableSettings(f"{path} belongs to another user")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableSettings(f"{path} cannot be read ({type(error).__name__})") from None


def _agent(found: Mapping[str, str], path: Path) -> str:
    address = found.get("agent", "").rstrip("/")
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname or parts.path or parts.query:
        raise UnusableSettings(
            f'write agent = "https://ADDRESS:PORT" in {path}, or say --agent: the address of the agent\'s LAN endpoint'
        )
    return address


def _token(found: Mapping[str, str], path: Path) -> str:
    token = found.get("token", "")
    if file := found.get("token_file"):
        try:
            token = _private(Path(file).expanduser())
        except FileNotFoundError:
            raise UnusableSettings(f"{file} does not exist: it should hold the desk's token") from None
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise UnusableSettings(
            f'write token = "dsk_..." in {path}, or say --token-file: the administrator gets a token by '
            "dualtone-agent desk add"
        )
    return token


def _pinned(found: Mapping[str, str], path: Path) -> str:
    """The agent's certificate is nobody else's to vouch for: it is known by its fingerprint alone."""
    if file := found.get("certificate"):
        try:
            der = ssl.PEM_cert_to_DER_cert(Path(file).expanduser().read_text(encoding="ascii").strip() + "\n")
        except (OSError, ValueError) as error:
            raise UnusableSettings(f"{file} holds no certificate in PEM ({type(error).__name__})") from None
        return hashlib.sha256(der).hexdigest()
    match = _FINGERPRINT.fullmatch(found.get("fingerprint", "").replace(":", "").replace("sha256", "sha256:").lower())
    if match is None:
        raise UnusableSettings(
            f'write fingerprint = "sha256:..." or certificate = "lan.crt" in {path}: by it the agent is known; '
            "dualtone-agent desk add shows it"
        )
    return match[1]
