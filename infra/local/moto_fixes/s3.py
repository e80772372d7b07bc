"""S3: checksums that are checked, retention that holds, atomic conditional writes, events that say what happened."""

import base64
import hashlib
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any
from urllib.parse import quote_plus

from moto.core.responses import ActionResult
from moto.s3 import notifications
from moto.s3.exceptions import AccessDeniedByLock, MissingKey, MissingVersion, S3ClientError
from moto.s3.models import FakeKey, S3Backend
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum
from werkzeug.datastructures import Headers

from infra.local.moto_fixes.mend import Mend, Patch

_CHECKSUM_HEADER = "x-amz-checksum-"
_COMPUTABLE = ("CRC32", "SHA1", "SHA256")  # CRC32C and CRC64NVME need libraries that are not here: passed through

_WRITE = threading.RLock()
_SEQUENCE = itertools.count(1)


# ---------------------------------------------------------------- atomic writes


def _one_write_at_a_time(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def respond(self: S3Response, *args: Any, **kwargs: Any) -> Any:
        with _WRITE:
            return original(self, *args, **kwargs)

    return respond


ATOMIC_WRITES = Mend(
    name="s3-atomic-conditional-writes",
    restores="Of several writes with If-None-Match: * to one key at the same time exactly one succeeds, the others get "
    "412 PreconditionFailed.",
    documented="Amazon S3 User Guide, 'How to prevent object overwrites with conditional writes'",
    patches=(
        Patch(S3Response, "_key_response_put", _one_write_at_a_time),
        Patch(S3Response, "_key_response_delete", _one_write_at_a_time),
    ),
)


# ---------------------------------------------------------------- checksums


def _given_checksum(headers: Any) -> tuple[str, str] | None:
    for name, value in headers.items():
        algorithm = name.lower().removeprefix(_CHECKSUM_HEADER)
        if algorithm != name.lower() and algorithm not in ("algorithm", "type", "mode"):
            return algorithm.upper(), value
    return None


def _bad_digest(what: str) -> S3ClientError:
    return S3ClientError("BadDigest", f"The {what} you specified did not match the calculated checksum.")


def _checking_checksums(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def put(self: S3Response, query: dict[str, Any], key_name: str) -> Any:
        body = self.body or b""
        body = body.encode() if isinstance(body, str) else body
        if (md5 := self.headers.get("Content-MD5")) and md5 != base64.b64encode(
            hashlib.md5(body, usedforsecurity=False).digest()
        ).decode("ascii"):
            raise _bad_digest("Content-MD5")
        if given := _given_checksum(self.headers):
            algorithm, value = given
            if algorithm in _COMPUTABLE and compute_checksum(body, algorithm).decode("ascii") != value:
                raise _bad_digest(algorithm)
            if "x-amz-sdk-checksum-algorithm" not in self.headers:
                # So that moto stores and returns it; the headers of a request cannot be changed in place.
                self.headers = Headers([*self.headers.items(), ("x-amz-sdk-checksum-algorithm", algorithm)])
        return original(self, query, key_name)

    return put


CHECKSUMS = Mend(
    name="s3-checksums",
    restores="A body that does not match its Content-MD5 or x-amz-checksum-* header is refused with BadDigest; the "
    "checksum of one that does is stored with the object and returned by PutObject, and by HeadObject and GetObject on "
    "request.",
    documented="Amazon S3 User Guide, 'Checking object integrity in Amazon S3'",
    patches=(Patch(S3Response, "_key_response_put", _checking_checksums),),
)


# ---------------------------------------------------------------- retention


def _until(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _weakens(key: FakeKey, mode: str | None, until: str | None) -> bool:
    """Tell whether new retention is shorter or softer than what holds now."""
    if mode is None or until is None or key.lock_until is None:
        return True
    shorter = _until(until) < _until(key.lock_until)
    return shorter or (key.lock_mode == "COMPLIANCE" and mode != "COMPLIANCE")


def _holding_retention(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def put_object_retention(self: S3Response) -> Any:
        key_name = self.parse_key_name()
        version_id = self._get_param("versionId")
        key = self.backend.get_object(self.bucket_name, key_name, version_id=version_id)
        if key is None:
            raise MissingVersion if version_id else MissingKey(key=key_name)
        mode, until = self._mode_until_from_body()
        if until is not None and _until(until) <= datetime.now(UTC):
            raise S3ClientError("InvalidArgument", "The retain until date must be in the future!")
        bypass = self.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
        in_force = key.lock_mode is not None and key.lock_until and _until(key.lock_until) > datetime.now(UTC)
        may_bypass = key.lock_mode == "GOVERNANCE" and bypass
        if in_force and _weakens(key, mode, until) and not may_bypass:
            raise AccessDeniedByLock
        return original(self)

    return put_object_retention


RETENTION = Mend(
    name="s3-retention-holds",
    restores="COMPLIANCE retention can be extended but neither shortened, removed nor changed to GOVERNANCE; "
    "GOVERNANCE retention is weakened only with x-amz-bypass-governance-retention. A date in the past is refused.",
    documented="Amazon S3 User Guide, 'Locking objects with Object Lock', retention modes",
    patches=(Patch(S3Response, "put_object_retention", _holding_retention),),
)


def _answering_retention(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get(self: S3Response, query: dict[str, Any], key_name: str) -> Any:
        if "retention" not in query:
            return original(self, query, key_name)
        version_id = query.get("versionId", [None])[0]
        key = self.backend.get_object(self.bucket_name, key_name, version_id=version_id)
        if key is None:
            raise MissingVersion if version_id else MissingKey(key=key_name)
        if key.lock_mode is None or key.lock_until is None:
            raise S3ClientError(
                "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration"
            )
        self.data["Action"] = "GetObjectRetention"
        retention = {"Mode": key.lock_mode, "RetainUntilDate": _until(key.lock_until)}
        return self.serialized(ActionResult({"Retention": retention}))

    return get


GET_RETENTION = Mend(
    name="s3-get-retention",
    restores="GetObjectRetention answers mode and date of the version named.",
    documented="Amazon S3 API Reference, GetObjectRetention",
    patches=(Patch(S3Response, "_key_response_get", _answering_retention),),
)


def _lock_needs_versioning(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def put_bucket_versioning(self: S3Backend, bucket_name: str, status: str) -> None:
        if status == "Suspended" and self.get_bucket(bucket_name).object_lock_enabled:
            raise S3ClientError(
                "InvalidBucketState",
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
            )
        original(self, bucket_name, status)

    return put_bucket_versioning


LOCKED_VERSIONING = Mend(
    name="s3-object-lock-versioning",
    restores="Versioning cannot be suspended on a bucket with Object Lock.",
    documented="Amazon S3 User Guide, 'Object Lock considerations'",
    patches=(Patch(S3Backend, "put_bucket_versioning", _lock_needs_versioning),),
)


# ---------------------------------------------------------------- events


def _complete_event(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def event(event_name: str, bucket: Any, key: Any, notification_id: str) -> Any:
        message = original(event_name, bucket, key, notification_id)
        described = message["Records"][0]["s3"]["object"]
        described["key"] = quote_plus(key.name, safe="/")
        described["sequencer"] = f"{next(_SEQUENCE):018X}"
        if bucket.is_versioned:
            described["versionId"] = key.version_id
        return message

    return event


EVENTS = Mend(
    name="s3-event-records",
    restores="An event record carries a sequencer that grows per key and, in a versioned bucket, the versionId; its "
    "key is form-encoded with slashes left alone.",
    documented="Amazon S3 User Guide, 'Event message structure'",
    patches=(Patch(notifications, "_get_s3_event", _complete_event),),
)

MENDS = (CHECKSUMS, ATOMIC_WRITES, RETENTION, GET_RETENTION, LOCKED_VERSIONING, EVENTS)
