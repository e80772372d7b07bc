"""A fuzz run: bounded by iterations, reproducible by its seed, judged by one line."""

import random
import time
import zlib
from dataclasses import dataclass

from dualtone.domain.errors import MalformedInput
from tests.fuzz.mutators import mutate
from tests.fuzz.targets import Target


@dataclass(frozen=True)
class Figures:
    """What a run found. `read` is the share of changed inputs that were still read."""

    name: str
    seed: int
    iterations: int
    read: float
    slowest_ms: float
    seconds: float


class Escaped(AssertionError):  # noqa: N818 - named for what happened
    """Something else than MalformedInput escaped a parser; the message tells how to see it again."""


def run(name: str, target: Target, *, iterations: int, seed: int) -> Figures:
    """Feed a target with changed seeds.

    Raises:
        Escaped: the oracle failed.
    """
    draw = random.Random(seed ^ zlib.crc32(name.encode()))
    read, slowest, started = 0, 0.0, time.process_time()
    for number in range(iterations):
        data = mutate(draw.choice(target.seeds), draw, target.changes)
        before = time.process_time()
        try:
            target.run(data)
            read += 1
        except MalformedInput:
            pass
        except Exception as error:
            raise Escaped(f"{name}, seed {seed}, iteration {number}: {error!r} for {data!r}") from error
        slowest = max(slowest, time.process_time() - before)
    seconds = time.process_time() - started
    return Figures(name, seed, iterations, read / iterations, slowest * 1000, seconds)
