"""Sealed metadata: opens for its own recording of its own tenant alone; one KMS call in five minutes."""

from __future__ import annotations

from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.metadata_store import CACHED_S, MetadataStore
from dualtone.adapters.table import Table
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import RecordingId, TenantId
from tests.adapters.finalize.cloud import INDEX, Cloud

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
ONE, TWO = RecordingId("rec_" + "a" * 26), RecordingId("rec_" + "b" * 26)
METADATA = {"participants": [{"aor": "sip:+442079460123@pbx", "name": "Zoë"}], "sip_call_id": "x@y"}


class CountedKms:
    """KMS, counting."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        self.calls.append("generate")
        return wiring.kms().generate_data_key(key, context)

    def decrypt(self, key: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        self.calls.append("decrypt")
        return wiring.kms().decrypt(key, wrapped, context)


def store(cloud: Cloud, kms: Any = None, now: list[float] | None = None) -> MetadataStore:
    """A store with an empty cache, as a new process has it."""
    times = now if now is not None else [0.0]
    return MetadataStore(
        table=Table(cloud.dynamodb, INDEX),
        kms=kms or wiring.kms(),
        metadata_key=cloud.metadata_key,
        monotonic_s=lambda: times[0],
        random_bytes=clock.random_bytes,
    )


def test_what_was_sealed_opens(cloud: Cloud) -> None:
    """In another process too; and nothing of it can be read in the item."""
    item = store(cloud).seal(ACME, ONE, "2033-05", METADATA)
    assert store(cloud).open(ACME, ONE, item) == METADATA
    assert b"442079" not in item["sealed"]


@pytest.mark.parametrize(
    ("tenant", "recording", "changes"),
    [
        (ACME, TWO, {}),
        (GLOBEX, ONE, {}),
        (ACME, ONE, {"kek_month": "2033-06"}),
        (ACME, ONE, {"sealed": bytes(40)}),
        (ACME, ONE, {"wrapped_key": bytes(40)}),
        (ACME, ONE, {"wrapped_key": None}),
    ],
)
def test_moved_or_changed_metadata_does_not_open(
    cloud: Cloud, tenant: TenantId, recording: RecordingId, changes: dict[str, Any]
) -> None:
    """It is bound to tenant, recording and month."""
    made = store(cloud)
    made.seal(GLOBEX, ONE, "2033-05", METADATA)
    made.seal(ACME, ONE, "2033-06", METADATA)
    item = made.seal(ACME, ONE, "2033-05", METADATA) | changes
    item = {name: value for name, value in item.items() if value is not None}
    with pytest.raises(IntegrityError):
        made.open(tenant, recording, item)


def test_a_month_without_a_key_opens_nothing(cloud: Cloud) -> None:
    """Reading never makes a key."""
    item = store(cloud).seal(ACME, ONE, "2033-05", METADATA)
    with pytest.raises(IntegrityError):
        store(cloud).open(ACME, ONE, item | {"kek_month": "1999-01"})
    assert [row["sk"] for row in cloud.items(INDEX, "acme#kek")] == ["2033-05"]


def test_a_month_costs_one_call_in_five_minutes(cloud: Cloud) -> None:
    """However many recordings are sealed and opened."""
    kms, now = CountedKms(), [1000.0]
    made = store(cloud, kms, now)
    items = [made.seal(ACME, ONE, "2033-05", METADATA) for _ in range(10)]
    now[0] += CACHED_S - 1
    assert all(made.open(ACME, ONE, item) == METADATA for item in items)
    assert kms.calls == ["generate"]
    now[0] += 2
    made.open(ACME, ONE, items[0])
    assert kms.calls == ["generate", "decrypt"]


def test_two_finalisers_in_a_new_month_agree_on_its_key(cloud: Cloud) -> None:
    """The one that comes second uses the first one's key, also if it had drawn its own already."""
    first, second = store(cloud), store(cloud)

    class Overtaken(CountedKms):
        def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
            made = super().generate_data_key(key, context)
            first.seal(ACME, TWO, "2033-05", METADATA)
            return made

    item = store(cloud, Overtaken()).seal(ACME, ONE, "2033-05", METADATA)
    assert second.open(ACME, ONE, item) == METADATA
