"""Which version of the agent this is: that of the installed distribution."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """The version, as in ``1.2.3``."""
    return metadata.version("dualtone")
