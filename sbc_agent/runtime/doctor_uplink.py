"""What the doctor looks at on the way to the cloud: names, certificates, the API, credentials, queue and bucket.

Nothing is left behind: the queue is asked for a message that stays in it, and the bucket gets an object whose checksum
is wrong on purpose, which S3 refuses after it has looked whether the agent may put it.
"""

from __future__ import annotations

import base64
import datetime as dt
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509

from dualtone.domain.errors import DualtoneError, PolicyViolation
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime.clock_offset import Measurement, measurement
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.diagnosis import Diagnosis
from sbc_agent.runtime.identity import Identity

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

SOON_DAYS: Final = 30
WORST_OFFSET_S: Final = 1.0
_PROBE: Final = "doctor"
_WRONG_SHA256: Final = base64.b64encode(bytes(32)).decode("ascii")
# S3 looks at the checksum after the policies: this refusal says that the agent may put.
_CHECKSUM_REFUSED: Final = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "InvalidRequest"})


def names(addresses: dict[str, str], *, resolve: Callable[[str], object] = socket.gethostbyname) -> Iterator[Diagnosis]:
    """Whether the cloud's hosts have addresses.

    Args:
        addresses: URLs by what they are for.
        resolve: Looks a host up; raises OSError.
    """
    for what, url in addresses.items():
        host = urlsplit(url).hostname or ""
        try:
            resolve(host)
        except OSError:
            yield Diagnosis("dns", "fail", f"{host} ({what}) has no address here: check the resolver and the firewall")
        else:
            yield Diagnosis("dns", "ok", f"{host} ({what}) is known")


def health(api: CloudApi, base: str, clock: AgentClock) -> tuple[list[Diagnosis], Measurement | None]:
    """Whether the API answers, and what time it is there.

    Args:
        api: The way to it.
        base: Its base address.
        clock: The agent's clock.
    """
    sent_us = clock.now_us()
    try:
        answer = api.get_json(f"{base}/v1/health")
        found = measurement(sent_us, clock.now_us(), int(answer["now_ms"]))
    except (DualtoneError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, DualtoneError) else "its answer is not that of a Dualtone API"
        return [Diagnosis("api", "fail", f"{why}: check uplink.api, HTTPS_PROXY and the firewall")], None
    took_ms = 2 * found.error_us / 1000
    return [Diagnosis("api", "ok", f"{base} answers within {took_ms:.0f} ms"), judged_offset(found)], found


def judged_offset(found: Measurement) -> Diagnosis:
    """Judges how far this machine's clock is off. Pure."""
    offset_s = found.offset_us / 1e6
    text = f"this machine's clock is {abs(offset_s):.2f} s {'behind' if offset_s > 0 else 'ahead of'} the cloud's"
    if abs(offset_s) <= WORST_OFFSET_S + found.error_us / 1e6:
        return Diagnosis("clock", "ok", text)
    return Diagnosis(
        "clock", "warn", f"{text}: run an NTP client such as chrony; the agent reckons by true time meanwhile"
    )


def credentials(fetch: Callable[[], object]) -> Diagnosis:
    """Whether the cloud gives this agent credentials.

    Args:
        fetch: Asks the token endpoint; raises DualtoneError.
    """
    try:
        fetch()
    except PolicyViolation as error:
        return Diagnosis("token", "fail", f"{error}: was this agent revoked, or is this machine's clock wrong?")
    except DualtoneError as error:
        return Diagnosis("token", "fail", f"{error}: nothing can be sent meanwhile, and calls wait in the spool")
    return Diagnosis("token", "ok", "the cloud knows this agent and gives it credentials")


def command_queue(client: SQSClient, identity: Identity) -> Diagnosis:
    """Whether the agent may read its queue; what it finds becomes visible again at once."""
    fault = _fault(
        lambda: client.receive_message(
            QueueUrl=identity.command_queue_url,
            MaxNumberOfMessages=1,
            VisibilityTimeout=0,
            WaitTimeSeconds=0,
        )
    )
    if fault is None:
        return Diagnosis("queue", "ok", "the agent reads its command queue")
    return Diagnosis("queue", "fail", f"the command queue cannot be read ({fault}): check the firewall for SQS")


def ingest_bucket(client: S3Client, identity: Identity) -> Diagnosis:
    """Whether the agent may put below its prefix; nothing is put."""
    fault = _fault(
        lambda: client.put_object(
            Bucket=identity.ingest_bucket,
            Key=identity.prefix + _PROBE,
            Body=b"",
            ChecksumSHA256=_WRONG_SHA256,
            IfNoneMatch="*",
        )
    )
    if fault is None or fault in _CHECKSUM_REFUSED:
        return Diagnosis("bucket", "ok", f"the agent may put below {identity.prefix}")
    return Diagnosis(
        "bucket", "fail", f"the ingest bucket refuses ({fault}): check the firewall for S3, and revocation"
    )


def _fault(ask: Callable[[], object]) -> str | None:
    """What went wrong, in a word; None if nothing did."""
    try:
        ask()
    except ClientError as error:
        return str(error.response.get("Error", {}).get("Code", "error"))
    except (BotoCoreError, DualtoneError) as error:
        return type(error).__name__
    return None


def certificate(what: str, path: Path, now: dt.datetime) -> Diagnosis:
    """Whether a certificate's time is not over, nor soon.

    Args:
        what: What it is for.
        path: Its file, PEM.
        now: The time.
    """
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return Diagnosis("certificate", "fail", f"{what} {path} cannot be read: write the path of a certificate in PEM")
    days = (ends - now).days
    if days < 0:
        return Diagnosis("certificate", "fail", f"{what} {path} ended {-days} days ago: replace it")
    state, hint = ("warn", ": replace it in time") if days < SOON_DAYS else ("ok", "")
    return Diagnosis("certificate", state, f"{what} {path} lasts {days} days{hint}")  # type: ignore[arg-type]
