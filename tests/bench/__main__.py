"""``make bench``: the capacity tables. ``--json`` prints one JSON object as the last line.

Every figure is CPU time or a ratio against a peer measured in the same run: absolute times differ from machine to
machine, so the machine is stated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

TARGETS = {
    "us_per_packet": ("<=", 1.3),
    "us_per_packet_srtp": ("<=", 3.2),
    "bytes_per_call": ("<=", 300_000),
    "setups_per_s": (">=", 200),
    "answer_ms_p99": ("<=", 50.0),
    "pause_ms_p99": ("<=", 100.0),
    "finalize_x_realtime": (">=", 280.0),
    "lost_packets": ("<=", 0),
    "vault_seek_cpu_ms": ("<=", 5.0),
    "vault_seek_extra_segments": ("<=", 2.0),
}


def machine() -> str:
    """The processor, how many cores we may use, and the interpreter."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )


def verdict(name: str, value: float) -> str:
    """The target of a figure and whether it is met; empty for a figure without one."""
    if name not in TARGETS:
        return ""
    sign, target = TARGETS[name]
    met = value <= target if sign == "<=" else value >= target
    return f"target {sign} {target:g}: {'met' if met else 'MISSED'}"


def main() -> int:
    """Runs the benchmarks and prints their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("agent", "finalize", "vault"), help="one of them")
    parser.add_argument("--calls", type=int, default=1000, help="calls of two G.711 streams at once (default: 1000)")
    parser.add_argument("--seconds", type=int, default=30, help="seconds of RTP (default: 30)")
    parser.add_argument("--minutes", type=int, default=10, help="length of the call to finalise (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}

    def tell(found: dict[str, Any]) -> None:
        """Shows what was found as soon as it is: the whole takes minutes."""
        result.update(found)
        for name, value in found.items():
            judged = verdict(name, value) if isinstance(value, int | float) else ""
            print(f"{name:32} {value!s:>24}  {judged}", flush=True)

    tell({"machine": machine()})
    if arguments.only in (None, "agent"):
        from tests.bench import engine, setups, tones  # noqa: PLC0415 - each benchmark needs only its own parts

        tell(engine.run(calls=arguments.calls, seconds=arguments.seconds))
        tell(setups.run(calls=arguments.calls))
        tell({"us_per_packet_tones": round(tones.us_per_packet(2 * arguments.calls), 2)})
    if arguments.only in (None, "finalize"):
        from tests.bench import finalize  # noqa: PLC0415 - as above

        tell(finalize.run(minutes=arguments.minutes))
    if arguments.only in (None, "vault"):
        from tests.bench import vault  # noqa: PLC0415 - as above

        tell(vault.run())
    if arguments.json:
        print(json.dumps(result))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
