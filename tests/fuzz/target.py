"""What a fuzz target is, and the corpus that is kept of it.

``corpus/<target>/`` holds inputs, one a file: some by hand, some that once broke a parser. Each run tries them as they
are, and changes them like the other seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtone.domain.errors import MalformedInput
from tests.fuzz import mutators

CORPUS: Final = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        seeds: What it is fed from.
        run: Takes octets; only ``refusals`` may escape.
        changes: How inputs are changed.
        still_read: The share of changed inputs that it must still read.
        refusals: How it says that its input is at fault: MalformedInput, and a few parsers' own words beside it.
    """

    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    changes: tuple[mutators.Mutator, ...] = mutators.ALL
    still_read: float = 0.3
    refusals: tuple[type[Exception], ...] = (MalformedInput,)


def kept(name: str) -> list[bytes]:
    """The corpus of a target, in the order of its files' names."""
    directory = CORPUS / name
    return [path.read_bytes() for path in sorted(directory.iterdir())] if directory.is_dir() else []


def keep(name: str, data: bytes, digest: str) -> Path:
    """Adds an input to the corpus of a target."""
    path = CORPUS / name / f"escaped-{digest}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path
