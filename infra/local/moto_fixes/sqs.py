"""SQS: a message goes to one receiver at a time, and receiving costs what it returns.

moto walks the queue without a lock, so that two threads can receive one message, and reckons every attribute of the
queue for each message it looks at.
"""

import copy
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.core.utils import unix_time, unix_time_millis
from moto.sqs.models import Message, Queue, SQSBackend, _filter_message_attributes, sqs_backends

from infra.local.moto_fixes.mend import Mend, Patch

_LOCK = threading.RLock()
_POLL_S = 0.5  # how long a visibility timeout that ends may go unnoticed by a long poll


def _take(queue: Queue, count: int, visibility_timeout: int, names: list[str]) -> list[Message]:
    """Receive up to `count` messages from a standard queue, moving those received too often to the dead letters."""
    taken: list[Message] = []
    with _LOCK:
        now_ms = unix_time_millis()
        redrive = queue.redrive_policy or {}
        expired_before_ms = now_ms - int(vars(queue)["message_retention_period"]) * 1000
        for message in list(queue._messages):  # noqa: SLF001 - moto has no other way in
            if len(taken) >= count:
                break
            if now_ms <= message.visible_at or now_ms < message.delayed_until:
                continue
            queue.pending_messages.discard(message)
            if float(message.sent_timestamp or 0) <= expired_before_ms:
                queue._messages.remove(message)  # noqa: SLF001 - as above
                continue
            if queue.dead_letter_queue and message.approximate_receive_count >= redrive["maxReceiveCount"]:
                queue._messages.remove(message)  # noqa: SLF001 - as above
                queue.dead_letter_queue.add_message(message)
                continue
            queue.pending_messages.add(message)
            message.mark_received(visibility_timeout=visibility_timeout)
            received = copy.copy(message)
            received.message_attributes = dict(message.message_attributes)
            _filter_message_attributes(received, names)
            taken.append(received)
    return taken


def _receiving_once(original: Callable[..., list[Message]]) -> Callable[..., list[Message]]:
    @wraps(original)
    def receive_message(
        self: SQSBackend,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[Message]:
        queue = self.get_queue(queue_name)
        if queue.fifo_queue:
            with _LOCK:
                return original(self, queue_name, count, 0, visibility_timeout, message_attribute_names)
        deadline = unix_time() + wait_seconds_timeout
        while True:
            taken = _take(queue, count, visibility_timeout, message_attribute_names or [])
            remaining_s = deadline - unix_time()
            if taken or remaining_s <= 0:
                return taken
            with queue._messages_lock:  # noqa: SLF001 - moto's condition is what add_message notifies
                queue._messages_lock.wait_for(lambda: _has_visible(queue), min(_POLL_S, remaining_s))  # noqa: SLF001

    return receive_message


def _locked(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _LOCK:
            return original(self, *args, **kwargs)

    return guarded


RECEIVE = Mend(
    name="sqs-receive",
    restores="A message that one consumer received is hidden from every other for its visibility timeout, also when "
    "they ask at the same moment; a deep queue is received from as quickly as a shallow one.",
    documented="Amazon SQS Developer Guide, 'Amazon SQS visibility timeout'",
    patches=(
        Patch(SQSBackend, "receive_message", _receiving_once),
        Patch(SQSBackend, "change_message_visibility", _locked),
        Patch(Queue, "delete_message", _locked),
    ),
)

MENDS = (RECEIVE,)


def wait_for_visible(account: str, region: str, queue_name: str, timeout_s: float, stopped: Callable[[], bool]) -> None:
    """Block until a queue has a visible message, `stopped` says so, or the time is over: a long poll without requests.

    Args:
        account: account id, 12 digits.
        region: AWS region name.
        queue_name: name of the queue.
        timeout_s: longest wait.
        stopped: asked whenever somebody calls `wake`.
    """
    queue = sqs_backends[account][region].queues[queue_name]
    with queue._messages_lock:  # noqa: SLF001 - moto's condition is what add_message notifies
        queue._messages_lock.wait_for(lambda: stopped() or _has_visible(queue), timeout=timeout_s)  # noqa: SLF001


def wake(account: str, region: str, queue_name: str) -> None:
    """Make whoever waits in `wait_for_visible` for this queue ask `stopped` again."""
    queue = sqs_backends[account][region].queues.get(queue_name)
    if queue is not None:
        with queue._messages_lock:  # noqa: SLF001 - as above
            queue._messages_lock.notify_all()  # noqa: SLF001 - as above


def _has_visible(queue: Queue) -> bool:
    now_ms = unix_time_millis()
    messages = queue._messages  # noqa: SLF001 - as above
    return any(now_ms > message.visible_at and now_ms >= message.delayed_until for message in messages)
