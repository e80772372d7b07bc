"""SRTP of all streams: what a drain brought is authenticated and decrypted where it lies (RFC 3711 section 3.3).

Each row has the keys that its sender may use: those of the last description, and the ones before, for packets that
were on their way when the key changed. One pass tries every packet under its row's key of now, nearly always the right
one; what it refuses is looked at singly: another key, an older one, a roll-over that nobody heard. How often that is
searched in vain has a bound, for each stream and for all together, so that who sends rubbish costs little, and so does
an SBC that protects a thousand streams under keys it never told. No clock; times are microseconds of the agent's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dualtone.domain.errors import Unavailable
from sbc_agent.media.messages import CryptoSpec
from sbc_agent.media.rtp import windows
from sbc_agent.media.srtp_context import AUTHENTICATION_FAILED, OK, REPLAYED, TOO_OLD, CryptoContext, library

Int64s = npt.NDArray[np.int64]

AUTHENTIC, FORGED, REPLAY, MALFORMED, RTCP = range(5)  # what a packet was found to be
OLD_KEYS: Final = 4
SEARCHES: Final = 4
SEARCHES_OF_ALL: Final = 256  # in vain, of which each costs a third of a millisecond
SEARCH_EVERY_US: Final = 1_000_000
LONGEST_REST_US: Final = 64_000_000
_LOOKED_AT_SINGLY: Final = (AUTHENTICATION_FAILED, REPLAYED, TOO_OLD)
_STATUSES: Final = 64  # more than the library has
_VERDICT: Final = np.full(_STATUSES, MALFORMED, np.uint8)
_VERDICT[[OK, AUTHENTICATION_FAILED, REPLAYED, TOO_OLD]] = AUTHENTIC, FORGED, REPLAY, REPLAY
_RTCP_TYPES: Final = (64, 96)  # RFC 5761 section 4: RTCP on the RTP port, its type read as an RTP payload type
_RTCP_BYTES: Final = 8  # its header
_TYPE_MASK: Final = 0x7F


@dataclass(slots=True)
class _Patience:
    """How often something may fail in a while, which is twice as long after each that was used up, to a bound."""

    failures: int
    longest_us: int
    left: int = 0
    rest_us: int = 0
    since_us: int = 0

    def lasts(self, now_us: int) -> bool:
        if not self.left and now_us >= self.since_us + self.rest_us:
            self.left, self.since_us = self.failures, now_us
        return self.left > 0

    def fail(self) -> None:
        self.left -= 1
        if not self.left:
            self.rest_us = min(max(2 * self.rest_us, SEARCH_EVERY_US), self.longest_us)

    def succeed(self) -> None:
        self.left = self.rest_us = 0


@dataclass(slots=True)
class _Keys:
    """The contexts of a stream: those of now, those of before, the newest first; and how long it may be searched."""

    of_all: _Patience
    current: list[CryptoContext] = field(default_factory=list)
    old: list[CryptoContext] = field(default_factory=list)
    patience: _Patience = field(default_factory=lambda: _Patience(SEARCHES, LONGEST_REST_US))

    @property
    def handle(self) -> int:
        """The context under which a packet opens as it is; 0 where packets name theirs by an MKI."""
        return 0 if self.current[0].mki else self.current[0].handle

    def change(self, specs: Sequence[CryptoSpec]) -> None:
        """The keys are these from now on; a key that was there already goes on with its counters."""
        known = [*self.current, *self.old]
        self.current = [next((one for one in known if one.is_of(spec)), None) or CryptoContext(spec) for spec in specs]
        if any(one not in known for one in self.current):
            self.patience.succeed()
        old = [one for one in known if one not in self.current]
        self.old = old[:OLD_KEYS]
        for one in old[OLD_KEYS:]:
            one.close()

    def open(self, packet: bytes, address: int, now_us: int) -> tuple[int, int]:
        """Tries a packet under every key, then at every roll-over count; its status, and its bytes when opened."""
        status = AUTHENTICATION_FAILED
        for context in (*self.current, *self.old):
            one, size = context.open(packet, address)
            if one == OK:
                return one, size
            status = one if status == AUTHENTICATION_FAILED else status
        # What is a copy of a packet that was opened is no sign of a roll-over: a network that doubles is not searched.
        if status == REPLAYED or not (self.patience.lasts(now_us) and self.of_all.lasts(now_us)):
            return status, 0
        for context in self.current:
            one, size = context.open_at_any_roc(packet, address)
            if one == OK:
                self.patience.succeed()
                return one, size
        self.patience.fail()
        self.of_all.fail()
        return status, 0

    def close(self) -> None:
        """Overwrites all keys."""
        for context in (*self.current, *self.old):
            context.close()


class Unprotector:
    """The keys of all rows.

    Args:
        rows: How many streams at once.
    """

    def __init__(self, rows: int) -> None:
        self.is_protected = np.zeros(rows, np.bool_)
        self._handle = np.zeros(rows, np.uint64)
        self._keys: dict[int, _Keys] = {}
        self._patience = _Patience(SEARCHES_OF_ALL, SEARCH_EVERY_US)
        with suppress(Unavailable):  # now and not in mid-call; where there is none, plain RTP needs none
            library()

    @property
    def is_used(self) -> bool:
        """Whether any row has keys."""
        return bool(self._keys)

    def set_keys(self, row: int, specs: Sequence[CryptoSpec]) -> None:
        """Says under which keys a row's packets are protected from now on; none: they come as plain RTP.

        Raises:
            Unavailable: If this machine cannot open SRTP.
        """
        if not specs:
            self.close_row(row)
            return
        keys = self._keys.get(row, _Keys(self._patience))
        keys.change(specs)
        self._keys[row] = keys
        self._handle[row] = keys.handle
        self.is_protected[row] = True

    def close_row(self, row: int) -> None:
        """Overwrites a row's keys."""
        keys = self._keys.pop(row, None)
        if keys is not None:
            keys.close()
        self.is_protected[row], self._handle[row] = False, 0

    def open(
        self, row: Int64s, offset: Int64s, length: Int64s, arrival_us: Int64s, buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], Int64s]:
        """Unprotects packets in place.

        Args:
            row: Each packet's stream, in protected rows only, int64[n].
            offset: Where it lies, int64[n].
            length: Its bytes, int64[n].
            arrival_us: When it came, int64[n].
            buffer: Where all lie.

        Returns:
            What each was found to be, uint8[n]; and the bytes that are left of it, int64[n].
        """
        verdict = np.full(row.size, RTCP, np.uint8)
        media = np.flatnonzero(~_is_rtcp(buffer, offset, length))
        copies = windows(buffer, max(int(length.max(initial=0)), 1))[offset[media]]
        address = offset + buffer.ctypes.data
        status, left = self._open_all(self._handle[row[media]], address[media], length[media])
        for index in np.flatnonzero(np.isin(status, _LOOKED_AT_SINGLY)).tolist():
            packet = media[index]
            whole = copies[index].tobytes()[: length[packet]]
            status[index], left[index] = self._keys[int(row[packet])].open(
                whole, int(address[packet]), int(arrival_us[packet])
            )
        verdict[media] = _VERDICT[status]
        length = length.copy()
        length[media] = left
        return verdict, length

    def _open_all(self, handle: npt.NDArray[np.uint64], address: Int64s, length: Int64s) -> tuple[Int64s, Int64s]:
        """Tries packets as they are under one context each; statuses and lengths, int64[n]."""
        status = np.full(handle.size, AUTHENTICATION_FAILED, np.int64)
        size = length.astype(np.intc)
        direct = np.flatnonzero(handle)
        sizes = size.ctypes.data + direct * size.itemsize
        status[direct] = np.fromiter(
            map(library().unprotect, handle[direct].tolist(), address[direct].tolist(), sizes.tolist()),
            np.int64,
            direct.size,
        )
        return status, size.astype(np.int64)


def _is_rtcp(buffer: npt.NDArray[np.uint8], offset: Int64s, length: Int64s) -> npt.NDArray[np.bool_]:
    kind = buffer[offset + 1] & _TYPE_MASK
    is_rtcp: npt.NDArray[np.bool_] = (kind >= _RTCP_TYPES[0]) & (kind < _RTCP_TYPES[1]) & (length >= _RTCP_BYTES)
    return is_rtcp
