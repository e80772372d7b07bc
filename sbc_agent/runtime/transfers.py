"""What is known of a call's objects: a line for everything that happened to one. Pure: time is an argument.

A name that S3 has once answered for (stored, or taken already) can receive nothing else: every put says
``If-None-Match: *``. Until it has answered, an older put may still arrive, so a put that was begun and got no answer
leaves its object *unsettled*.

The ingest bucket forgets what nobody has committed for two weeks, and receipts can get lost. So an object is *stale*,
and put again, when

- it is the manifest, and no receipt has come for hours: its arrival makes the cloud tell anew what it has;
- it was stored a week ago: what was put is there for a week at least, and looked after once a day from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dualtone.domain.call_files import MANIFEST_NAME

BEGUN: Final = "begun"
STORED: Final = "stored"
PRESENT: Final = "present"
TAKEN: Final = "taken"
CUT: Final = "cut"
_ANSWERED: Final = frozenset({STORED, PRESENT, TAKEN})
_HOUR_S: Final = 3_600
_DAY_S: Final = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Transfer:
    """Something that happened to an object.

    Attributes:
        name: Its file name.
        sha256: SHA-256 of its bytes in hex.
        size_bytes: Its size.
        result: ``begun``; ``stored``; ``present`` when the same was there already; ``taken`` when the name was, and the
            agent may not look by what; ``cut`` when the file that these bytes came from was rewritten since.
        at_s: Unix time.
    """

    name: str
    sha256: str
    size_bytes: int
    result: str
    at_s: int


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what is up is left alone.

    Attributes:
        receipt_s: Seconds without a receipt after which the manifest is put again.
        again_s: Seconds after which everything is put again; well below the expiry of the ingest bucket.
        look_s: How often an object older than that is looked after.
    """

    receipt_s: float = 6.0 * _HOUR_S
    again_s: float = 7.0 * _DAY_S
    look_s: float = 1.0 * _DAY_S


@dataclass(slots=True)
class _Object:
    """An object that is up: its bytes as they were put last, when S3 took it, and when S3 last spoke of it."""

    last: Transfer
    stored_at_s: int


class Transfers:
    """What is up of a call.

    Args:
        lines: What happened so far, in order.
    """

    def __init__(self, lines: Iterable[Transfer] = ()) -> None:
        self._up: dict[str, _Object] = {}
        self._again: set[str] = set()
        self._unsettled: dict[str, str] = {}  # name: hash of the bytes that were begun last
        for line in lines:
            self.add(line)

    @property
    def up(self) -> frozenset[str]:
        """Names of the objects that are up and need not be put again."""
        return frozenset(self._up.keys() - self._again)

    @property
    def unsettled(self) -> frozenset[str]:
        """Names of the objects of which a put got no answer, and none since."""
        return frozenset(self._unsettled)

    def last(self, name: str) -> Transfer | None:
        """The last that S3 said of an object, or None."""
        found = self._up.get(name)
        return None if found is None else found.last

    def begins(self, name: str, sha256: str) -> bool:
        """Whether a put of these bytes would be news, or one like it is unsettled already."""
        return self._unsettled.get(name) != sha256

    def add(self, line: Transfer) -> None:
        """Takes in what happened."""
        if line.result == BEGUN:
            self._unsettled[line.name] = line.sha256
        elif line.result in _ANSWERED:
            self._unsettled.pop(line.name, None)
            self._again.discard(line.name)
            known = self._up.get(line.name)
            stored_at_s = line.at_s if known is None or line.result == STORED else known.stored_at_s
            self._up[line.name] = _Object(line, stored_at_s)

    def stale(self, now_s: float, patience: Patience) -> frozenset[str]:
        """Names of the objects that are to be put again; where there are any, the manifest is among them.

        Args:
            now_s: Unix time.
            patience: How long what is up is left alone.
        """
        names = {name for name, found in self._up.items() if _left_s(found, now_s, patience) <= 0}
        manifest = self._up.get(MANIFEST_NAME)
        if manifest is not None and (names or _age_s(manifest.last.at_s, now_s) >= patience.receipt_s):
            names.add(MANIFEST_NAME)
        return frozenset(names)

    def rest_s(self, now_s: float, patience: Patience) -> float:
        """Seconds until something is stale; without an end where nothing is up."""
        rests = [_left_s(found, now_s, patience) for found in self._up.values()]
        if (manifest := self._up.get(MANIFEST_NAME)) is not None:
            rests.append(patience.receipt_s - _age_s(manifest.last.at_s, now_s))
        return max(0.0, min(rests, default=float("inf")))

    def put_again(self, names: Iterable[str]) -> None:
        """Objects count as not up until S3 has spoken of them anew."""
        self._again.update(names)


def _age_s(at_s: float, now_s: float) -> float:
    """How long ago something was; without an end if the clock stood later then, for nobody knows."""
    return now_s - at_s if now_s >= at_s else float("inf")


def _left_s(found: _Object, now_s: float, patience: Patience) -> float:
    since_stored_s, since_answer_s = _age_s(found.stored_at_s, now_s), _age_s(found.last.at_s, now_s)
    return max(patience.again_s - since_stored_s, patience.look_s - since_answer_s)
