"""The agent's settings: one TOML file, read once, every value checked.

What is wrong is said all at once, a line for each fault: the key, what stands there, and what to write instead. The
documented example is ``sbc_agent/docs/agent.toml``. Reading a file is the only effect.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.sdes import SrtpPolicy
from sbc_agent.runtime.system_errors import plain

_MAX_PORT: Final = 65_535
_LOWEST_MEDIA_PORT: Final = 1_024
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_LOOPBACK_NAMES: Final = frozenset({"localhost"})


class ConfigError(MalformedInput):
    """The settings cannot be used.

    Attributes:
        problems: One plain sentence for each fault, in the order of the file's sections.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IPv4 address and a port; port 0 asks for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """UDP ports for RTP, both ends included."""

    first: int
    last: int

    @property
    def pairs(self) -> int:
        """How many even ports have their odd neighbour in the range too."""
        return (self.last + 1) // 2 - (self.first + 1) // 2

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own loopback: the one place to which plain http is allowed."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("that is no text")  # noqa: TRY004 - pydantic gathers ValueErrors
    if value == "off":
        return None
    host, separator, port = value.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError("address and port are not told apart")
    return Endpoint(_ipv4(host), int(port))


def _ipv4(value: object) -> str:
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise ValueError("that is no IPv4 address") from error


def _media_address(value: object) -> str:
    address = _ipv4(value)
    if ipaddress.IPv4Address(address).is_unspecified:
        raise ValueError("no SBC can send to that address")
    return address


def _port_range(value: object) -> object:
    match = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError("that is no range")
    ports = PortRange(int(match[1]), int(match[2]))
    if not _LOWEST_MEDIA_PORT <= ports.first <= ports.last <= _MAX_PORT:
        raise ValueError("the range runs backwards or leaves 1024-65535")
    if not ports.pairs:
        raise ValueError("the range holds no even port with its odd neighbour")
    return ports


def _directory(value: object) -> object:
    path = Path(value) if isinstance(value, str) else Path()
    if not path.is_absolute():
        raise ValueError("the path is not absolute")
    return path


def _advertise(value: object) -> object:
    if value == "":
        return None
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError("that is no host name")
    return value


