"""The order of things when audio is released: on record first, opened second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dualtone.domain import gap_certificate
from dualtone.domain.errors import NotFound, Unavailable
from dualtone.domain.ids import CallId, RecordingId, TenantId
from dualtone.domain.pause import Pause
from dualtone.domain.signing import Envelope
from dualtone.usecases.play_recording import PlayRecording, Release
from tests.unit.usecases.entries import entry

ACME, RECORDING = TenantId("acme"), RecordingId("rec_aaaaaaaaaaaaaaaaaaaaaaaaaa")


class Steps:
    """Index, vault and log in one, that write down what was done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.total_bytes = 1000

    def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[Any, dict[str, Any]]:
        self.done.append("index")
        if (tenant, recording) != (ACME, RECORDING):
            raise NotFound("no such recording")
        return entry(tenant, recording), {}

    def layout(self, _recording: object) -> Steps:
        self.done.append("layout")
        return self

    def span_ms(self, first_byte: int, last_byte: int) -> tuple[int, int]:
        return first_byte, last_byte + 1

    def read(self, _recording: object, first_byte: int, last_byte: int) -> bytes:
        self.done.append("keys")
        return bytes(last_byte + 1 - first_byte)

    def log(self, release: Release) -> None:
        self.done.append(f"log {release.span_ms}")

    def broken_log(self, _release: Release) -> None:
        raise Unavailable("the outbox does not answer")


def play(steps: Steps, log: Any, tenant: TenantId = ACME, field: str | None = "bytes=10-19") -> bytes:
    use_case = PlayRecording(steps, steps)
    return use_case.play(tenant, RECORDING, range_field=field, if_range=None, about_to_release=log).data


def test_the_event_comes_before_the_keys() -> None:
    """It names the time that the bytes hold."""
    steps = Steps()
    assert len(play(steps, steps.log)) == 10
    assert steps.done == ["index", "layout", "log (10, 20)", "keys"]


def test_without_an_event_no_key_is_touched() -> None:
    """An outbox that does not answer stops playback."""
    steps = Steps()
    with pytest.raises(Unavailable):
        play(steps, steps.broken_log)
    assert steps.done == ["index", "layout"]


def test_another_tenants_recording_ends_at_the_index() -> None:
    """Nothing of it is looked at, and no event speaks of a release."""
    steps = Steps()
    with pytest.raises(NotFound):
        play(steps, steps.log, TenantId("globex"))
    assert steps.done == ["index"]


def certified(segments: tuple[int, int] | None) -> Envelope:
    pause = Pause("payment", 0, 1, "cloud", 1, "c", "person:p", 0)
    certificate = gap_certificate.of_pause(
        pause,
        tenant=ACME,
        recording=RECORDING,
        call=CallId("01JD0000000000000000000000"),
        generation=1,
        agent_manifest_sha256="0" * 64,
        signed_at_ms=0,
        segments=segments,
    )
    return Envelope(gap_certificate.KIND, certificate.encode(), b"", "key")


def test_the_tag_changes_when_seconds_are_destroyed() -> None:
    """REQ: RFC 9110 section 8.8.1: a strong validator changes when what is sent does; a pause alone changes nothing."""

    class Certified(Steps):
        certificates: tuple[Envelope, ...] = ()

        def recording(self, tenant: TenantId, recording: RecordingId) -> tuple[Any, dict[str, Any]]:
            return replace(entry(tenant, recording), certificates=self.certificates), {}

    tags = []
    for certificates in ((), (certified(None),), (certified((3, 6)),), (certified((3, 7)),)):
        steps = Certified()
        steps.certificates = certificates
        use_case = PlayRecording(steps, steps)
        arguments: dict[str, Any] = {"range_field": None, "if_range": None, "about_to_release": steps.log}
        tags.append(use_case.play(ACME, RECORDING, **arguments).etag)
    assert tags[0] == tags[1] == f'"{"0" * 64}"'
    assert len(set(tags)) == 3
