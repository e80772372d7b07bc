"""The media process before it has its settings."""

from __future__ import annotations

import subprocess
import sys

from sbc_agent.media import child


def test_a_child_that_nobody_takes_ends_by_itself() -> None:
    """The agent found that it cannot run: its child goes without a word, and is waited for."""
    with child.start() as started:
        assert started.process.poll() is None
    assert started.process.returncode == 0
    assert started.channel.fileno() == -1


def test_a_child_that_was_taken_is_left_alone() -> None:
    """Whoever has given it its settings sees to its end."""
    with child.start() as started:
        started.is_taken = True
    assert started.process.poll() is None
    started.channel.close()
    assert started.process.wait() == 0


def test_what_starts_it_loads_nothing_else() -> None:
    """A restart is as quick as what is loaded before the child is started."""
    program = "import sys, sbc_agent.runtime.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "numpy", "cryptography", "botocore", "asyncio"} & set(loaded)


def test_what_answers_sip_is_loaded_without_the_cloud() -> None:
    """Neither AWS nor numpy stands between a restart and the first answer."""
    program = "import sys, sbc_agent.runtime.process, sbc_agent.runtime.sip_shell; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "botocore", "aiohttp", "sqlite3"} & set(loaded)
