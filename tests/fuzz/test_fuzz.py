"""Every parser against changed messages: nothing but MalformedInput escapes, and most changes are survived."""

import pytest

from tests.fuzz.runs import run
from tests.fuzz.targets import targets

SEED = 20261122
ITERATIONS = 2_500
SECONDS = 2.0
SLOWEST_MS = 1_000


@pytest.mark.parametrize("name", sorted(targets()))
def test_only_malformed_input_escapes(name: str) -> None:
    """At least 30 % of the changed inputs are still read: the run exercises the parser, not its first refusal."""
    target = targets()[name]
    found = run(name, target, iterations=ITERATIONS, seed=SEED, seconds=SECONDS)
    print(f"{name}: seed {SEED}, {found.iterations} inputs, {found.read:.0%} still read")
    assert found.read >= target.still_read
    assert found.slowest_ms < SLOWEST_MS
