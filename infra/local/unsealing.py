"""What a call's sealed files really hold: every copy that ever lay in spool or ingest, opened with the cloud's key.

For the demo and the tests alone. A span that was paused must not be in any of them, so all versions of all files are
kept as they are seen, several times a second, and the arrival times of their packets are compared with the span.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import boto3
import numpy as np
import numpy.typing as npt
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import call_files, canonical, media_record, part
from dualtone.domain.call_files import OpeningFile
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.part import RecordType

_EVERY_S: Final = 0.05
_PARTS: Final = (".dtp", ".dtp.open")


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file as it lay somewhere at a moment; the version tells two files of one name apart."""

    store: str
    call: str
    name: str
    version: str
    data: bytes


class SealedCopies:
    """Watches spool and ingest bucket from the moment it is entered; opens what it saw.

    Args:
        line: The JSON line of ``dualtone local --json``.
    """

    def __init__(self, line: Mapping[str, Any]) -> None:
        self._spool = Path(line["spool_dir"])
        self._bucket: str = line["resources"]["ingest_bucket"]
        session = boto3.Session("local", "local", region_name=line.get("region", "eu-west-1"))
        self._s3 = session.client("s3", endpoint_url=line["aws_endpoint"])
        self._kms = session.client("kms", endpoint_url=line["aws_endpoint"])
        self._seen: dict[tuple[str, str, str], dict[str, bytes]] = {}
        self._etags: set[tuple[str, str]] = set()
        self._keys: dict[tuple[str, int], AESGCM] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sealed copies", daemon=True)

    def __enter__(self) -> Self:
        """Begins to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks once more, and stops."""
        self._done.set()
        self._thread.join()

    def ever(self, store: str, call: str) -> npt.NDArray[np.int64]:
        """When the packets arrived that any copy ever held: each once, int64[n], microseconds of the agent's clock.

        Args:
            store: ``spool`` or ``ingest``.
            call: The agent's id of the call.
        """
        return self._arrivals(
            data
            for (where, whose, name), versions in list(self._seen.items())
            if (where, whose) == (store, call) and name.endswith(_PARTS)
            for data in list(versions.values())
        )

    def now(self, store: str, call: str) -> npt.NDArray[np.int64]:
        """As ``ever``, of what lies there now."""
        return self._arrivals(
            copy.data
            for copy in (self._in_spool() if store == "spool" else self._in_ingest(set()))
            if copy.call == call and copy.name.endswith(_PARTS)
        )

    def calls(self, store: str) -> set[str]:
        """The calls of which something was seen."""
        return {call for where, call, _ in self._seen if where == store}

    def _arrivals(self, parts: Iterable[bytes]) -> npt.NDArray[np.int64]:
        found = [np.empty(0, np.int64)]
        for data in parts:
            with contextlib.suppress(MalformedInput):  # a file of which not even the head was written yet
                read = part.read(data)
                key = self._key(read.header.call, read.header.epoch)
                found += [
                    block.arrival_us
                    for record in read.records
                    if record.head.type is RecordType.MEDIA
                    for block in media_record.decode(part.unseal(key, read.header, record))
                ]
        return np.unique(np.concatenate(found))

    def _key(self, call: CallId, epoch: int) -> AESGCM:
        name = call_files.opening_name(epoch)
        if (call, epoch) not in self._keys:
            opening = OpeningFile.decode(
                next(iter((self._seen.get(("spool", call, name)) or self._seen["ingest", call, name]).values()))
            )
            said = canonical.decode(opening.envelope.payload)
            unwrapped = self._kms.decrypt(
                KeyId=said["key_arn"], CiphertextBlob=opening.wrapped_key, EncryptionAlgorithm="RSAES_OAEP_SHA_256"
            )["Plaintext"]
            self._keys[call, epoch] = AESGCM(call_files.unbound_call_key(TenantId(said["tenant"]), call, unwrapped))
        return self._keys[call, epoch]

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        for copy in (*self._in_spool(), *self._in_ingest(self._etags)):
            versions = self._seen.setdefault((copy.store, copy.call, copy.name.removesuffix(".open")), {})
            known = versions.get(copy.version, b"")
            if copy.data.startswith(known):  # a part in the spool grows
                versions[copy.version] = copy.data
            elif not known.startswith(copy.data):
                versions[f"{copy.version}-{len(versions)}"] = copy.data

    def _in_spool(self) -> Iterator[_Copy]:
        for path in self._spool.glob("*/*"):
            if path.name.endswith(_PARTS) or path.name.startswith("opening-"):
                with contextlib.suppress(OSError):  # renamed or freed meanwhile
                    yield _Copy("spool", path.parent.name, path.name, str(path.stat().st_ino), path.read_bytes())

    def _in_ingest(self, known: set[tuple[str, str]]) -> Iterator[_Copy]:
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for listed in page.get("Contents", []):
                place = (listed["Key"], listed["ETag"])
                if place in known:
                    continue
                with contextlib.suppress(ClientError):  # deleted meanwhile
                    body = self._s3.get_object(Bucket=self._bucket, Key=listed["Key"])["Body"].read()
                    _, _, call, name = listed["Key"].split("/")
                    yield _Copy("ingest", call, name, listed["ETag"], body)
                    known.add(place)
