"""Longer runs: ``python -m tests.fuzz --iterations 100000 [--target sdp] [--seed 1]``. One line a parser."""

import argparse
import sys

from tests.fuzz.runs import run
from tests.fuzz.targets import targets


def main() -> int:
    """Runs every target; exit status 1 if one reads too few of its changed inputs."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--target", choices=sorted(known), action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    enough = True
    for name in options.target or known:
        found = run(name, known[name], iterations=options.iterations, seed=options.seed, keeps=True)
        enough &= found.read >= known[name].still_read
        print(
            f"{name:16} seed {found.seed} iterations {found.iterations} still read {found.read:.1%} "
            f"slowest {found.slowest_ms:.1f} ms CPU {found.seconds:.1f} s",
            flush=True,
        )
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
