"""``dualtone ops``: what the functions gave up, why, and another try. With the operator's own AWS credentials.

``dead-letters`` looks at every dead-letter queue of a deployment and tells of each message what it is about, since
when, how often it was tried, and what stands in its way at this moment. ``redrive`` sends messages to the queue that
they came from and tells what came of them. Nothing is printed but ids, counts and states, never a message's body.

With ``--all``, what would fail again is left where it is; ``--message`` sends the one it names in any case. A message
is sent before it is removed: if that is interrupted, it comes twice, which the functions do not mind. Failed runs of
a schedule are dropped, since the schedule has run again. What the credentials must allow: ``operator_policy.json``.

The exit status is what a script wants to know: 0 nothing is left, 3 something is, 1 error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from dualtone.adapters import clock, finalize_queue
from dualtone.adapters.audit_outbox import AuditOutbox
from dualtone.adapters.call_ledger import CallLedger
from dualtone.adapters.dead_letters import DeadLetters, KeyStates, Letter, Queue
from dualtone.adapters.directory import Directory
from dualtone.adapters.ingest_store import IngestStore
from dualtone.adapters.key_store import KeyStore
from dualtone.adapters.recording_index import RecordingIndex
from dualtone.domain.errors import DualtoneError
from dualtone.domain.ids import CallId, TenantId, parse_call_id, parse_tenant_id
from dualtone.domain.signing import Envelope
from dualtone.usecases import explain_dead_letter
from dualtone.usecases.explain_dead_letter import ExplainDeadLetter, Explanation, Verdict
from infra.cli import deployment
from infra.cli.deployment import Deployment, NoDeployment

OK, FAILED, LEFT = 0, 1, 3
_POLL_S: Final = 0.5
_LOOKS_S: Final = 30.0


class Outcome(StrEnum):
    """What came of a redrive."""

    RECORDED = "recorded"
    DROPPED = "dropped"
    SENT = "sent"
    LEFT = "left"


_SAID: Final = {
    Outcome.RECORDED: "sent again, and recorded",
    Outcome.DROPPED: "removed: nothing had to be sent",
    Outcome.SENT: "sent again; what comes of it is not known yet",
    Outcome.LEFT: "left: it would fail again",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A dead letter with its explanation."""

    letter: Letter
    tries: int | None
    explained: Explanation

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        letter = self.letter
        told = {"queue": letter.queue.name, "message": letter.message_id, "sent_at_ms": letter.sent_at_ms}
        return {**told, "tries": self.tries, **asdict(self.explained)}

    def lines(self) -> Iterator[str]:
        """For people."""
        explained, since = self.explained, datetime.fromtimestamp(self.letter.sent_at_ms / 1000, UTC)
        tried = f", tried {self.tries} times" if self.tries else ""
        yield f"{self.letter.queue.name}  {self.letter.message_id}  since {since:%Y-%m-%d %H:%M:%S} UTC{tried}"
        names = [f"{name} {value}" for name in ("tenant", "agent", "call") if (value := getattr(explained, name))]
        yield f"    {explained.about}" + (f": {', '.join(names)}" if names else "")
        yield from (f"    {'!' if finding.blocks else '-'} {finding.text}" for finding in explained.findings)
        if explained.verdict is Verdict.CLEAR:
            yield "    nothing stands in its way now: redrive it"