def _peers(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("that is no list")  # noqa: TRY004 - pydantic gathers ValueErrors
    return frozenset(_ipv4(item) for item in value)


def _api(value: object) -> object:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        host = parts.hostname
    except ValueError as error:
        raise ValueError("that is no URL") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("that is no URL")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("the URL has more than scheme, host, port and path")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("plain http would show what the agent sends")
    path = parts.path.rstrip("/")
    if path == "/v1" or path.endswith("/v1"):
        raise ValueError("the agent adds /v1 itself")
    return f"{parts.scheme}://{parts.netloc}{path}"


def api_address(text: str) -> str:
    """Checks a base address of the API that was typed elsewhere than in the file; raises MalformedInput."""
    try:
        return str(_api(text))
    except ValueError as error:
        raise MalformedInput(f"{text!r} ({error}): write {_API_HINT}") from error


def _write(hint: str) -> dict[str, Any]:
    """What a refused key's message tells the reader to write."""
    return {"json_schema_extra": {"write": hint}}


_ENDPOINT_HINT: Final = 'an IPv4 address and a port such as "0.0.0.0:5060" (port 0 for any free one), or "off"'
_API_HINT: Final = 'the base address of the API such as "https://recorder.example.com" (http for 127.0.0.1 alone)'
_DIRECTORY_HINT: Final = 'an absolute path such as "{}"'
_FILE_HINT: Final = 'the absolute path of a PEM file such as "{}"'


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


WhenFull = Literal["refuse_calls", "record_in_memory"]


class AgentSection(_Section):
    """``[agent]``: directories, the grace time of a stop, and what to do when the disk fills up."""

    state_dir: Annotated[Path, BeforeValidator(_directory)] = Field(
        **_write(_DIRECTORY_HINT.format("/var/lib/dualtone-agent"))
    )
    spool_dir: Annotated[Path, BeforeValidator(_directory)] = Field(
        **_write(_DIRECTORY_HINT.format("/var/spool/dualtone-agent"))
    )
    drain_s: int = Field(20, ge=0, le=600, **_write("a whole number of seconds from 0 to 600"))
    min_free_mb: int = Field(256, ge=0, le=100_000_000, **_write("a whole number of MiB from 0 to 100000000"))
    when_full: WhenFull = Field("refuse_calls", **_write('"refuse_calls" or "record_in_memory"'))

    @property
    def min_free_bytes(self) -> int:
        """Free space below which the spool counts as full, in bytes."""
        return self.min_free_mb << 20


def _file(value: object) -> object:
    return None if value == "" else _directory(value)


class SipSection(_Section):
    """``[sip]``: where recording sessions arrive, and how many are taken."""

    udp: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        Endpoint("0.0.0.0", 5060),  # noqa: S104 - a recording server listens to the SBCs of its network
        **_write(_ENDPOINT_HINT),
    )
    tcp: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        Endpoint("0.0.0.0", 5060),  # noqa: S104 - as above
        **_write(_ENDPOINT_HINT),
    )
    advertise: Annotated[str | None, BeforeValidator(_advertise)] = Field(
        None, **_write('a host name or an IPv4 address such as "recorder.example.com", or "" for media.address')
    )

    peers: Annotated[frozenset[str], BeforeValidator(_peers)] = Field(
        frozenset(), **_write('a list of IPv4 addresses such as ["192.0.2.20"], or [] for none')
    )

    tls: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        None, **_write('an IPv4 address and a port such as "0.0.0.0:5061" (port 0 for any free one), or "off"')
    )
    tls_certificate: Annotated[Path | None, BeforeValidator(_file)] = Field(
        None, **_write(_FILE_HINT.format("/etc/dualtone/sip.crt"))
    )
    tls_key: Annotated[Path | None, BeforeValidator(_file)] = Field(
        None, **_write(_FILE_HINT.format("/etc/dualtone/sip.key"))
    )
    tls_clients: Annotated[Path | None, BeforeValidator(_file)] = Field(
        None, **_write(_FILE_HINT.format("/etc/dualtone/sbc-ca.crt") + ', or "" to ask no SBC for a certificate')
    )
    max_session_h: int = Field(168, ge=1, le=8_760, **_write("a whole number of hours from 1 to 8760"))
    srtp: SrtpPolicy = Field("allow", **_write('"allow", "require_tls" or "off"'))
    max_calls: int = Field(
        0, ge=0, le=100_000, **_write("a whole number of calls from 0 to 100000, 0 for no other bound")
    )
    messages_per_s: int = Field(2_000, ge=1, le=1_000_000, **_write("a whole number of messages from 1 to 1000000"))
    strangers_per_s: int = Field(400, ge=1, le=1_000_000, **_write("a whole number of messages from 1 to 1000000"))
    max_connections: int = Field(1_024, ge=1, le=60_000, **_write("a whole number of connections from 1 to 60000"))
    max_connections_per_peer: int = Field(
        64, ge=1, le=60_000, **_write("a whole number of connections from 1 to 60000")
    )

    @model_validator(mode="after")
    def _some_transport(self) -> SipSection:
        if self.udp is None and self.tcp is None and self.tls is None:
            raise ValueError(
                'udp, tcp and tls are all off: give at least one of them an address such as "0.0.0.0:5060"'
            )
        if self.tls is not None and (self.tls_certificate is None or self.tls_key is None):
            raise ValueError("tls is on: write tls_certificate and tls_key, two absolute paths of PEM files")
        return self


class MediaSection(_Section):
    """``[media]``: where RTP arrives, and how long it is held back."""

    address: Annotated[str, BeforeValidator(_media_address)] = Field(
        **_write('the IPv4 address to which the SBC sends RTP, such as "192.0.2.10"')
    )
    ports: Annotated[PortRange, BeforeValidator(_port_range)] = Field(
        PortRange(20_000, 29_999), **_write('a range of ports within 1024-65535 such as "20000-29999"')
    )
    pool_size: int = Field(400, ge=1, le=30_000, **_write("a whole number of streams from 1 to 30000"))
    hold_back_s: float = Field(
        5, ge=0, le=30, allow_inf_nan=False, strict=False, **_write("a number of seconds from 0 to 30")
    )

    @property
    def hold_back_ms(self) -> int:
        """The hold-back in whole milliseconds."""
        return round(self.hold_back_s * 1000)

    @model_validator(mode="after")
    def _pool_fits(self) -> MediaSection:
        if self.pool_size > self.ports.pairs:
            raise ValueError(
                f'pool_size = {self.pool_size}, but ports = "{self.ports}" holds {self.ports.pairs} pairs of ports: '
                f"write pool_size = {self.ports.pairs} or less, or a wider range"
            )
        return self


