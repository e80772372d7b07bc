"""A span that had left the ring when its pause came is cut out of the call's parts, without any key.

What must be cut is noted before the pause is answered, and each run of the agent carries out all that is noted: a crash
forgets no cut, and no word of it. A part is rewritten beside the
old one, made durable, and takes its name; then the old bytes are overwritten with zeros and deleted. Whatever the
moment of a crash, each name leads to a whole part, and what was being overwritten is found again by its name.
Overwriting reaches the old bytes on disks that write in place; where a file system or disk writes elsewhere, their
being sealed is what protects them.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical, part
from dualtone.domain.errors import MalformedInput
from dualtone.domain.part import RecordType
from sbc_agent.media.call_state import replace_file
from sbc_agent.media.messages import Alarm, CutDone, Event
from sbc_agent.runtime.durable import sync_directory

CUTS_NAME: Final = "cuts.json"
OPEN_SUFFIX: Final = ".open"
ALL_PARTS: Final = 1 << 30
_PART: Final = re.compile(r"part-\d{2,}-(\d{6,})\.dtp(\.open)?", re.ASCII)
_OLD_SUFFIX: Final = ".cut"
_CHUNK_BYTES: Final = 1 << 20


@checked(config=ConfigDict(strict=True, extra="forbid"), frozen=True, slots=True)
class Cut:
    """What is to be cut out of a call's parts.

    Attributes:
        command: The pause that came too late.
        from_us: First arrival that goes, agent's clock.
        to_us: Last one.
        below: Parts from this index on were begun after the pause and hold nothing of the span.
    """

    command: str
    from_us: int
    to_us: int
    below: int = ALL_PARTS


_CUTS: Final = TypeAdapter(list[Cut])


def noted(directory: Path) -> list[Cut]:
    """The cuts that were noted; raises MalformedInput if the note is not one."""
    try:
        return _CUTS.validate_json((directory / CUTS_NAME).read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError:
        raise MalformedInput("the note of what is to be cut cannot be read") from None


def noted_for(directory: Path, command: str) -> Cut | None:
    """The cut that was noted for a command; None if none was, or the note cannot be read."""
    with suppress(MalformedInput):
        return next((cut for cut in noted(directory) if cut.command == command), None)
    return None


def note(directory: Path, cut: Cut) -> None:
    """Notes a cut before it is promised; the note stays with the call. Raises OSError if the disk refuses."""
    before: list[Cut] = []
    with suppress(MalformedInput):  # a power failure may have emptied it
        before = noted(directory)
    replace_file(directory / CUTS_NAME, canonical.encode(_CUTS.dump_python([*before, cut])))


def carry_out(directory: Path, call: str, cut: Cut) -> list[Event]:
    """Cuts a span out of a call's parts, those that end in ``.open`` included. Safe to repeat.

    Args:
        directory: The call's directory; one that is gone holds nothing.
        call: The call.
        cut: What goes.

    Returns:
        ``CutDone``; instead an alarm if a part cannot be read, in which case all others are cut.

    Raises:
        OSError: If the disk refuses; it can be tried again.
    """
    finish_overwriting(directory)
    names, is_damaged = [], False
    for index, path in part_paths(directory):
        if index >= cut.below:
            continue
        try:
            if _cut_part(path, cut):
                names.append(path.name.removesuffix(OPEN_SUFFIX))
        except FileNotFoundError:
            continue  # the call's directory was freed meanwhile
        except MalformedInput:
            is_damaged = True
    if is_damaged:
        return [Alarm(kind="unrecoverable", call=call)]
    return [CutDone(call=call, command=cut.command, from_us=cut.from_us, to_us=cut.to_us, parts=tuple(names))]


def part_paths(directory: Path) -> list[tuple[int, Path]]:
    """The parts of a call with their places in the chain, in its order, those that are open included."""
    matches = [(_PART.fullmatch(path.name), path) for path in directory.glob("part-*")]
    return sorted((int(match[1]), path) for match, path in matches if match is not None)


def finish_overwriting(directory: Path) -> None:
    """Finishes what a crash left of a cut: files that were being written, and those that were being overwritten."""
    for path in directory.glob(".part-*.new"):
        _overwrite(path)
    for path in directory.glob(f".part-*{_OLD_SUFFIX}"):
        live = path.with_name(path.name[1:].removesuffix(_OLD_SUFFIX))
        if live.exists() and live.samefile(path):  # the new part had not taken the name yet
            path.unlink()
        else:
            _overwrite(path)


def _cut_part(path: Path, cut: Cut) -> bool:
    """Cuts one part; tells whether it holds, or held, something of the span."""
    data = path.read_bytes()
    try:
        heads = [record.head for record in part.read(data).records if record.head.overlaps(cut.from_us, cut.to_us)]
    except MalformedInput:
        if not path.name.endswith(OPEN_SUFFIX):
            raise
        _overwrite(path)  # of a crash: its head never was whole
        return False
    kinds = {head.type for head in heads}
    if RecordType.MEDIA in kinds:
        _replace(path, part.cut(data, [(cut.from_us, cut.to_us)]))
    return bool(kinds & {RecordType.MEDIA, RecordType.REMOVED})


def _replace(path: Path, data: bytes) -> None:
    """Gives a part other bytes, under the time of the old ones; the old ones are overwritten."""
    old = path.with_name(f".{path.name}{_OLD_SUFFIX}")
    temporary = path.with_name(f".{path.name}.new")
    before = path.stat()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, before.st_mode & 0o777)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.fsync(descriptor)
    old.hardlink_to(path)
    temporary.rename(path)
    sync_directory(path.parent)
    _overwrite(old)


def _overwrite(path: Path) -> None:
    """Overwrites a file with zeros, durably, and deletes it."""
    with path.open("r+b", buffering=0) as file:
        left = path.stat().st_size
        while left:
            left -= file.write(bytes(min(left, _CHUNK_BYTES)))
        os.fsync(file.fileno())
    path.unlink()
