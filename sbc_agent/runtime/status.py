"""The status socket: one JSON object to whoever may open ``state_dir/status.sock``, and the words for it on a terminal.

Counts, sizes and states only: nothing that names a call or a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from dualtone.domain import canonical
from dualtone.domain.errors import NotFound, Unavailable

SOCKET_NAME: Final = "status.sock"
_ANSWER_LIMIT_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 5.0

Report = dict[str, Any]


@contextlib.contextmanager
def _short_path(state_dir: Path) -> Iterator[str]:
    """The socket's path by way of an open directory: a socket's name holds 107 bytes, a directory's more."""
    descriptor = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


async def serve(state_dir: Path, report: Callable[[], Awaitable[Report]]) -> asyncio.Server:
    """Answers each connection with the report, and closes it.

    Args:
        state_dir: Where the socket lies; an older one gives way.
        report: Makes the report.
    """

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(await report(), separators=(",", ":")).encode() + b"\n")
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (state_dir / SOCKET_NAME).unlink(missing_ok=True)
    with _short_path(state_dir) as path:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    return await asyncio.start_unix_server(answer, sock=listener)


def ask(state_dir: Path) -> Report:
    """Asks a running agent.

    Raises:
        NotFound: If none runs with this state directory.
        Unavailable: If one does but does not answer.
    """
    data = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_TIMEOUT_S)
            with _short_path(state_dir) as path:
                client.connect(path)
            while len(data) < _ANSWER_LIMIT_BYTES and (chunk := client.recv(65_536)):
                data += chunk
    except TimeoutError as error:
        raise Unavailable("the agent runs but does not answer") from error
    except PermissionError as error:
        raise Unavailable(f"{state_dir / SOCKET_NAME} belongs to another user: ask as the agent's user") from error
    except OSError as error:
        raise NotFound(f"no agent runs with {state_dir}: start it with dualtone-agent run") from error
    value = canonical.decode(data)
    if not isinstance(value, dict):
        raise Unavailable("the agent's answer is no report")
    return value


def describe(report: Report) -> str:
    """The report as lines for a terminal."""
    uplink, media, spool = report["uplink"], report["media"], report["spool"]
    link = {"up": "up", "down": "down", "refused": "REFUSED by the cloud"}[uplink["link"]]
    link += f" ({uplink['reason']})" if uplink["reason"] else ""
    retry = f", next attempt in {round(uplink['retry_ms'] / 1000)} s" if uplink["failures"] else ""
    if report.get("revoked"):
        link = "REVOKED: new calls are refused, nothing is sent, the spool stays"
    alarms = ", ".join(f"{name} x{count}" for name, count in sorted(report["alarms"].items())) or "none"
    lines = [
        ("agent", f"{report['agent']} of tenant {report['tenant']}, version {report['version']}"),
        ("up for", _duration(report["uptime_ms"] // 1000)),
        ("calls", f"{report['calls_live']} live ({media.get('streams', 0)} streams){_adopted(report)}"),
        ("packets", f"{media.get('received', 0)} received, {media.get('stored', 0)} stored"),
        ("spool", f"{spool['calls']} calls, {_size(spool['bytes'])}, {_size(spool['free_bytes'])} free{_room(spool)}"),
        (
            "uplink",
            f"{link}{retry}; {uplink['calls_waiting']} calls to send, {uplink['calls_unconfirmed']} unconfirmed",
        ),
        ("sent", f"{uplink['objects_sent']} objects, {_size(uplink['bytes_sent'])} since the start"),
        ("lan", report["lan"] or "off"),
        ("alarms", alarms),
    ]
    return "\n".join(f"{name:<8} {text}" for name, text in lines)


def _room(spool: Report) -> str:
    if not spool["full"]:
        return ""
    return ": FULL, new calls are recorded in memory" if spool["takes_calls"] else ": FULL, new calls are refused"


def _adopted(report: Report) -> str:
    count = report["calls_adopted"]
    return f", {count} taken over from the run before" if count else ""


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - binary units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    return (f"{days} d " if days else "") + f"{hours:02d}:{minutes:02d}:{seconds:02d}"
