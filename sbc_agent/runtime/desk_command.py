"""``dualtone-agent desk``: adds, lists and removes desks, also while the agent runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sbc_agent.runtime import desks, lan_credentials
from sbc_agent.runtime.config import AgentConfig, Endpoint
from sbc_agent.runtime.desks import NewDesk

_NO_LAN: Final = (
    'write [lan] listen = "ADDRESS:PORT" in the settings and start the agent again: desks need the LAN endpoint'
)


def add(config: AgentConfig, name: str, lines: Sequence[str]) -> Iterator[str]:
    """Adds a desk; yields what to tell its people, secrets included, for standard output alone.

    Raises:
        DualtoneError: As ``desks.add``.
    """
    new = desks.add(config.agent.state_dir, name, lines, now_ms=time.time_ns() // 1_000_000)
    yield f"desk {name!r} with {', '.join(new.desk.lines)}; what follows is shown once and kept nowhere"
    yield from _told(config, new)


def listed(state_dir: Path) -> Iterator[str]:
    """A line for each desk; raises DualtoneError as ``desks.read``."""
    for desk in desks.read(state_dir):
        yield f"{desk.name}  {', '.join(desk.lines)}  {desk.id}"


def remove(state_dir: Path, name: str) -> Iterator[str]:
    """Removes a desk; raises DualtoneError as ``desks.remove``."""
    desk = desks.remove(state_dir, name)
    yield f"desk {desk.name!r} is gone: its token and its handset's addresses are refused from now on"


def _told(config: AgentConfig, new: NewDesk) -> Iterator[str]:
    listen, phones_http = config.lan.listen, config.lan.phones_http
    if listen is None and phones_http is None:
        yield f"note: {_NO_LAN}"
    yield f"token         {new.token}"
    if listen is not None:
        yield f"agent         https://{_reached(listen, config)}"
        fingerprint = lan_credentials.fingerprint(config.agent.state_dir)
        yield f"fingerprint   {fingerprint or 'of state_dir/lan.crt, which the agent makes when it starts'}"
        yield from _phones(f"https://{_reached(listen, config)}", new.phone)
    if phones_http is not None:
        yield from _phones(f"http://{_reached(phones_http, config)}", new.phone)


def _phones(origin: str, phone: str) -> Iterator[str]:
    for maker, dialect in (("Cisco", "cisco"), ("Yealink", "yealink")):
        yield f"{maker:<13} {origin}/phone/{phone}/{dialect}"


def _reached(endpoint: Endpoint, config: AgentConfig) -> Endpoint:
    """An address that callers can use, where the agent listens on all it has."""
    host = config.media.address if endpoint.host == "0.0.0.0" else endpoint.host  # noqa: S104 - recognised, not bound
    return Endpoint(host, endpoint.port)
