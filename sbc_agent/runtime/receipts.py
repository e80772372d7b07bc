"""Receipts: the cloud's signed word that a call is committed and locked, on which alone the spool frees it.

A receipt is believed if the pinned key signed it, if it is for this agent, and if its parts are exactly those that lie
in the spool. Anything else is alarmed and changes nothing. Acting twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable

from dualtone.domain import ids
from dualtone.domain.call_files import verified_receipt
from dualtone.domain.errors import IntegrityError, Unavailable
from dualtone.domain.ids import CallId
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.identity import Identity
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.uplink import Uplink


class Receipts:
    """Acts on receipts.

    Args:
        identity: Whose signature is believed, and for whom receipts are.
        uplink: Frees calls.
        freed: Told of every call that was freed, in the thread that acts.
        log: Where receipts and alarms are told.
    """

    def __init__(self, *, identity: Identity, uplink: Uplink, freed: Callable[[CallId], None], log: Log) -> None:
        self._identity = identity
        self._uplink = uplink
        self._freed = freed
        self._log = log

    def act(self, envelope: Envelope) -> str:
        """Acts on one receipt.

        Returns:
            ``freed``, ``repeated`` or ``rejected``.

        Raises:
            Unavailable: If the call is being sent just now: it can be acted upon later.
            IntegrityError: If it is not signed, or for another agent.
            MalformedInput: If it has not the form of a receipt.
        """
        receipt = verified_receipt(envelope, self._identity.signing_public_key_der)
        if (receipt.tenant, receipt.agent) != (self._identity.tenant, self._identity.agent):
            raise IntegrityError("a receipt for another agent")
        call = ids.parse_call_id(receipt.call)
        result = self._uplink.free(call, receipt.parts)
        if result == "busy":
            raise Unavailable("something of the call is being sent")
        if result in {"freed", "unknown"}:
            self._freed(call)
        if result == "freed":
            self._log.info("receipt", call=call, recording=receipt.recording, parts=len(receipt.parts), result=result)
            return "freed"
        if result == "unknown":
            self._log.debug("receipt", call=call, recording=receipt.recording, result="repeated")
            return "repeated"
        # REQ: FEATURES P6: the spool file goes only after the cloud has verified it.
        self._log.error("receipt_rejected", call=call, recording=receipt.recording, reason=result)
        return "rejected"
