"""Requests to AWS carry true time, whatever the machine's clock says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest

from sbc_agent.runtime.ingest_bucket import s3_client, sqs_client
from sbc_agent.runtime.request_signing import sign_by
from tests.agent.runtime import aws
from tests.agent.runtime.spooled import Clock


class Sent(Exception):  # noqa: N818 - not an error: far enough
    """The request was about to leave."""


def _put(client: Any) -> None:
    client.put_object(Bucket="ingest", Key="k", Body=b"x")


def _receive(client: Any) -> None:
    client.receive_message(QueueUrl="https://sqs.eu-west-1.amazonaws.com/000000000000/commands")


@pytest.mark.parametrize(("service", "request_it"), [("s3", _put), ("sqs", _receive)])
def test_the_signature_carries_the_clocks_time(service: str, request_it: Callable[[Any], None]) -> None:
    """Date and credential scope are the clock's, at each request anew; the token is signed as ever."""
    clock, sent = Clock(1_000_000_000), []
    session = aws.session()
    sign_by(session, clock)

    def keep(request: AWSRequest, **_: object) -> None:
        headers = {name.lower(): v.decode() if isinstance(v, bytes) else v for name, v in request.headers.items()}
        sent.append((headers["x-amz-date"], headers["authorization"].partition("Credential=")[2]))
        raise Sent

    client: Any = s3_client(session, threads=1) if service == "s3" else sqs_client(session)
    client.meta.events.register("before-send", keep)
    for now in (1_000_000_000, 1_100_000_000):
        clock.now = now
        with pytest.raises(Sent):
            request_it(client)
    client.close()
    assert [date for date, _ in sent] == ["20010909T014640Z", "20041109T113320Z"]
    assert [scope.split("/")[1:4] for _, scope in sent] == [
        ["20010909", aws.REGION, service],
        ["20041109", aws.REGION, service],
    ]
