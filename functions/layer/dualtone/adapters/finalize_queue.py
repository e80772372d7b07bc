"""The finaliser's queue: notices of S3 that something arrived, and the sweeper's word that a call went silent.

The sweeper's message is ``{"interrupted": {"key": <where the manifest would lie>, "lasted_until_ms": <Unix ms>}}``. An
operator's is ``{"again": {"key": <the manifest's>, "after": <generation>}}``: render a call anew whose upload is kept.
All kinds name opaque ids only, and may come twice, late and in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from dualtone.adapters.aws_errors import translated
from dualtone.domain.call_files import MANIFEST_NAME, ingest_prefix
from dualtone.domain.call_watch import Watch
from dualtone.domain.errors import MalformedInput

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, slots=True)
class Request:
    """What one message asks of the finaliser.

    Attributes:
        key: An object of the ingest bucket that arrived; of a silent call, where its manifest would lie.
        lasted_until_ms: Until when a silent call lasted by its agent's word, Unix time; 0 if it never said, None for an
            object that arrived.
        after: The generation after which a call is to be rendered anew; None for the other messages.
    """

    key: str
    lasted_until_ms: int | None = None
    after: int | None = None


class FinalizeQueue:
    """Asks the finaliser."""

    def __init__(self, client: SQSClient, url: str) -> None:
        """Takes the client and the queue's URL."""
        self._client = client
        self._url = url

    def ask(self, watch: Watch) -> None:
        """Asks for a silent call to be finalised, with or without a manifest.

        Raises:
            PolicyViolation: If the queue refuses.
            Unavailable: If SQS does not answer.
        """
        key = ingest_prefix(watch.tenant, watch.agent, watch.call) + MANIFEST_NAME
        body = json.dumps({"interrupted": {"key": key, "lasted_until_ms": watch.lasted_until_ms or 0}})
        with translated("asking the finaliser"):
            self._client.send_message(QueueUrl=self._url, MessageBody=body)


def requests(body: object) -> Iterator[Request]:
    """Reads a message's body; S3's test message, sent when notifications are set up, asks for nothing.

    Raises:
        MalformedInput: If it is none of the forms above.
    """
    if not isinstance(body, dict):
        raise MalformedInput("a message to the finaliser is a JSON object")
    try:
        if "interrupted" in body:
            yield Request(str(body["interrupted"]["key"]), int(body["interrupted"]["lasted_until_ms"]))
        if "again" in body:
            yield Request(str(body["again"]["key"]), after=int(body["again"]["after"]))
        for notice in body.get("Records", []):
            yield Request(unquote_plus(_key(notice)))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInput("a message to the finaliser lacks what it is about") from error


def _key(notice: Any) -> str:  # noqa: ANN401 - JSON
    return str(notice["s3"]["object"]["key"])