class UplinkSection(_Section):
    """``[uplink]``: the way to the cloud."""

    api: Annotated[str, BeforeValidator(_api)] = Field(**_write(_API_HINT))
    threads: int = Field(4, ge=1, le=32, **_write("a whole number from 1 to 32"))
    rotate_key_days: int = Field(90, ge=0, le=3_650, **_write("a whole number of days from 1 to 3650, or 0 for never"))
    resend_days: int = Field(7, ge=1, le=12, **_write("a whole number of days from 1 to 12"))


class LanSection(_Section):
    """``[lan]``: where calls can be paused while the uplink is down, and where old handsets find their keys."""

    listen: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        None, **_write('an IPv4 address and a port such as "127.0.0.1:5443" (port 0 for any free one), or "off"')
    )
    phones_http: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        None, **_write('an IPv4 address and a port such as "192.0.2.10:5480" (port 0 for any free one), or "off"')
    )


class MetricsSection(_Section):
    """``[metrics]``: where Prometheus scrapes."""

    listen: Annotated[Endpoint | None, BeforeValidator(_endpoint)] = Field(
        None, **_write('an IPv4 address and a port such as "127.0.0.1:9464" (port 0 for any free one), or "off"')
    )


class CanarySection(_Section):
    """``[canary]``: how often the agent proves by a call of its own that calls are recorded."""

    every_s: int = Field(3_600, ge=0, le=86_400, **_write("a whole number of seconds from 0 (never) to 86400"))


class LogSection(_Section):
    """``[log]``: what reaches standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", **_write('"debug", "info", "warning" or "error"')
    )


class AgentConfig(_Section):
    """Every setting of the agent."""

    agent: AgentSection
    sip: SipSection = SipSection()
    media: MediaSection
    uplink: UplinkSection
    lan: LanSection = LanSection()
    metrics: MetricsSection = MetricsSection()
    canary: CanarySection = CanarySection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _directories_differ(self) -> AgentConfig:
        if self.agent.state_dir == self.agent.spool_dir:
            raise ValueError("agent.state_dir and agent.spool_dir are one directory: write two different paths")
        return self


_SECTIONS: Final = {name: field.annotation for name, field in AgentConfig.model_fields.items()}


def load(path: Path) -> AgentConfig:
    """Reads the settings from a file.

    Raises:
        ConfigError: If the file cannot be read, is no TOML, or holds a value that cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text; save the file as UTF-8"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: {plain(error)}; name a readable file"]) from error
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def parse(text: str) -> AgentConfig:
    """Reads the settings from TOML. Pure.

    Raises:
        ConfigError: With every fault found.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            [f'not TOML: {error}; a setting is written name = "text" or name = 5'.replace("\n", " ")]
        ) from error
    try:
        return AgentConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError([_sentence(dict(fault)) for fault in error.errors(include_url=False)]) from error


def _sentence(fault: dict[str, Any]) -> str:
    """Says one fault: key, value, what to write."""
    where = [str(step) for step in fault["loc"]]
    key, kind = ".".join(where), fault["type"]
    section = _SECTIONS.get(where[0]) if where else None
    fields = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
    if kind == "extra_forbidden":
        known = ", ".join(fields if len(where) > 1 else _SECTIONS)
        inside = f"[{where[0]}] knows" if len(where) > 1 else "the sections are"
        return f"{key}: no such setting; remove it or correct its name ({inside} {known})"
    if len(where) <= 1:
        if kind == "missing":
            return f"[{key}]: missing; write the section with {', '.join(_required(fields))}"
        reason = str(fault.get("ctx", {}).get("error", fault["msg"]))
        return f"{key}: {reason}" if kind == "value_error" else f"{key}: write a section [{key}] with keys below it"
    hint = (fields[where[1]].json_schema_extra or {}) if where[1] in fields else {}
    write = hint["write"] if isinstance(hint, dict) else "another value"
    if kind == "missing":
        return f"{key}: missing; write {write}"
    reason = f" ({fault['ctx']['error']})" if kind == "value_error" else ""
    return f"{key} = {_shown(fault['input'])}{reason}: write {write}"


def _required(fields: dict[str, Any]) -> list[str]:
    return [name for name, field in fields.items() if field.is_required()] or list(fields)


def _shown(value: object) -> str:
    """A value as the file spells it, cut where it is long."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line of a terminal
