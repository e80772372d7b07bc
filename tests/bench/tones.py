"""What it costs to look for DTMF tones in G.711 before it leaves the ring, beyond what a packet costs without.

Every stream carries speech all the time, which no call does, and in which far more looks like a tone than in silence.

    python -m tests.bench.tones --streams 2000 --json
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the media process

import argparse
import json
import time

import numpy as np

from dualtone.domain.audio import g711
from sbc_agent.media.ring import Packets, Ring
from sbc_agent.media.tones import LOOK_AHEAD_US, Tones
from tests.agent.media.dial import spoken

TURNS = 10  # a second's streams leave in ten ticks
PACKETS = 50
AHEAD = LOOK_AHEAD_US // 20_000 + 1
ROUNDS = 5


def filled(streams: int) -> tuple[Ring, Tones]:
    """Rings with a second of speech of every stream, and what is looked at ahead."""
    ring = Ring(streams, 1_200)
    tones = Tones(streams, ring)
    rows = np.arange(streams)
    for row in range(streams):
        tones.open_row(row)
        tones.want(row, blank=True)
    voices = np.concatenate([spoken("alice"), spoken("bob")]).astype(np.int16)
    coded = g711.encode(g711.Law.A, voices)
    begins = np.random.default_rng(1).integers(0, coded.size - 160 * (PACKETS + AHEAD), streams)
    first = ring.rebase(rows)
    for number in range(PACKETS + AHEAD):
        same = np.full(streams, number)
        packets = Packets(
            rows,
            first + number,
            same * 20_000,
            (same * 160).astype(np.uint32),
            np.ones(streams, np.uint32),
            same.astype(np.uint32),
            np.full(streams, 8, np.uint32),
            begins + 160 * number,
            np.full(streams, 160),
        )
        ring.store(packets, ring.slots(rows, packets.extended), coded)
        ring.highest[rows] = packets.extended
    return ring, tones


def us_per_packet(streams: int) -> float:
    """CPU microseconds per packet that leaves; the best of a few rounds, since the machine has other work."""
    _, tones = filled(streams)
    turns = [np.arange(streams)[turn::TURNS] for turn in range(TURNS)]
    spent = []
    for _ in range(ROUNDS):
        before = time.process_time_ns()
        for rows in turns:
            tones.blank(rows, 20_000 * (PACKETS - 1))
        spent.append((time.process_time_ns() - before) / 1_000 / (streams * PACKETS))
    return min(spent)


def main() -> None:
    """Prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2_000, help="how many streams at once (default: 2000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    found = round(us_per_packet(options.streams), 2)
    print(
        json.dumps({"us_per_packet_tones": found}) if options.json else f"{found} us per packet with tones looked for"
    )


if __name__ == "__main__":
    main()
