"""What every test of the runtime leaves behind is taken away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.runtime import states


@pytest.fixture(autouse=True)
def _no_open_states() -> Iterator[None]:
    yield
    states.close_all()