class Operations:
    """Looks at a deployment's dead letters and sends them again."""

    def __init__(self, deployed: Deployment) -> None:
        """Takes the deployment."""
        client, outputs = deployed.client, deployed.outputs
        dynamodb, table = client("dynamodb"), outputs["IndexTableName"]
        audit = AuditOutbox(dynamodb, outputs["AuditTableName"], clock.random_bytes)  # of a reader, never written to
        keys = KeyStore(dynamodb, outputs["KeysTableName"])
        self._index = RecordingIndex(dynamodb, table, keys, audit, CallLedger(dynamodb, table, audit))
        self._queues = deployed.dead_letter_queues()
        self._letters = DeadLetters(client("sqs"))
        self._explain = ExplainDeadLetter(
            directory=Directory(dynamodb, outputs["DirectoryTableName"]),
            generations=self._index,
            uploads=IngestStore(client("s3"), outputs["IngestBucketName"]),
            key_states=KeyStates(client("kms")),
            keys=deployed.keys(),
        )

    @contextlib.contextmanager
    def held(self, only: str | None = None) -> Iterator[list[Seen]]:
        """Holds and explains the letters of all queues, or of one, for the length of a block."""
        chosen = [queue for queue in self._queues if only in {None, queue.name}]
        if not chosen:
            raise NoDeployment(f"no such queue: it is one of {', '.join(queue.name for queue in self._queues)}")
        with contextlib.ExitStack() as stack:
            yield [
                Seen(letter, self._letters.tries(queue), self._explained(letter))
                for queue in chosen
                for letter in stack.enter_context(self._letters.held(queue))
            ]

    def redrive(self, seen: Seen, *, anyway: bool) -> Outcome:
        """Sends one letter again, unless it would fail again and need not be sent anyway."""
        if seen.explained.verdict is Verdict.BLOCKED and not anyway:
            return Outcome.LEFT
        self._letters.redrive(seen.letter)
        return Outcome.SENT if seen.letter.queue.source_url else Outcome.DROPPED

    def has_come_of(self, seen: Seen) -> Outcome:
        """Whether the call of a letter that was sent again has got a recording, or a later one, since it was seen."""
        explained = seen.explained
        if explained.tenant is None or explained.call is None or seen.letter.queue.name != "finalize":
            return Outcome.SENT
        latest = self._index.latest_generation(TenantId(explained.tenant), CallId(explained.call))
        number = latest.number if latest else 0
        is_done = explained.verdict is Verdict.DONE or number > (explained.recorded or 0)
        return Outcome.RECORDED if is_done else Outcome.SENT

    def _explained(self, letter: Letter) -> Explanation:
        try:
            return self._by_queue(letter.queue, letter)
        except (DualtoneError, KeyError, TypeError, ValueError) as error:
            return explain_dead_letter.unreadable(error)

    def _by_queue(self, queue: Queue, letter: Letter) -> Explanation:
        if queue.source_url is None:
            return explain_dead_letter.scheduled(f"the {queue.name} function")
        body = json.loads(letter.body)
        if queue.name == "finalize":
            explained = [self._explain.upload(one.key, silent=one.lasted_until_ms is not None) for one in _asked(body)]
            return _together(explained)
        if queue.name == "agent-events":
            return self._explain.report(Envelope.from_json(body))
        return self._explain.cut(parse_tenant_id(body["tenant"]), parse_call_id(body["call"]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone ops``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in (
        ("dead-letters", "explain every message that was given up"),
        ("redrive", "send messages that were given up on their way again"),
    ):
        options = verbs.add_parser(verb, help=summary, description=summary)
        deployment.add_arguments(options)
        options.add_argument("--queue", metavar="Q", help="only this one, by the name that dead-letters shows")
        options.add_argument("--json", action="store_true", help="print one JSON object")
        if verb == "redrive":
            which = options.add_mutually_exclusive_group(required=True)
            which.add_argument("--message", metavar="ID", help="this one, whatever stands in its way")
            which.add_argument("--all", action="store_true", help="all in whose way nothing stands")
            options.add_argument(
                "--wait",
                type=float,
                default=_LOOKS_S,
                metavar="S",
                help="how long to see what comes of it (default: 30)",
            )


def run(arguments: argparse.Namespace) -> int:
    """Does what was asked; returns the exit status."""
    work = {"dead-letters": _dead_letters, "redrive": _redrive}[arguments.verb]
    try:
        return work(Operations(deployment.find(arguments)), arguments)
    except (NoDeployment, DualtoneError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"dualtone ops: {error}\n")
        return FAILED


def _dead_letters(operations: Operations, arguments: argparse.Namespace) -> int:
    with operations.held(arguments.queue) as letters:
        pass
    if arguments.json:
        _say(json.dumps({"letters": [seen.to_json() for seen in letters]}))
    else:
        _say("\n".join(line for seen in letters for line in seen.lines()) or "no dead letters")
    return LEFT if letters else OK


def _redrive(operations: Operations, arguments: argparse.Namespace) -> int:
    with operations.held(arguments.queue) as letters:
        chosen = [seen for seen in letters if arguments.all or seen.letter.message_id == arguments.message]
        outcomes = [operations.redrive(seen, anyway=not arguments.all) for seen in chosen]
    if not chosen and not arguments.all:
        raise NoDeployment(f"no dead letter has the id {arguments.message}")
    until_s = time.monotonic() + arguments.wait
    told = [
        _awaited(lambda seen=seen: operations.has_come_of(seen), until_s) if outcome is Outcome.SENT else outcome  # type: ignore[misc]
        for seen, outcome in zip(chosen, outcomes, strict=True)
    ]
    if arguments.json:
        _say(
            json.dumps(
                {"redriven": [{**seen.to_json(), "outcome": one} for seen, one in zip(chosen, told, strict=True)]}
            )
        )
    else:
        for seen, outcome in zip(chosen, told, strict=True):
            _say("\n".join([*seen.lines(), f"    => {_SAID[outcome]}"]))
    return LEFT if Outcome.LEFT in told or Outcome.SENT in told else OK


def _awaited(look: Callable[[], Outcome], until_s: float) -> Outcome:
    while (outcome := look()) is Outcome.SENT and time.monotonic() < until_s:
        time.sleep(_POLL_S)
    return outcome


def _asked(body: object) -> list[finalize_queue.Request]:
    return list(finalize_queue.requests(body))


def _together(explained: list[Explanation]) -> Explanation:
    """One explanation of a message that may ask for several things: S3 sends one at a time, and does not promise it."""
    if not explained:
        return explain_dead_letter.unreadable(ValueError())
    worst = max(explained, key=lambda one: [Verdict.DONE, Verdict.CLEAR, Verdict.BLOCKED].index(one.verdict))
    return replace(worst, findings=tuple(finding for one in explained for finding in one.findings))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
