"""How many calls a second the agent sets up, and how soon it answers, while other calls run.

The agent's SIP process is the real one: sockets, SIP core, recorder, journal, control channel with its state on disk;
the real media process is below it, with RTP of the calls that run. Only the network to the cloud is missing. An SBC in
a process of its own offers calls at a fixed rate, whatever comes back, each ended a second after its answer. CPU is
what the kernel accounts to the SIP process: a rate on one core is the calls in a run over that time. Answers are timed
by the SBC, from sending the INVITE to reading its final response.

    python -m tests.bench.setups --calls 1000 --rate 200 --seconds 10 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.bench.engine import cpu_s, program, spelled


def run(*, calls: int, rate: int = 200, seconds: int = 10) -> dict[str, Any]:
    """Sets calls up beside running ones.

    Args:
        calls: How many calls run, two streams of G.711 each.
        rate: Calls offered a second.
        seconds: For how long.

    Returns:
        ``setups_per_s`` on one core, and ``answer_ms_p50``, ``answer_ms_p99``, ``answer_ms_max``, all of the calls
        offered beside the running ones.
    """
    with tempfile.TemporaryDirectory(prefix="dualtone-bench-") as directory:
        key = Path(directory, "agent.key")
        key.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        with program("setups_agent") as agent, program("setups_sbc") as sbc, program("engine_generator") as generator:
            streams = 2 * (calls + rate * (seconds + 2))
            ingest_key = spelled(rsa.generate_private_key(65537, 4096).public_key())
            agent.say({"directory": directory, "key": str(key), "ingest_key": ingest_key, "streams": streams})
            ready = agent.hear()
            sbc.say({"address": ready["sip_udp"], "calls": calls, "rate": rate, "seconds": seconds})
            ports = sbc.hear()["ports"]
            generator.say({"ports": ports, "seconds": seconds + 4})
            before = [cpu_s(pid) for pid in ready["pids"]]
            sbc.say("begin")
            found = sbc.hear()
            used = [cpu_s(pid) - earlier for pid, earlier in zip(ready["pids"], before, strict=True)]
            generator.hear()
            agent.say("exit")
            counters = agent.hear()
    return {
        "setups_per_s": round(found["answered"] / used[0]),
        "setups_offered_per_s": rate,
        "setups_refused": found["refused"],
        "setups_lost": found["lost"],
        "setup_cpu_ms": round(1000 * used[0] / max(found["answered"], 1), 2),
        "setup_cpu_ms_media_and_rtp": round(1000 * used[1] / max(found["answered"], 1), 2),
        "answer_ms_p50": found["p50_ms"],
        "answer_ms_p99": found["p99_ms"],
        "answer_ms_max": found["max_ms"],
        "setups_sent_late_ms_max": found["late_ms"],
        "setups_sip": counters,
    }


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000, help="calls that run beside (default: 1000)")
    parser.add_argument("--rate", type=int, default=200, help="calls offered a second (default: 200)")
    parser.add_argument("--seconds", type=int, default=10, help="for how long (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = run(calls=arguments.calls, rate=arguments.rate, seconds=arguments.seconds)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value!s:>24}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
