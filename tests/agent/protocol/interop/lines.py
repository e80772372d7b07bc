"""The lines of INTEROP, and which test shows each.

A case is a test, or an entry of a table, that names the lines which it shows. Lines of what is not SIP are shown by the
tests of the process that does it: `ELSEWHERE` names them.
"""

import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

_ROOT: Final = Path(__file__).parents[4]
_TABLE: Final = _ROOT / "tests" / "vectors" / "interop" / "lines.toml"

LINES: Final[dict[str, str]] = {
    line: text for chapter in tomllib.loads(_TABLE.read_text("utf-8")).values() for line, text in chapter.items()
}
SHOWN: Final[defaultdict[str, set[str]]] = defaultdict(set)

# Line to test, for what the media process, the runtime and the cloud do.
ELSEWHERE: Final[dict[str, str]] = {}

_T = TypeVar("_T")


def shows(*lines: str) -> Callable[[_T], _T]:
    """Says of a test which lines it shows."""

    def noted(test: _T) -> _T:
        note(lines, getattr(test, "__name__", ""))
        return test

    return noted


def note(lines: Iterable[str], case: str) -> None:
    """Says of a case by which name it shows these lines."""
    for line in lines:
        assert line in LINES, f"INTEROP has no line {line}"
        SHOWN[line].add(case)


def exists(test: str) -> bool:
    """Whether `path::name` is a test of this repository."""
    path, _, name = test.partition("::")
    file = _ROOT / path
    return file.is_file() and f"def {name}(" in file.read_text("utf-8")
