"""After a restart the peer is asked for the keys of its SRTP. State; standard: RFC 3311, RFC 4568 section 5.1.

Keys are in memory alone (`snapshot.py`). An UPDATE of ours that offers the streams as they are brings an answer that
names the keys with which the peer sends. A peer that said in Allow that it takes no UPDATE is not asked; one that
refuses, or says nothing, has lost nothing: the streams wait for its next offer, as before. An offer of its own that
names them meanwhile answers the question better than its answer would; one that leaves them out does not.
"""

from dataclasses import dataclass
from typing import Final

from sbc_agent.protocol.transaction_layer import TransactionKey

MOST_QUESTIONS: Final = 3
# REQ: RFC 3261 section 14.1: whoever does not own the Call-ID waits less than 2 s after a 491.
ASK_AGAIN_SECONDS: Final = 1.5

_LATER: Final = frozenset({491, 500})


@dataclass(slots=True)
class KeyQuestion:
    """The question.

    Attributes:
        ask_at: when to ask; None while it is asked.
        request: the key of our UPDATE.
        is_open: whether its answer still matters.
        asked: how often it was asked.
    """

    ask_at: float | None
    request: TransactionKey | None = None
    is_open: bool = True
    asked: int = 0

    def is_due(self, now: float) -> bool:
        """Whether to ask now."""
        return self.is_open and self.ask_at is not None and self.ask_at <= now

    def deadline(self) -> float | None:
        """When to ask, or None."""
        return self.ask_at if self.is_open else None

    def put(self, request: TransactionKey) -> None:
        """It was asked by this request."""
        self.ask_at, self.request, self.asked = None, request, self.asked + 1

    def close(self) -> None:
        """Nothing more is asked, and no answer matters."""
        self.ask_at, self.is_open = None, False

    def refused(self, status: int, now: float) -> None:
        """It was refused: asked again where the peer has an offer of its own open, some times, else no more."""
        if status in _LATER and self.asked < MOST_QUESTIONS:
            self.ask_at = now + ASK_AGAIN_SECONDS
        else:
            self.close()
