"""A fuzz run: bounded by iterations and by time, reproducible by its seed, judged by one line."""

import hashlib
import random
import time
import zlib
from dataclasses import dataclass

from tests.fuzz import target as targets
from tests.fuzz.mutators import mutate
from tests.fuzz.target import Target


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
    """Something else than a refusal escaped a parser; the message tells how to see it again."""


def run(
    name: str, target: Target, *, iterations: int, seed: int, seconds: float = float("inf"), keeps: bool = False
) -> Figures:
    """Feed a target with its corpus as it is, then with changed seeds: its own, and what it reads of the corpus.

    Args:
        name: the target's name.
        target: the target.
        iterations: how many changed inputs at most.
        seed: of the changes.
        seconds: how much processor time at most; at least a hundred inputs are tried.
        keeps: whether an input that breaks the target is added to its corpus.

    Raises:
        Escaped: the oracle failed.
    """
    draw = random.Random(seed ^ zlib.crc32(name.encode()))
    seeds = [*target.seeds, *(data for data in targets.kept(name) if _feed(name, target, data, "its corpus"))]
    read, slowest, number, started = 0, 0.0, 0, time.process_time()
    while number < iterations and (number < 100 or time.process_time() - started < seconds):
        data = mutate(draw.choice(seeds), draw, target.changes)
        number += 1
        before = time.process_time()
        try:
            read += _feed(name, target, data, f"seed {seed}, iteration {number}")
        except Escaped:
            if keeps:
                targets.keep(name, data, hashlib.sha256(data).hexdigest()[:12])
            raise
        slowest = max(slowest, time.process_time() - before)
    return Figures(name, seed, number, read / number, slowest * 1000, time.process_time() - started)


def _feed(name: str, target: Target, data: bytes, where: str) -> bool:
    """The one-line oracle: a target reads its input or refuses it; returns which."""
    try:
        target.run(data)
    except target.refusals:
        return False
    except Exception as error:
        raise Escaped(f"{name}, {where}: {error!r} for {data!r}") from error
    return True
