"""The agent's command queue: receipts, commands and decisions, signed by the cloud's pinned key, read without a gap.

Two threads poll, so that one waits for messages while the other acts. Messages of one answer are handed over together
and waited for together, commands before receipts: a pause does not wait while the parts of a long call are compared. A
message is deleted after it was acted upon, a command only when it would survive the end of the process; so a crash
repeats it, and acting twice is harmless. What is not signed, or for another agent, or of a kind that a later version of
the cloud sends, is alarmed and changes nothing.
"""

from __future__ import annotations

import random as random_numbers
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Final

from dualtone.domain import agent_revocation, call_command, call_decision, canonical
from dualtone.domain.agent_revocation import Revoked
from dualtone.domain.call_command import Command
from dualtone.domain.call_decision import Decision, Refresh
from dualtone.domain.errors import DualtoneError, IntegrityError, MalformedInput, Unavailable
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.identity import Identity
from sbc_agent.runtime.ingest_bucket import translated
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.receipts import Receipts

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

LONG_POLL_S: Final = 20
THREADS: Final = 2
POSTPONED: Final = "postponed"
_BATCH: Final = 10
_OBEYED_S: Final = 10.0
_CEILING_S: Final = 5.0  # a pause must not wait for a back-off when the uplink is back
_JOIN_S: Final = 0.5
UNHEARD_EVERY_S: Final = 30.0
"""So often the token endpoint is asked while the queue cannot be read: a revocation is known within a minute."""

Obey = Callable[[Command], ThreadFuture[str]]
Decide = Callable[[Decision], ThreadFuture[str]]


class CommandQueue:
    """Reads the agent's command queue, and acts.

    Args:
        client: An SQS client with the agent's credentials.
        identity: Whose queue it is, and whose signature is believed.
        receipts: Acts on receipts.
        obey: Hands a verified command to the event loop; done when it would survive the end of the process.
        decide: Likewise a verified decision.
        refresh: Fetches what is new, as a verified refresh asks; raises Unavailable to be asked again.
        revoked: Is told of a verified revocation.
        unheard: Asks another way what the cloud has to say, while the queue cannot be read; raises no DualtoneError.
        log: Where alarms are told.
        clock: Monotonic seconds.
        random: Draws from [0, 1), for the jitter.
    """

    def __init__(
        self,
        *,
        client: SQSClient,
        identity: Identity,
        receipts: Receipts,
        obey: Obey,
        decide: Decide,
        refresh: Callable[[Refresh], None],
        revoked: Callable[[], None],
        unheard: Callable[[], None],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._client = client
        self._identity = identity
        self._obey = obey
        self._decide = decide
        self._refresh = refresh
        self._revoked = revoked
        self._unheard = unheard
        self._asked_at = -UNHEARD_EVERY_S
        self._lock = threading.Lock()
        self._log = log
        self._clock = clock
        self._random = random
        self._acts: dict[str, Callable[[Envelope], str | ThreadFuture[str]]] = {
            "receipt": receipts.act,
            call_command.KIND: self._command,
            call_decision.KIND: self._decision,
            call_decision.REFRESH_KIND: self._refreshed,
            agent_revocation.KIND: self._revocation,
        }
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"commands-{index}", daemon=True) for index in range(THREADS)
        ]

    def start(self) -> None:
        """Starts the threads that poll."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops polling; a poll that is under way ends with the process."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_JOIN_S)

    def poll(self, wait_s: int = LONG_POLL_S) -> int:
        """Waits for messages, acts on each, and deletes those that were acted upon.

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
        messages = sorted(received.get("Messages", []), key=_is_receipt)
        acting = [(message["ReceiptHandle"], self.act(message.get("Body", ""))) for message in messages]
        entries = [
            {"Id": str(index), "ReceiptHandle": handle}
            for index, (handle, result) in enumerate(acting)
            if result != POSTPONED and (isinstance(result, str) or self._is_obeyed(result))
        ]
        if entries:
            translated(lambda: self._client.delete_message_batch(QueueUrl=queue, Entries=entries))  # type: ignore[arg-type]
        return len(messages)

    def act(self, body: str) -> str | ThreadFuture[str]:
        """Acts on one message.

        Returns:
            What came of it: ``freed``, ``repeated``, ``refreshed``, ``revoked``, ``rejected``, or ``postponed`` for one
            that must come again; for a command or a decision, what will.
        """
        try:
            envelope = _envelope(body)
            if (act := self._acts.get(envelope.kind)) is not None:
                return act(envelope)
            envelope.verified(self._identity.signing_public_key_der, envelope.kind)
            raise MalformedInput("a message that this version does not know")
        except Unavailable:
            return POSTPONED
        except DualtoneError as error:
            self._log.error("command_rejected", reason=type(error).__name__)
            return "rejected"

    def _command(self, envelope: Envelope) -> ThreadFuture[str]:
        command = call_command.verified(envelope, self._identity.signing_public_key_der)
        self._require_mine(command)
        return self._obey(command)

    def _decision(self, envelope: Envelope) -> ThreadFuture[str]:
        decision = call_decision.verified(envelope, self._identity.signing_public_key_der)
        self._require_mine(decision)
        return self._decide(decision)

    def _refreshed(self, envelope: Envelope) -> str:
        refresh = call_decision.verified_refresh(envelope, self._identity.signing_public_key_der)
        self._require_mine(refresh)
        self._refresh(refresh)
        return "refreshed"

    def _revocation(self, envelope: Envelope) -> str:
        word = agent_revocation.verified(envelope, self._identity.signing_public_key_der)
        self._require_mine(word)
        self._revoked()
        return "revoked"

    def _require_mine(self, message: Command | Decision | Refresh | Revoked) -> None:
        if (message.tenant, message.agent) != (self._identity.tenant, self._identity.agent):
            raise IntegrityError("a command for another agent")

    def _is_obeyed(self, result: ThreadFuture[str]) -> bool:
        """Waits for a command; whether its message may go."""
        try:
            result.result(_OBEYED_S)
        except (Unavailable, TimeoutError, CancelledError) as error:
            self._log.warning("command_repeats", reason=type(error).__name__)
            return False
        except Exception as error:  # noqa: BLE001 - whatever one command meets, the others are acted upon
            self._log.failure("command_failed", error)
            return False
        return True

    def _ask_elsewhere(self) -> None:
        """Asks, one thread at a time and not too often; the other goes on polling meanwhile."""
        with self._lock:
            now_s = self._clock()
            if now_s < self._asked_at + UNHEARD_EVERY_S:
                return
            self._asked_at = now_s
        self._unheard()

    def _work(self) -> None:
        backoff = Backoff(self._random, ceiling_s=_CEILING_S)
        while not self._stopping.is_set():
            try:
                if backoff.failures:
                    self._ask_elsewhere()
                self.poll()
                backoff.succeed()
            except DualtoneError as error:
                retry_s = backoff.fail(self._clock())
                if backoff.is_news:
                    self._log.warning(
                        "commands_unread",
                        reason=type(error).__name__,
                        retry_s=round(retry_s, 1),
                        attempts=backoff.failures,
                    )
                self._stopping.wait(retry_s)
            except Exception as error:  # noqa: BLE001 - a thread that ends would keep the spool for ever, in silence
                self._log.failure("commands_failed", error)
                self._stopping.wait(backoff.fail(self._clock()))


def _envelope(body: str) -> Envelope:
    return Envelope.from_json(canonical.decode(body.encode("utf-8", "surrogatepass")))


def _is_receipt(message: MessageTypeDef) -> bool:
    try:
        return _envelope(message.get("Body", "")).kind == "receipt"
    except DualtoneError:
        return False
