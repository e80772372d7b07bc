"""No line of INTEROP without a test that shows it."""

import importlib
from pathlib import Path

import pytest

from tests.agent.protocol.interop import lines
from tests.agent.protocol.interop.lines import ELSEWHERE, LINES, SHOWN, exists

CHAPTERS = sorted(path.stem for path in Path(__file__).parent.glob("test_interop_*.py") if path != Path(__file__))


@pytest.fixture(autouse=True, scope="module")
def cases() -> None:
    """All chapters, whatever was asked to run."""
    for chapter in CHAPTERS:
        importlib.import_module(f"{lines.__package__}.{chapter}")


@pytest.mark.parametrize("line", LINES)
def test_every_line_is_shown(line: str) -> None:
    """By a case of a chapter here, or by a test of who does it, which is there."""
    assert SHOWN[line] or line in ELSEWHERE, LINES[line]
    assert all(exists(test) for test in ELSEWHERE.get(line, ())), ELSEWHERE.get(line)


def test_the_table_is_the_specifications() -> None:
    """All 48 lines, in 87 claims, none twice; a line that is shown elsewhere is a line."""
    assert len({line.rstrip("abcdef") for line in LINES}) == 48
    assert len(LINES) == 87
    assert len(set(LINES.values())) == len(LINES)
    assert set(ELSEWHERE) <= set(LINES)
