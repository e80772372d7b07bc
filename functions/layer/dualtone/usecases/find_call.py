"""Find out what became of a call that an SBC knows by its SIP Call-ID."""

from __future__ import annotations

from typing import Protocol

from dualtone.domain.errors import NotFound
from dualtone.domain.ids import TenantId
from dualtone.domain.recording_entry import CallState


class CallIndex(Protocol):
    """The index, by the token of a SIP Call-ID."""

    def calls(self, tenant: TenantId, token: str) -> list[CallState]:
        """Reads the calls with that Call-ID, the oldest first."""


class CallTokens(Protocol):
    """Makes the tokens under which Call-IDs are found."""

    def sip_call_id(self, tenant: TenantId, sip_call_id: str) -> str:
        """The token of a SIP Call-ID."""


class FindCall:
    """Finds a tenant's calls."""

    def __init__(self, index: CallIndex, tokens: CallTokens) -> None:
        """Takes the index and what makes tokens."""
        self._index = index
        self._tokens = tokens

    def find(self, tenant: TenantId, sip_call_id: str) -> CallState:
        """Reads the state of the latest call with a SIP Call-ID; raises NotFound if none has reached the cloud yet."""
        calls = self._index.calls(tenant, self._tokens.sip_call_id(tenant, sip_call_id))
        if not calls:
            raise NotFound("no call with that Call-ID has arrived")
        return calls[-1]
