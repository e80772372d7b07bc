"""The gate before the cloud: what is told of a call that is not, or not yet, recorded stays on the site.

What happens to a call that waits for a decision is held back; if the call is kept, all of it is told, in its order; if
not, nobody ever learns of it, nor of anything that comes of it later.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from dualtone.domain.agent_events import CallEvent, Event, HealthEvent

MOST_FORGOTTEN: Final = 10_000
MOST_HELD: Final = 1_000  # of one call: a desk that pauses all day must not fill the memory


class Events(Protocol):
    """Where events for the cloud are put."""

    def put(self, event: Event) -> None:
        """Takes an event."""


class SiteEvents:
    """Lets events of recorded calls through. Use it in the event loop alone.

    Args:
        events: Where they go.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._held: dict[str, list[Event]] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()

    def hold(self, call: str) -> None:
        """A call is not recorded, or not yet."""
        self._held.setdefault(call, [])

    def release(self, call: str) -> list[Event]:
        """A call is recorded: what is put goes through; returns what was held back, in its order."""
        return self._held.pop(call, [])

    def forget(self, call: str) -> None:
        """A call that was not recorded is over."""
        if self._held.pop(call, None) is not None:
            self._forgotten[call] = None
            if len(self._forgotten) > MOST_FORGOTTEN:
                self._forgotten.popitem(last=False)

    def put(self, event: Event) -> None:
        """Takes an event."""
        if isinstance(event, HealthEvent):
            self._events.put(event)
            return
        held = self._held.get(event.call)
        if held is None:
            if event.call not in self._forgotten:
                self._events.put(event)
        elif not isinstance(event, CallEvent) and len(held) < MOST_HELD:  # how it stands is told when it is released
            held.append(event)
