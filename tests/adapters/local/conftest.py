"""The small cloud of `mini/`: the local cloud's own machinery without the product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.cloud import LocalCloud

MINI = Path(__file__).parent / "mini" / "template.yaml"


@pytest.fixture(scope="module")
def mini() -> Iterator[LocalCloud]:
    """Applied and served, but driven by hand."""
    with LocalCloud(template=MINI, driven=False, tenants=()) as cloud:
        yield cloud
