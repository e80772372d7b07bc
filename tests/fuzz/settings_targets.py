"""Settings and what people on site send: the agent's file, the LAN's bodies, the journal, what the cloud tells."""

import os
import tempfile
from pathlib import Path
from typing import Final

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from sbc_agent.runtime import config, journal_file, lan_bodies
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.lan_bodies import InvalidBody, NamedPause, NamedResume, Pause, Webhook
from tests.fuzz.target import Target, kept

_DOCUMENTED: Final = Path(config.__file__).parents[1] / "docs" / "agent.toml"


def _config(data: bytes) -> None:
    """Every fault is a sentence of one line that names what to write."""
    told: list[str] = []
    try:
        config.parse(data.decode("utf-8", "replace"))
    except config.ConfigError as error:
        told += error.problems
    assert all(problem and "\n" not in problem for problem in told)
    if told:
        raise MalformedInput("faults were told")


def _facts(data: bytes) -> None:
    answer = canonical.decode(data)
    if not isinstance(answer, dict):
        raise MalformedInput("no object")
    assert ControlFacts.from_answer(ControlFacts.from_answer(answer).to_json()) == ControlFacts.from_answer(answer)


def _lan(data: bytes) -> None:
    """A body under every shape: one of them must read it."""
    read = 0
    for shape in (Pause, NamedPause, NamedResume, Webhook):
        try:
            lan_bodies.read(shape, data)
            read += 1
        except (MalformedInput, InvalidBody) as error:
            refusal = error
    if not read:
        raise refusal


def _journal(data: bytes) -> None:
    """Lines that agree with their digits are read, whatever stands between them."""
    path = _scratch()
    path.write_bytes(data)
    try:
        if not list(journal_file.JournalFile(path)):
            raise MalformedInput("no line is whole")
    finally:
        path.unlink()


def _scratch() -> Path:
    return Path(tempfile.gettempdir()) / f"dualtone-fuzz-journal-{os.getpid()}"


def targets() -> dict[str, Target]:
    """All of these, by name."""
    answer = {
        "events_queue_url": "https://sqs.eu-west-1.amazonaws.com/1/events",
        "live_key": "A" * 43 + "=",
        "payment_endpoints": [{"endpoint_id": "pay_1", "secret": "whsec_" + "A" * 43 + "="}],
        "pause": {"lease_s": 900, "on_expiry": "silent"},
    }
    lines = b"".join(journal_file._line(f"call-{index}", b'{"format":2}') for index in range(4))
    return {
        "config": Target([_DOCUMENTED.read_bytes(), *kept("config")], _config, still_read=0.1),
        "lan-body": Target(kept("lan-body"), _lan, still_read=0.05, refusals=(MalformedInput, InvalidBody)),
        "control-facts": Target([canonical.encode(answer)], _facts, still_read=0.05),
        "journal": Target([lines], _journal),
    }
