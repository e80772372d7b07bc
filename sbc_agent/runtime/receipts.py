"""Receipts: the cloud's signed word that a call is committed and locked, on which alone the spool frees it.

They arrive in the agent's command queue as signed envelopes. A receipt is believed if the pinned key signed it, if it
is for this agent, and if its parts are exactly those that lie in the spool. Anything else is alarmed and changes
nothing. A message is deleted after it was acted upon, so a crash repeats it; acting twice is harmless.
"""

from __future__ import annotations

import random as random_numbers
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dualtone.domain import canonical, ids
from dualtone.domain.call_files import verified_receipt
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.identity import Identity
from sbc_agent.runtime.ingest_bucket import translated
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.uplink import Uplink

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LONG_POLL_S: Final = 20
_BATCH: Final = 10
_JOIN_S: Final = 0.5


class CommandQueue:
    """Reads the agent's command queue, and acts.

    Args:
        client: An SQS client with the agent's credentials.
        identity: Whose queue it is, and whose signature is believed.
        uplink: Frees calls.
        log: Where receipts and alarms are told.
        clock: Monotonic seconds.
        random: Draws from [0, 1), for the jitter.
    """

    def __init__(
        self,
        *,
        client: SQSClient,
        identity: Identity,
        uplink: Uplink,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._client = client
        self._identity = identity
        self._uplink = uplink
        self._log = log
        self._clock = clock
        self._backoff = Backoff(random)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="commands", daemon=True)

    def start(self) -> None:
        """Starts the thread that polls."""
        self._thread.start()

    def close(self) -> None:
        """Stops polling; a poll that is under way ends with the process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def poll(self, wait_s: int = LONG_POLL_S) -> int:
        """Waits for messages, acts on each, and deletes them.

        Args:
            wait_s: How long the queue may keep the request open, 0 to 20.

        Returns:
            How many there were.

        Raises:
            Unavailable: If the queue did not answer.
            PolicyViolation: If it refused.
        """
        queue = self._identity.command_queue_url
        received = translated(
            lambda: self._client.receive_message(QueueUrl=queue, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=wait_s)
        )
        messages = received.get("Messages", [])
        for message in messages:
            self.act(message.get("Body", ""))
        if messages:
            entries = [
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(messages)
            ]
            translated(lambda: self._client.delete_message_batch(QueueUrl=queue, Entries=entries))  # type: ignore[arg-type]
        return len(messages)

    def act(self, body: str) -> str:
        """Acts on one message; returns what came of it: ``freed``, ``repeated`` or ``rejected``."""
        try:
            envelope = Envelope.from_json(canonical.decode(body.encode("utf-8", "surrogatepass")))
            if envelope.kind != "receipt":
                envelope.verified(self._identity.signing_public_key_der, envelope.kind)
                raise MalformedInput("a command that this version does not know")
            return self._receipt(envelope)
        except DualtoneError as error:
            self._log.error("command_rejected", reason=type(error).__name__)
            return "rejected"

    def _receipt(self, envelope: Envelope) -> str:
        receipt = verified_receipt(envelope, self._identity.signing_public_key_der)
        if (receipt.tenant, receipt.agent) != (self._identity.tenant, self._identity.agent):
            raise IntegrityError("a receipt for another agent")
        call = ids.parse_call_id(receipt.call)
        result = self._uplink.free(call, receipt.parts)
        if result == "freed":
            self._log.info("receipt", call=call, recording=receipt.recording, parts=len(receipt.parts), result=result)
            return "freed"
        if result == "unknown":
            self._log.debug("receipt", call=call, recording=receipt.recording, result="repeated")
            return "repeated"
        # REQ: FEATURES P6: the spool file goes only after the cloud has verified it.
        self._log.error("receipt_rejected", call=call, recording=receipt.recording, reason=result)
        return "rejected"

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
                self._backoff.succeed()
            except DualtoneError as error:
                retry_s = self._backoff.fail(self._clock())
                self._log.warning(
                    "commands_unread",
                    reason=type(error).__name__,
                    retry_s=round(retry_s, 1),
                    attempts=self._backoff.failures,
                )
                self._stopping.wait(retry_s)
            except Exception as error:  # noqa: BLE001 - a thread that ends would keep the spool for ever, in silence
                self._log.failure("commands_failed", error)
                self._stopping.wait(self._backoff.fail(self._clock()))
