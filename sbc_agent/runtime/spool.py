"""The spool as the uplink sees it: which sealed files wait, which are up, and when a call's directory may go.

``spool_dir/<call>/`` holds what the media process wrote: ``opening-00.json``, ``part-00-000000.dtp`` and so on, and
``manifest.json`` last. A name that ends in ``.open`` is still being written. Beside them the uplink keeps
``transfers.jsonl``, a line when the upload of an object begins and one when S3 has answered, so that a restart sends
nothing twice and knows what may still be on its way. A call's id begins with its time: the order of names is the order
of age.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dualtone.domain import ids
from dualtone.domain.call_files import MANIFEST_NAME
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId
from sbc_agent.runtime.durable import sync_directory
from sbc_agent.runtime.transfers import Transfer

TRANSFERS_NAME: Final = "transfers.jsonl"
_FREED_PREFIX: Final = ".freed-"
_OPENING: Final = 0
_OPENING_OR_PART: Final = re.compile(r"opening-(\d{2,})\.json|part-(\d{2,})-(\d{6,})\.dtp", re.ASCII)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the spool holds: calls, and bytes of all their files. Of calls that wait for a decision it says nothing."""

    calls: int
    size_bytes: int


def sending_key(name: str) -> tuple[int, int, int] | None:
    """Where a file comes in the order of sending: by key epoch, the opening before its parts; None for other files."""
    match = _OPENING_OR_PART.fullmatch(name)
    if match is None:
        return None
    return (int(match[1]), _OPENING, 0) if match[1] is not None else (int(match[2]), 1, int(match[3]))


class Spool:
    """The spool directory. Thread-safe as long as a call is handled by one thread at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def calls(self) -> list[CallId]:
        """The calls that have a directory, oldest first."""
        return sorted(call for call in map(_call, _names(self._root)) if call is not None)

    def path(self, call: CallId, name: str = "") -> Path:
        """A file of a call, or its directory."""
        return self._root / call / name

    def read(self, call: CallId, name: str) -> bytes:
        """The bytes of a file.

        The media process may cut a part while it is read: another file takes its name, and then the older one is
        overwritten. So what was read counts only if its file still has the name afterwards.

        Raises:
            OSError: If it is not there, or cannot be read.
        """
        path = self.path(call, name)
        while True:
            with path.open("rb") as file:
                data = file.read()
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return data

    def waiting(self, call: CallId, sent: frozenset[str]) -> list[str]:
        """The closed files of a call that are not up, in the order of sending, the manifest last.

        Parts without the opening record of their key epoch are of a call that waits for a decision: they stay here.

        Args:
            call: The call.
            sent: Names of the files that are up.
        """
        names = _names(self.path(call))
        if MANIFEST_NAME in names:
            names = _names(self.path(call))  # a listing that began when the manifest was there misses no part
        keyed = sorted((key, name) for name in names if (key := sending_key(name)) is not None)
        opened = {key[0] for key, _ in keyed if key[1] == _OPENING}
        found = [name for key, name in keyed if key[0] in opened and name not in sent]
        if MANIFEST_NAME in names and MANIFEST_NAME not in sent:
            found.append(MANIFEST_NAME)
        return found

    def changed_ns(self, call: CallId) -> int | None:
        """When a name in a call's directory last changed, nanoseconds of Unix time; None if there is no directory."""
        try:
            return self.path(call).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def transfers(self, call: CallId) -> list[Transfer]:
        """What happened to a call's objects, in order; a line torn by a crash counts as not there."""
        try:
            lines = self.path(call, TRANSFERS_NAME).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return list(_readable(lines))

    def note(self, call: CallId, transfer: Transfer) -> None:
        """Writes what happened to an object. Not forced to disk: what a crash forgets is put again and found there."""
        with self.path(call, TRANSFERS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(transfer), separators=(",", ":")) + "\n")

    def parts(self, call: CallId) -> list[str]:
        """Names of the closed parts of a call."""
        return sorted(
            name for name in _names(self.path(call)) if (key := sending_key(name)) is not None and key[1] == 1
        )

    def free(self, call: CallId) -> None:
        """Removes a call's directory, renamed first: a crash leaves all of it or nothing that looks like a call."""
        gone = self._root / f"{_FREED_PREFIX}{call}"
        self.path(call).rename(gone)
        sync_directory(self._root)
        shutil.rmtree(gone, ignore_errors=True)  # what is left goes at the next start

    def clear_freed(self) -> None:
        """Finishes what a crash left of :meth:`free`."""
        for path in self._root.glob(f"{_FREED_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def usage(self) -> Usage:
        """Counts calls and bytes; what nobody can open, since its call waits for a decision, does not count."""
        calls = size = 0
        for call in self.calls():
            names = _names(self.path(call))
            keys = [key for key in map(sending_key, names) if key is not None]
            if not any(place == _OPENING for _, place, _ in keys):
                continue
            calls += 1
            for name in names:
                try:
                    size += self.path(call, name).stat().st_size
                except FileNotFoundError:
                    continue  # renamed or freed meanwhile
        return Usage(calls, size)


def _call(name: str) -> CallId | None:
    try:
        return ids.parse_call_id(name)
    except MalformedInput:
        return None


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208 - names alone, without a Path made of each
    except FileNotFoundError:
        return []


def _readable(lines: list[str]) -> Iterator[Transfer]:
    for line in lines:
        try:
            yield Transfer(**json.loads(line))
        except (ValueError, TypeError):
            continue  # torn by a crash: that object is put again and found there
