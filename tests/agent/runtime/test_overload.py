"""At twice the capacity: real processes, calls that are spoken on, and as many more that are refused."""

from __future__ import annotations

import statistics
from pathlib import Path

from tests.fuzz.wire import running_agent, stopped
from tests.fuzz.wire_calls import LiveCalls

CALLS = 10


def test_at_twice_the_capacity_new_calls_are_refused_at_once_and_running_ones_keep_every_packet(
    tmp_path: Path,
) -> None:
    """REQ: RFC 3261 section 21.5.4: 503 without Retry-After; every packet of the running calls is in the spool."""
    with running_agent(tmp_path, streams=2 * CALLS, live=CALLS, first_port=9_000) as (agent, ready):
        with LiveCalls(tuple(ready["udp"]), CALLS) as live:
            refused = [live.another(f"more-{number}") for number in range(CALLS)]
            while live.sent < 50:
                live.ping()
            live.end()
        told = stopped(agent)
    assert {(answer.status, answer.header("retry-after")) for answer, _ in refused} == {(503, None)}
    print(f"refused after {1_000 * statistics.median(took for _, took in refused):.1f} ms at the median")
    assert told["counters"]["refused"]["ports_exhausted"] == CALLS
    packets, lost = live.unsealed(tmp_path / "spool")
    assert packets >= 2 * CALLS * 50
    assert lost == 0
