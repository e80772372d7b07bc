"""The same app behind the gateway that the template describes: over HTTP, as clients meet it."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from dualtone.adapters import clock
from infra.local.cloud import LocalCloud
from tests.adapters.api import recordings
from tests.adapters.api.recordings import Made


def get(cloud: LocalCloud, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A request without any field that it was not given; http.client sends no Accept."""
    connection = http.client.HTTPConnection(urlsplit(cloud.api_url).netloc, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_audio_arrives_as_it_left(cloud: LocalCloud, recording: Made, officer: str) -> None:
    """Binary through base64 and back, byte for byte, whole and in part."""
    path = f"/v1/recordings/{recording.recording_id}/audio"
    status, headers, body = get(cloud, path, Authorization=f"Bearer {officer}")
    assert (status, body) == (200, recording.file)
    assert headers["content-type"] == "audio/ogg; codecs=opus"
    status, headers, body = get(cloud, path, Authorization=f"Bearer {officer}", Range="bytes=100-")
    assert (status, body) == (206, recording.file[100:])
    assert headers["content-range"] == f"bytes 100-{len(recording.file) - 1}/{len(recording.file)}"


def test_the_gateway_and_the_app_refuse_in_one_voice(cloud: LocalCloud) -> None:
    """An unknown path, a missing token: problem details from the outer lock as from the inner one."""
    for path, status in (("/v1/nothing", 404), ("/v1/recordings", 401)):
        answer = get(cloud, path)
        assert (answer[0], answer[1]["content-type"]) == (status, "application/problem+json")
        assert json.loads(answer[2])["status"] == status


def test_requests_of_two_tenants_at_once_do_not_meet(cloud: LocalCloud) -> None:
    """Threads of one process serve them; each gets its own recording, every time."""
    at = clock.now_ms() - 300_000
    tenants = [(cloud.tenants[name].tokens["officer"], recordings.make(name, at)) for name in ("acme", "globex")]

    def ask(number: int) -> bool:
        token, made = tenants[number % 2]
        status, _, body = get(cloud, f"/v1/recordings/{made.recording_id}", Authorization=f"Bearer {token}")
        found: dict[str, Any] = json.loads(body)
        return status == 200 and found["recording_id"] == made.recording_id

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(48)))
