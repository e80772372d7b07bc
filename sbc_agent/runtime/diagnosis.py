"""What ``dualtone-agent doctor`` says of one thing: all right, worth a look, or to be changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sbc_agent.runtime.preflight import Finding

State = Literal["ok", "warn", "fail"]

_OF_SEVERITY: Final[dict[str, State]] = {"fatal": "fail", "error": "fail", "warning": "warn"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line.

    Attributes:
        check: What was looked at; one word.
        state: ``ok``, ``warn`` or ``fail``.
        message: What was found, and what to change where it is not well, in plain words.
    """

    check: str
    state: State
    message: str


def of_findings(check: str, findings: Iterable[Finding], well: str) -> list[Diagnosis]:
    """What a rule of ``preflight`` found, or that it found nothing.

    Args:
        check: What was looked at.
        findings: What is not as it should be.
        well: What to say if there is none.
    """
    found = [Diagnosis(check, _OF_SEVERITY[finding.severity], finding.message) for finding in findings]
    return found or [Diagnosis(check, "ok", well)]


def worst(diagnoses: Sequence[Diagnosis]) -> State:
    """The gravest state of all; ``ok`` of none."""
    states = {diagnosis.state for diagnosis in diagnoses}
    return "fail" if "fail" in states else "warn" if "warn" in states else "ok"


def to_json(diagnoses: Sequence[Diagnosis]) -> dict[str, Any]:
    """All of them for a program."""
    return {"state": worst(diagnoses), "checks": [asdict(diagnosis) for diagnosis in diagnoses]}


def shown(diagnoses: Sequence[Diagnosis]) -> str:
    """All of them as lines for a terminal, and a last one that counts."""
    lines = [f"{one.state:<4}  {one.check:<13} {one.message}" for one in diagnoses]
    count = {state: sum(one.state == state for one in diagnoses) for state in ("ok", "warn", "fail")}
    lines.append(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} to change")
    return "\n".join(lines)
