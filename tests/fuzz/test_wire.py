"""Changed messages over the wire against a running agent with live calls."""

import pytest

from tests.fuzz import wire
from tests.fuzz.wire import Figures

SEED = 20261124
GROWTH_KB = 64 << 10  # of both processes, in the second half: heaps settle for a while


def check(found: Figures) -> None:
    print(found)
    assert found.valid >= 0.3
    assert found.lost_packets == 0
    assert found.packets > 0
    assert found.statuses["200"] > 0
    assert found.calls > wire.LIVE


def test_changed_messages_cost_no_live_call_a_packet() -> None:
    """The agent reads every one of them, answers, sets calls up and ends them, and its live calls keep all."""
    check(wire.run(4_000, SEED))


@pytest.mark.long
def test_a_million_changed_messages() -> None:
    """The same, long enough to see that memory stays flat."""
    found = wire.run(1_000_000, SEED)
    check(found)
    early, *_, late = [sip + media for number, sip, media in found.pss_kb if number >= found.messages // 2]
    assert late - early < GROWTH_KB
