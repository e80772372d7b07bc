"""Whether the cloud has revoked this agent: for good, also over a restart without an uplink.

It is learnt from the signed word in the command queue, or from the token endpoint, which says so to nobody but who
signs with the agent's key. From then on nothing is sent to the cloud, new calls are refused with 503 so that the SBC
takes another recorder, calls in progress are recorded to their end, and the spool stays as it is: what becomes of it is
for people to decide. To record again the machine is enrolled anew, under another id, to which the note in
``state_dir/revoked`` does not apply.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dualtone.domain.errors import PolicyViolation
from dualtone.domain.ids import AgentId
from sbc_agent.runtime.durable import write_private
from sbc_agent.runtime.logs import Log

FILE_NAME: Final = "revoked"


class Revocation:
    """The fact. Any thread may ask and tell.

    Args:
        state_dir: Where it is noted.
        agent: Whose it is.
        log: Where it is told.
    """

    def __init__(self, state_dir: Path, agent: AgentId, log: Log) -> None:
        self._path = state_dir / FILE_NAME
        self._agent = agent
        self._log = log
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._is_revoked = _noted(self._path) == agent
        if self._is_revoked:
            log.error("revoked", agent=agent)

    @property
    def is_revoked(self) -> bool:
        """Whether it is."""
        return self._is_revoked

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` when it becomes so, in whatever thread learns it; at once if it is so already."""
        with self._lock:
            self._listeners.append(listener)
            if not self._is_revoked:
                return
        listener()

    def learn(self) -> None:
        """The cloud has said so. A disk that refuses costs only that a restart has to learn it again."""
        with self._lock:
            if self._is_revoked:
                return
            self._is_revoked = True
            listeners = list(self._listeners)
        self._log.error("revoked", agent=self._agent)
        try:
            write_private(self._path, f"{self._agent}\n".encode())
        except OSError as error:
            self._log.failure("revocation_not_kept", error)
        for listener in listeners:
            listener()

    def require_none(self) -> None:
        """Passes silently, or raises PolicyViolation: for every way to the cloud."""
        if self._is_revoked:
            raise PolicyViolation("this agent was revoked")


def _noted(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
