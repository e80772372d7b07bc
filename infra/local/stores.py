"""Every place where a running local cloud and its agent keep bytes, read and written as an outsider would.

The plaintext scanner reads them all. Each store can also be given a planted thing, so that a scan which finds nothing
can first show that it would have found something.
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STORES: Final = ("spool", "ingest", "vault", "tables", "queues", "logs", "temporary_files")
_MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_SYSTEM_TEMPORARY: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - looked into, never written to
_PEEKS: Final = 20

Thing = tuple[str, bytes]


class Stores:
    """The stores of one ``dualtone local``.

    Args:
        line: The JSON line that ``dualtone local --json`` printed.
        temporary: The directory that the processes were given as TMPDIR.
    """

    def __init__(self, line: Mapping[str, Any], temporary: Path) -> None:
        self._line = line
        self._temporary = temporary
        self._since = time.time()
        self._resources: Mapping[str, str] = line["resources"]
        session = boto3.Session("local", "local", region_name=line.get("region", "eu-west-1"))
        options = {"endpoint_url": line["aws_endpoint"], "config": Config(retries={"max_attempts": 2})}
        self._s3 = session.client("s3", **options)
        self._dynamodb = session.client("dynamodb", **options)
        self._sqs = session.client("sqs", **options)
        self._logs = session.client("logs", **options)
        self._readers: dict[str, Callable[[], Iterator[Thing]]] = {
            "spool": self._spool,
            "ingest": lambda: self._bucket(self._resources["ingest_bucket"]),
            "vault": lambda: self._bucket(self._resources["vault_bucket"]),
            "tables": self._tables,
            "queues": self._queues,
            "logs": self._log_files,
            "temporary_files": self._temporary_files,
        }

    def contents(self, store: str) -> Iterator[Thing]:
        """Yields a name and the bytes of every thing in a store."""
        yield from self._readers[store]()

    @contextlib.contextmanager
    def planted(self, store: str, data: bytes) -> Iterator[None]:
        """Puts ``data`` into a store for as long as the context lasts, and takes it out again."""
        name = f"planted-{uuid.uuid4().hex}"
        with contextlib.ExitStack() as stack:
            if store in {"spool", "logs", "temporary_files"}:
                directory = {"spool": Path(self._line["spool_dir"]), "temporary_files": self._temporary}.get(store)
                path = (directory or Path(self._line["log_files"][0]).parent) / f"{name}.log"
                path.write_bytes(data)
                stack.callback(path.unlink, missing_ok=True)
            elif store in {"ingest", "vault"}:
                self._plant_object(stack, self._resources[f"{store}_bucket"], name, data)
            elif store == "tables":
                table = self._resources["audit_table"]
                key = {"pk": {"S": name}, "sk": {"S": name}}
                self._dynamodb.put_item(TableName=table, Item=key | {"data": {"B": data}})
                stack.callback(self._dynamodb.delete_item, TableName=table, Key=key)
            else:
                url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
                stack.callback(self._sqs.delete_queue, QueueUrl=url)
                self._sqs.send_message(QueueUrl=url, MessageBody=base64.b64encode(data).decode("ascii"))
            yield

    def _plant_object(self, stack: contextlib.ExitStack, bucket: str, name: str, data: bytes) -> None:
        version = self._s3.put_object(Bucket=bucket, Key=name, Body=data).get("VersionId")
        extra: dict[str, Any] = {"VersionId": version} if version else {}
        stack.callback(self._s3.delete_object, Bucket=bucket, Key=name, **extra)

    def _spool(self) -> Iterator[Thing]:
        yield from _files(Path(self._line["spool_dir"]))

    def _bucket(self, bucket: str) -> Iterator[Thing]:
        for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for version in page.get("Versions", []):
                extra: dict[str, Any] = {"VersionId": version["VersionId"]} if version["VersionId"] != "null" else {}
                try:
                    body = self._s3.get_object(Bucket=bucket, Key=version["Key"], **extra)["Body"].read()
                except ClientError:  # deleted between the listing and the reading
                    continue
                yield f"s3://{bucket}/{version['Key']}", body

    def _tables(self) -> Iterator[Thing]:
        for table in self._dynamodb.list_tables()["TableNames"]:
            for page in self._dynamodb.get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    yield from ((f"dynamodb:{table}", data) for data in _leaves(item))

    def _queues(self) -> Iterator[Thing]:
        for url in self._sqs.list_queues().get("QueueUrls", []):
            for _ in range(_PEEKS):
                answer = self._sqs.receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0
                )
                messages = answer.get("Messages", [])
                for message in messages:
                    yield url.rpartition("/")[2], message["Body"].encode()
                if len(messages) < 10:  # noqa: PLR2004 - a short answer is the last one
                    break

    def _log_files(self) -> Iterator[Thing]:
        for directory in {Path(name).parent for name in self._line["log_files"]}:
            for path in sorted(directory.iterdir()):
                if path.is_file() and path.suffix == ".log":
                    yield from _file(path)
        for group in self._logs.describe_log_groups().get("logGroups", []):
            events = self._logs.filter_log_events(logGroupName=group["logGroupName"]).get("events", [])
            yield group["logGroupName"], "\n".join(event["message"] for event in events).encode()

    def _temporary_files(self) -> Iterator[Thing]:
        yield from _files(self._temporary)
        for pid in set(self._line["pids"].values()):
            yield from _open_files(pid)
        for root in {*_SYSTEM_TEMPORARY, tempfile.gettempdir()}:
            yield from self._new_entries(Path(root))

    def _new_entries(self, root: Path) -> Iterator[Thing]:
        """What appeared directly under a system's temporary directory while we ran, a test runner's own excepted."""
        for path in root.iterdir() if root.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.name.startswith("pytest-") or path.stat().st_ctime < self._since or not path.is_file():
                    continue
                yield from _file(path)


def _files(root: Path) -> Iterator[Thing]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield from _file(path)


def _file(path: Path) -> Iterator[Thing]:
    with contextlib.suppress(OSError):  # a part that is renamed or freed while we look
        if path.stat().st_size <= _MAX_FILE_BYTES:
            yield str(path), path.read_bytes()


def _open_files(pid: int) -> Iterator[Thing]:
    """Regular files that a process has open, deleted ones included."""
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.is_file() and not str(descriptor.readlink()).endswith((".so", ".py", ".pyc")):
                    yield from _file(descriptor)


def _leaves(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value.encode()
    elif isinstance(value, bytes):
        yield value
