"""moto with everything that a finaliser touches: what tests put into it, and what they look at afterwards.

The finaliser itself is made by ``adapters.wiring`` from the environment, as in a Lambda.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from moto.s3.models import s3_backends

from dualtone.adapters import wiring
from dualtone.adapters.attribute_values import from_item, to_item
from dualtone.adapters.kms import TrustedSigningKeys
from dualtone.adapters.recording_queries import RecordingQueries
from dualtone.domain.media_record import StreamBlock
from dualtone.domain.signing import Envelope
from dualtone.usecases.open_recording import OpenRecording
from tests.call_samples import AGENT, ANSWERED_US, TENANT, AgentKey, Upload, upload

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

REGION: Final = "eu-west-1"
INGEST: Final = "dualtone-ingest"
VAULT: Final = "dualtone-vault"
INDEX: Final = "dualtone-index"
KEYS: Final = "dualtone-keys"
DIRECTORY: Final = "dualtone-directory"
AUDIT: Final = "dualtone-audit"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": REGION,
}
ROLE: Final = "arn:aws:iam::123456789012:role/dualtone"


class FakeClock:
    """Unix time in milliseconds, as the functions read it."""

    def __init__(self) -> None:
        self.now_ms = ANSWERED_US // 1000

    def __call__(self) -> int:
        """The time."""
        return self.now_ms

    def pass_by(self, *, hours: float = 0, minutes: float = 0) -> int:
        """Lets time go by; returns what it is then."""
        self.now_ms += round(hours * 3_600_000 + minutes * 60_000)
        return self.now_ms


@dataclass
class Cloud:
    """Clients, keys, one tenant, one agent."""

    s3: S3Client
    dynamodb: DynamoDBClient
    sqs: SQSClient
    kms: KMSClient
    custodian_a: str
    custodian_b: str
    ingest_key: str
    signing_key: str
    certificate_key: str
    metadata_key: str
    hmac_key: str
    queue_url: str
    finalize_url: str
    cut_url: str
    agent_key: AgentKey

    def environment(self) -> dict[str, str]:
        """What the template's globals set."""
        values = {
            "STAGE": "test",
            "INDEX_TABLE": INDEX,
            "KEYS_TABLE": KEYS,
            "DIRECTORY_TABLE": DIRECTORY,
            "AUDIT_TABLE": AUDIT,
            "INGEST_BUCKET": INGEST,
            "VAULT_BUCKET": VAULT,
            "CUSTODIAN_A_KEY": self.custodian_a,
            "CUSTODIAN_B_KEY": self.custodian_b,
            "INGEST_KEY": self.ingest_key,
            "SIGNING_KEY": self.signing_key,
            "CERTIFICATE_KEY": self.certificate_key,
            "METADATA_KEY": self.metadata_key,
            "HMAC_KEY": self.hmac_key,
            "FINALIZE_QUEUE_URL": self.finalize_url,
            "CUT_QUEUE_URL": self.cut_url,
            "AGENT_EVENTS_QUEUE_URL": "https://sqs.invalid/agent-events",
            "USER_POOL_ID": "pool",
            "AGENT_ROLE_ARN": ROLE,
            "VAULT_ACCESS_ROLE_ARN": ROLE,
        }
        return {f"DUALTONE_{name}": value for name, value in values.items()} | {
            "POWERTOOLS_SERVICE_NAME": "dualtone",
            "POWERTOOLS_METRICS_NAMESPACE": "Dualtone",
        }

    def enrol(self, state: str = "active") -> None:
        """Writes tenant and agent into the directory."""
        tenant = {"name": "Acme", "lines": ["+4420794601??"], "retention_days": 365}
        agent = {
            "agent_id": AGENT,
            "name": "sbc",
            "state": state,
            "public_key": self.agent_key.public_pem,
            "command_queue_url": self.queue_url,
        }
        for sk, values in (("config", tenant), (f"agent#{AGENT}", agent)):
            item = to_item({"pk": f"tenant#{TENANT}", "sk": sk, **values})
            self.dynamodb.put_item(TableName=DIRECTORY, Item=item)

    def wrap(self, bound_call_key: bytes) -> bytes:
        """What an agent does with the public half of the ingest key."""
        public = load_der_public_key(self.kms.get_public_key(KeyId=self.ingest_key)["PublicKey"])
        assert isinstance(public, rsa.RSAPublicKey)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return public.encrypt(bound_call_key, oaep)

    def seal(self, blocks: Iterable[StreamBlock], **options: Any) -> Upload:
        """Seals a call as this tenant's agent does."""
        return upload(blocks, key=self.agent_key, wrap=self.wrap, key_arn=self.ingest_key, **options)

    def receive(self, sent: Upload, *, without: Collection[str] = (), at_ms: int | None = None) -> str:
        """Puts the files into the ingest bucket; returns the manifest's key.

        Args:
            sent: The files.
            without: Keys of files that do not come.
            at_ms: When S3 says they arrived; now if None.
        """
        for key, data in sent.files.items():
            if key not in without:
                self.s3.put_object(Bucket=INGEST, Key=key, Body=data)
                if at_ms is not None:
                    stored = s3_backends["123456789012"]["aws"].buckets[INGEST].keys[key]
                    stored.last_modified = datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None)
        return sent.manifest_key

    def receive_manifest(self, sent: Upload) -> str:
        """Puts the manifest alone; returns its key."""
        self.s3.put_object(Bucket=INGEST, Key=sent.manifest_key, Body=sent.files[sent.manifest_key])
        return sent.manifest_key

    def ingest_keys(self) -> list[str]:
        """What lies in the ingest bucket."""
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=INGEST).get("Contents", [])]

    def vault_versions(self) -> list[tuple[str, str]]:
        """Key and version of everything in the vault."""
        listed = self.s3.list_object_versions(Bucket=VAULT).get("Versions", [])
        return [(version["Key"], version["VersionId"]) for version in listed]

    def locked(self, key: str, version: str) -> bool:
        """Whether a version is locked in compliance mode."""
        head = self.s3.head_object(Bucket=VAULT, Key=key, VersionId=version)
        return head.get("ObjectLockMode") == "COMPLIANCE"

    def items(self, table: str, prefix: str = "") -> list[dict[str, Any]]:
        """All items of a table whose partition key begins with a prefix."""
        found = [from_item(item) for item in self.dynamodb.scan(TableName=table)["Items"]]
        return [item for item in found if item["pk"].startswith(prefix)]

    def recordings(self, call: str = "") -> list[dict[str, Any]]:
        """The recordings in the index, or those of one call."""
        found = [item for item in self.items(INDEX, f"{TENANT}#rec#") if item["sk"] == "rec"]
        return [item for item in found if not call or item["call_id"] == call]

    def asked(self) -> list[dict[str, Any]]:
        """Takes all messages out of the finaliser's queue."""
        bodies = []
        while messages := self.sqs.receive_message(QueueUrl=self.finalize_url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.finalize_url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def receipts(self) -> list[Envelope]:
        """Takes all messages out of the agent's queue."""
        received = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                received.append(Envelope.from_json(json.loads(message["Body"])))
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return received

    def signing_public_key(self) -> bytes:
        """The public half of the signing key."""
        return self.kms.get_public_key(KeyId=self.signing_key)["PublicKey"]

    def opened(self, call: str = "") -> bytes:
        """The one recording's whole virtual file: signature, key tree and both custodians' keys checked on the way."""
        (item,) = self.recordings(call)
        entry, _metadata = RecordingQueries(self.dynamodb, INDEX).recording(TENANT, item["recording_id"])
        reader = OpenRecording(
            wiring.vault_store(),
            wiring.key_store(),
            wiring.vault_access(),
            TrustedSigningKeys(wiring.kms(), frozenset({self.signing_key})),
        )
        return reader.read(entry, 0, reader.layout(entry).total_bytes - 1)

    def metadata(self) -> dict[str, Any]:
        """The one recording's metadata."""
        (item,) = self.recordings()
        entry, sealed = RecordingQueries(self.dynamodb, INDEX).recording(TENANT, item["recording_id"])
        return wiring.metadata_store().open(TENANT, entry.recording_id, sealed)


def made_cloud() -> Cloud:
    """Makes buckets, tables, keys and a queue, and enrols the agent; moto must be at work."""
    kms, s3, dynamodb, sqs = boto3.client("kms"), boto3.client("s3"), boto3.client("dynamodb"), boto3.client("sqs")
    location: Any = {"LocationConstraint": REGION}
    s3.create_bucket(Bucket=INGEST, CreateBucketConfiguration=location)
    s3.create_bucket(Bucket=VAULT, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=location)
    for table in (INDEX, KEYS, DIRECTORY, AUDIT):
        _make_table(dynamodb, table, by_time=table == INDEX)

    def key(**spec: Any) -> str:
        return kms.create_key(**spec)["KeyMetadata"]["Arn"]

    made = Cloud(
        s3=s3,
        dynamodb=dynamodb,
        sqs=sqs,
        kms=kms,
        custodian_a=key(),
        custodian_b=key(),
        ingest_key=key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"),
        signing_key=key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
        certificate_key=key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
        metadata_key=key(),
        hmac_key=key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC"),
        queue_url=sqs.create_queue(QueueName="dualtone-commands-agent")["QueueUrl"],
        finalize_url=sqs.create_queue(QueueName="dualtone-finalize")["QueueUrl"],
        cut_url=sqs.create_queue(QueueName="dualtone-cut")["QueueUrl"],
        agent_key=AgentKey(),
    )
    made.enrol()
    return made


def _make_table(dynamodb: DynamoDBClient, table: str, *, by_time: bool) -> None:
    def pair(prefix: str) -> Any:
        return [
            {"AttributeName": f"{prefix}pk", "KeyType": "HASH"},
            {"AttributeName": f"{prefix}sk", "KeyType": "RANGE"},
        ]

    index = {"IndexName": "by_time", "KeySchema": pair("gsi1"), "Projection": {"ProjectionType": "ALL"}}
    indexed: dict[str, Any] = {"GlobalSecondaryIndexes": [index]} if by_time else {}
    names = ("pk", "sk", "gsi1pk", "gsi1sk") if by_time else ("pk", "sk")
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=pair(""),
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        **indexed,
    )


def start_cold() -> None:
    """Drops what cached factories made for another cloud of this process, and the log of another test's output."""
    log = logging.getLogger("dualtone")
    log.handlers.clear()
    for mark in ("init", "powertools_handler"):  # by which powertools knows that the log has its handler
        vars(log).pop(mark, None)
    for name, module in list(sys.modules.items()):
        if name.startswith("dualtone.adapters."):
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def decode(ogg: bytes) -> npt.NDArray[np.int16]:
    """Decodes Ogg/Opus; int16[n, 2] at 8 kHz."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-nostdin", "-i", "pipe:0", "-f", "s16le", "-ar", "8000"]
    result = subprocess.run([*command, "-ac", "2", "pipe:1"], input=ogg, stdout=subprocess.PIPE, check=True)
    return np.frombuffer(result.stdout, "<i2").reshape(-1, 2)
