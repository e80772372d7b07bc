"""Parts that were cut in the spool while, perhaps, older bytes of them were on their way: who waits for that to end.

Not thread-safe by itself; the courier uses it under its lock, and tells those who waited after it has let go of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from dualtone.domain.ids import CallId


@dataclass(slots=True)
class _Recut:
    """Somebody who waits: of which objects older bytes may still arrive."""

    open_names: set[str]
    future: Future[None] = field(default_factory=Future)


class Recuts:
    """Who waits for which objects of which calls."""

    def __init__(self) -> None:
        self._waiting: dict[CallId, list[_Recut]] = {}

    @property
    def calls(self) -> frozenset[CallId]:
        """The calls of which somebody waits."""
        return frozenset(self._waiting)

    def wait(self, call: CallId, open_names: Iterable[str]) -> Future[None]:
        """Begins to wait.

        Args:
            call: The call.
            open_names: Objects of which older bytes may still arrive.

        Returns:
            What is done when there are none; at once, where there were none.
        """
        recut = _Recut(set(open_names))
        if recut.open_names:
            self._waiting.setdefault(call, []).append(recut)
        else:
            recut.future.set_result(None)
        return recut.future

    def settled(self, call: CallId, name: str) -> list[Future[None]]:
        """S3 has answered for an object; returns whose waiting is over."""
        for recut in self._waiting.get(call, ()):
            recut.open_names.discard(name)
        return self._over(call)

    def gone(self, call: CallId) -> list[Future[None]]:
        """A call is not here any more, and nothing of it is sent; returns whose waiting is over."""
        return [recut.future for recut in self._waiting.pop(call, ())]

    def close(self) -> list[Future[None]]:
        """Nothing is sent any more; returns those who wait in vain."""
        waiting, self._waiting = self._waiting, {}
        return [recut.future for recuts in waiting.values() for recut in recuts]

    def _over(self, call: CallId) -> list[Future[None]]:
        recuts = self._waiting.get(call, [])
        left = [recut for recut in recuts if recut.open_names]
        if left:
            self._waiting[call] = left
        else:
            self._waiting.pop(call, None)
        return [recut.future for recut in recuts if not recut.open_names]
