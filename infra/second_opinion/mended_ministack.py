"""ministack, with what it does unlike AWS mended where the product relies on it. Its own Python runs this file.

    .venv-ministack/bin/python -P infra/second_opinion/mended_ministack.py

departures.md lists these and all that is not mended. Each function here names the AWS behaviour that it restores; the
internals that it touches are those of the one version that requirements/ministack.txt pins.
"""

import functools
import importlib
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PERMISSIONS = 0o777
Answer = tuple[int, dict[str, str], bytes]


def unpack_as_lambda_does() -> None:
    """Unpack a function's zip with the permissions that it names, once for all of its environments.

    Lambda keeps permissions: an executable in the package can be run. ministack unpacks by `ZipFile.extractall`, which
    drops them, and the finaliser's ffmpeg cannot be started.

    What is unpacked is read-only in Lambda (/var/task, /opt), so environments can share it here, where each would write
    a quarter of a gigabyte before its first event.
    """
    unpacked: dict[tuple[tuple[str, int], ...], Path] = {}
    one_at_a_time = threading.Lock()

    def extract_all(archive: zipfile.ZipFile, path: str) -> None:
        with one_at_a_time:
            content = tuple((entry.filename, entry.CRC) for entry in archive.infolist())
            if content not in unpacked:
                unpacked[content] = _unpack(archive)
            place = Path(path)
            place.rmdir()
            place.symlink_to(unpacked[content], target_is_directory=True)

    setattr(zipfile.ZipFile, "extractall", extract_all)  # noqa: B010 - the signature is narrower than typeshed's


def _unpack(archive: zipfile.ZipFile) -> Path:
    folder = tempfile.mkdtemp(prefix="unpacked-")
    for entry in archive.infolist():
        path = archive.extract(entry, folder)
        if not entry.is_dir() and (mode := (entry.external_attr >> 16) & _PERMISSIONS):
            Path(path).chmod(mode)
    return Path(folder)


def answer_ranges_of_versions() -> None:
    """Answer GetObject with Range *and* versionId by that range: 206 (RFC 9110 section 14.2, and S3).

    ministack looks at Range only where no version is named, and sends the whole object: playback, which names the
    version that was committed, would get more than it asked for.
    """
    s3 = importlib.import_module("ministack.services.s3")
    names = vars(s3)
    get: Callable[..., Answer] = names["_get_object"]

    @functools.wraps(get)
    def get_range(bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None) -> Answer:
        status, answered, body = get(bucket, key, headers, query)
        wanted = headers.get("range", "")
        if status != 200 or not wanted or not names["_qp"](query or {}, "versionId", ""):  # noqa: PLR2004 - HTTP
            return status, answered, body
        span = names["_parse_range"](wanted, len(body))
        if span is None:
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        first, last = span
        # The checksum is the whole object's, and S3 leaves it out of a partial answer.
        kept = {name: value for name, value in answered.items() if not name.lower().startswith("x-amz-checksum")}
        kept |= {"Content-Range": f"bytes {first}-{last}/{len(body)}", "Content-Length": str(last - first + 1)}
        return 206, kept, body[first : last + 1]

    names["_get_object"] = get_range


def read_media_types() -> None:
    """Read `*~1*` in a REST API's BinaryMediaTypes as `*/*`.

    CloudFormation wants the slash written so (AWS::ApiGateway::RestApi, BinaryMediaTypes), and API Gateway stores it as
    the media type it means. ministack compares what is written, and sends audio as the base64 text of the function.
    """
    gateway = vars(importlib.import_module("ministack.services.apigateway_v1"))
    matches: Callable[[str | None, list[str]], bool] = gateway["_media_type_matches"]

    @functools.wraps(matches)
    def matches_as_meant(media_type: str | None, binary_media_types: list[str]) -> bool:
        return matches(media_type, [written.replace("~1", "/") for written in binary_media_types])

    gateway["_media_type_matches"] = matches_as_meant


def main() -> None:
    """Mend, then serve until SIGTERM."""
    unpack_as_lambda_does()
    answer_ranges_of_versions()
    read_media_types()
    importlib.import_module("ministack.app").main()


if __name__ == "__main__":
    main()
