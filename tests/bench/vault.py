"""What sealing costs: an hour sealed, opened, verified, and a minute of it sought. CPU time, ports in memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from dualtone.domain import vault_object, vault_verifier
from dualtone.usecases.open_recording import OpenRecording
from tests.vault_samples import ACME, RECORDING, Vault, pages_of, sealed

_OPUS_PAGE_BYTES = 3000  # one second at 24 kbit/s
_RANGE_BYTES = 4 * 1024 * 1024  # the most that an answer of the API holds
_SOUGHT_S = 47 * 60


def run(hours: float = 1.0) -> dict[str, float]:
    """Measures.

    Args:
        hours: Length of the recording.

    Returns:
        Milliseconds of CPU per MB of the object, the seek's CPU, and what it fetched beyond the seconds asked for.
    """
    pages = pages_of(int(3600 * hours), _OPUS_PAGE_BYTES, _OPUS_PAGE_BYTES)
    vault = Vault()
    recording = sealed(pages)
    row = vault.store(recording)
    layout = vault.opener.layout(row)
    offsets = layout.page_offsets
    megabytes = len(recording.data) / 1e6

    def open_all() -> None:
        for first in range(0, layout.total_bytes, _RANGE_BYTES):
            vault.opener.read(row, first, min(first + _RANGE_BYTES, layout.total_bytes) - 1)

    def verify() -> None:
        vault_verifier.verify_object(
            recording.data,
            row.manifest,
            row.manifest_signature,
            vault.signer.public_key_der,
            tenant=ACME,
            recording=RECORDING,
        )

    def seek(seconds: int) -> None:
        cold = OpenRecording(vault.objects, vault.keys, vault.custodians, vault.signer)
        cold.read(row, offsets[_SOUGHT_S], offsets[_SOUGHT_S + seconds] - 1)

    vault.objects.fetched.clear()
    seek(60)
    extra_segments = vault.objects.fetched_bytes / (len(pages[0]) + vault_object.OVERHEAD_BYTES) - 60
    return {
        "vault_seal_ms_per_mb": round(_cpu_ms(lambda: sealed(pages)) / megabytes, 2),
        "vault_open_ms_per_mb": round(_cpu_ms(open_all) / megabytes, 2),
        "vault_verify_ms_per_mb": round(_cpu_ms(verify) / megabytes, 2),
        "vault_seek_cpu_ms": round(_cpu_ms(lambda: seek(1)), 2),
        "vault_seek_minute_cpu_ms": round(_cpu_ms(lambda: seek(60)), 2),
        "vault_seek_extra_segments": round(extra_segments, 2),
    }


def _cpu_ms(work: Callable[[], object], times: int = 5) -> float:
    """The least CPU time of some runs, in ms."""
    least = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least * 1000
