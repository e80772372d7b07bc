"""Generations: what counts as the same event again, what makes the next one, and what may never replace anything."""

from __future__ import annotations

from typing import Final

import pytest

from dualtone.domain.commit_attempt import Generation
from dualtone.domain.errors import IntegrityError
from dualtone.domain.ids import AttemptId, RecordingId

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
ONE, OTHER = "01" * 32, "02" * 32


def generation(
    *parts: str, manifest: str | None = ONE, releases: bool = True, lacking: tuple[str, ...] = ()
) -> Generation:
    """A generation made from parts, with a manifest or without one."""
    return Generation(
        number=1,
        attempt=AttemptId("01JD0000000000000000000001"),
        created_at_ms=1,
        recording=RecordingId("rec_" + "a" * 26),
        manifest_sha256=manifest or OTHER,
        interrupted=manifest is None,
        releases=releases,
        parts=frozenset(parts),
        lacking=frozenset(lacking),
    )


WHOLE: Final = generation(A, B)
DAMAGED: Final = generation(A, B, releases=False)
LACKING: Final = generation(A, releases=False, lacking=(B, C))
SILENT: Final = generation(A, manifest=None, releases=False)


@pytest.mark.parametrize(
    ("latest", "manifest", "parts", "held"),
    [
        pytest.param(WHOLE, ONE, {A, B}, True, id="the same manifest again"),
        pytest.param(WHOLE, ONE, set(), True, id="the same manifest, its parts taken over"),
        pytest.param(DAMAGED, ONE, {A, B}, True, id="damage does not heal by itself"),
        pytest.param(LACKING, ONE, {A}, True, id="what was lacking is lacking still"),
        pytest.param(LACKING, ONE, {A, B}, False, id="one part that was lacking came"),
        pytest.param(SILENT, ONE, {A}, False, id="a manifest after all"),
        pytest.param(SILENT, ONE, {A, B}, False, id="a manifest after all, with more parts"),
        pytest.param(SILENT, None, {A}, True, id="silence, and nothing new"),
        pytest.param(SILENT, None, set(), True, id="silence, and the parts expired"),
        pytest.param(SILENT, None, {A, B}, False, id="silence after another part"),
        pytest.param(WHOLE, None, {A, C}, True, id="no manifest is no more than one"),
    ],
)
def test_what_a_generation_holds(latest: Generation, manifest: str | None, parts: set[str], *, held: bool) -> None:
    """True is the same event again; False makes the next generation."""
    assert latest.holds(manifest or OTHER, interrupted=manifest is None, parts=parts) is held


@pytest.mark.parametrize("latest", [WHOLE, DAMAGED, LACKING])
def test_a_second_manifest_is_never_taken(latest: Generation) -> None:
    """One of them is not the agent's word of this call."""
    with pytest.raises(IntegrityError):
        latest.holds(OTHER, interrupted=False, parts={A, B, C})


def test_the_next_generation_lacks_nothing_of_the_one_before() -> None:
    """Else the better recording stays."""
    WHOLE.require_within({A, B})
    WHOLE.require_within({A, B, C})
    with pytest.raises(IntegrityError):
        WHOLE.require_within({A, C})
