"""Desks: who in the agent's own network may pause and resume the calls of which lines, and how they prove it.

A desk has a name, its lines (extensions as the switch spells them), a token for the desktop client, and an unguessable
part of the addresses that its handset's keys call. Both are drawn here, shown once and kept as SHA-256 in
``state_dir/desks.json``, mode 0600: 256 random bits need no slower hash. The file is written by ``dualtone-agent desk``
while the agent runs, which reads it again when it has changed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dualtone.domain import canonical, ids
from dualtone.domain.errors import MalformedInput, NotFound, PolicyViolation
from dualtone.domain.numbers import normalise
from sbc_agent.runtime.durable import hold_lock, require_owner, write_private
from sbc_agent.runtime.logs import Log

FILE_NAME: Final = "desks.json"
TOKEN_PREFIX: Final = "dsk_"  # noqa: S105 - by which a leak is recognised
MOST_LINES: Final = 16
_LOCK_NAME: Final = "desks.lock"
_LOCK_WAIT_S: Final = 5.0
_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[^\W_](?:[\w .@'()-]{0,62}[\w.)])?")
_FORMAT: Final = 1

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]


class Desk(BaseModel):
    """A desk.

    Attributes:
        id: ``desk_`` and a ULID: what the ledger of pauses names it by.
        name: How the site's people call it.
        lines: Its extensions, normalised.
        token_sha256: SHA-256 of its token, in hexadecimal.
        phone_sha256: SHA-256 of the secret part of its handset's addresses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^desk_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    lines: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_LINES)]
    token_sha256: _Sha256
    phone_sha256: _Sha256


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[int, Field(ge=_FORMAT, le=_FORMAT)] = _FORMAT
    desks: tuple[Desk, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class NewDesk:
    """A desk with what is shown once.

    Attributes:
        desk: The desk.
        token: For its desktop client.
        phone: The secret part of its handset's addresses.
    """

    desk: Desk
    token: str
    phone: str


def add(
    state_dir: Path,
    name: str,
    lines: Sequence[str],
    *,
    now_ms: int,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> NewDesk:
    """Adds a desk.

    Args:
        state_dir: The agent's state directory.
        name: How it is called.
        lines: Its extensions, as the switch spells them.
        now_ms: Unix time in milliseconds.
        randomness: Yields random bytes.

    Raises:
        MalformedInput: If name or lines cannot be used, or the file is damaged.
        PolicyViolation: If there is a desk of that name.
        OSError: If the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise MalformedInput("a desk's name has 1 to 64 letters, digits, spaces and .-@'(), such as \"Reception 2\"")
    token, phone = (_secret(randomness) for _ in range(2))
    desk = Desk(
        id=f"desk_{ids.ulid(now_ms, randomness(ids.ULID_RANDOM_BYTES))}",
        name=name,
        lines=_normalised(lines),
        token_sha256=_sha256(TOKEN_PREFIX + token),
        phone_sha256=_sha256(phone),
    )
    with _locked(state_dir):
        known = read(state_dir)
        if any(other.name == name for other in known):
            raise PolicyViolation(f"there is a desk {name!r} already: remove it first, or choose another name")
        _write(state_dir, [*known, desk])
    return NewDesk(desk, TOKEN_PREFIX + token, phone)


def remove(state_dir: Path, name: str) -> Desk:
    """Removes a desk; its token and its handset's addresses end at once.

    Raises:
        NotFound: If there is none of that name.
        MalformedInput: If the file is damaged.
        OSError: If the file cannot be written.
    """
    with _locked(state_dir):
        known = read(state_dir)
        found = next((desk for desk in known if desk.name == name), None)
        if found is None:
            raise NotFound(f"there is no desk {name!r}: dualtone-agent desk list shows those there are")
        _write(state_dir, [desk for desk in known if desk != found])
    return found


def read(state_dir: Path) -> tuple[Desk, ...]:
    """The desks, in the order in which they were added; none if there is no file.

    Raises:
        MalformedInput: If the file is damaged.
        OSError: If it cannot be read.
    """
    path = state_dir / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        return _File.model_validate(canonical.decode(data)).desks
    except (ValidationError, MalformedInput):
        raise MalformedInput(f"{path} is damaged: remove it and add the desks anew") from None


class Desks:
    """The desks as they are now. Only the event loop uses it.

    Args:
        state_dir: The agent's state directory.
        log: Where a file that cannot be read is told; those known before stay.
    """

    def __init__(self, state_dir: Path, log: Log) -> None:
        self._state_dir = state_dir
        self._log = log
        self._seen: tuple[int, ...] | None = None
        self._desks: tuple[Desk, ...] = ()

    def with_token(self, token: str) -> Desk | None:
        """The desk that a token is of, or None."""
        return self._found(token, lambda desk: desk.token_sha256)

    def with_phone(self, phone: str) -> Desk | None:
        """The desk that the secret part of an address is of, or None."""
        return self._found(phone, lambda desk: desk.phone_sha256)

    def _found(self, secret: str, hash_of: Callable[[Desk], str]) -> Desk | None:
        """Compares with every desk, so that the time it takes tells nothing of which it was."""
        self._look()
        given, found = _sha256(secret), None
        for desk in self._desks:
            if hmac.compare_digest(hash_of(desk), given):
                found = desk
        return found

    def _look(self) -> None:
        try:
            status = (self._state_dir / FILE_NAME).stat()
            seen: tuple[int, ...] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            seen = ()
        except OSError as error:
            self._log.failure("desks_unread", error)
            return
        if seen == self._seen:
            return
        try:
            self._desks = read(self._state_dir)
        except MalformedInput as error:  # not looked at again before somebody has written it anew
            self._log.failure("desks_unread", error)
        except OSError as error:  # looked at again at the next request: a desk may have been removed
            self._log.failure("desks_unread", error)
            return
        self._seen = seen


def _normalised(lines: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for line in lines:
        normal = normalise(line)
        if normal is None:
            raise MalformedInput("a line is an extension or a number as the switch spells it, such as 1001")
        found[normal] = None
    if not 0 < len(found) <= MOST_LINES:
        raise MalformedInput(f"a desk has 1 to {MOST_LINES} lines: give each with --line")
    return tuple(found)


def _secret(randomness: Callable[[int], bytes]) -> str:
    return randomness(_SECRET_BYTES).hex()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """One change at a time."""
    if not state_dir.is_dir():
        raise NotFound(f"{state_dir} does not exist: enrol this agent first")
    require_owner(state_dir)
    descriptor = hold_lock(state_dir / _LOCK_NAME, _LOCK_WAIT_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _write(state_dir: Path, desks: Sequence[Desk]) -> None:
    document = _File(desks=tuple(desks)).model_dump(mode="json")
    write_private(state_dir / FILE_NAME, json.dumps(document, indent=1).encode() + b"\n")
