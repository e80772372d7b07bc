"""The chain of each line's recordings: a number for each, and the call that came before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualtone.domain import call_match
from dualtone.domain.call_match import MatchKind
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.recording_policy import RecordingPolicy
from sbc_agent.runtime.agent_state import AgentState
from sbc_agent.runtime.line_chain import REMEMBERED, LineChain
from tests.agent.runtime.spooled import Lines, call_id

KEY = bytes(range(32))
POLICY = RecordingPolicy(
    tenant=TenantId("acme"), version=1, issued_at_ms=1, rules=(), groups={"desk": ("3001",)}, lines=("20??",)
)
OUTSIDE = "+442079460101"


@pytest.fixture
def state(tmp_path: Path) -> AgentState:
    return AgentState(tmp_path / "control.db")


@pytest.fixture
def chain(state: AgentState) -> LineChain:
    return LineChain(state, Lines().log, lambda: KEY)


def facts(*numbers: str) -> dict[str, Any]:
    return {"participants": [{"participant_id": number, "aor": f"sip:{number}@pbx.invalid"} for number in numbers]}


def call(number: int) -> CallId:
    return call_id(number, number)


def line(number: str) -> str:
    return call_match.token(KEY, MatchKind.EXTENSION, number)


def test_each_recording_of_a_line_names_the_one_before(chain: LineChain) -> None:
    """From 1 on, whoever the other party is; nothing is said of numbers that are no line."""
    links = [chain.of_call(call(number), POLICY, facts("2001", OUTSIDE)) for number in (1, 2, 3)]
    assert links == [
        [{"line": line("2001"), "sequence": 1, "previous": ""}],
        [{"line": line("2001"), "sequence": 2, "previous": call(1)}],
        [{"line": line("2001"), "sequence": 3, "previous": call(2)}],
    ]


def test_a_call_keeps_its_number(chain: LineChain) -> None:
    """However often it is asked for, also while other calls of the line come and go."""
    first = chain.of_call(call(1), POLICY, facts("2001"))
    chain.of_call(call(2), POLICY, facts("2001"))
    assert chain.of_call(call(1), POLICY, facts("2001")) == first


def test_an_internal_call_is_a_link_of_both_lines(chain: LineChain) -> None:
    """Lines and groups of the policy alike."""
    assert [link["line"] for link in chain.of_call(call(1), POLICY, facts("2001", "3001"))] == [
        line("2001"),
        line("3001"),
    ]
    assert [link["sequence"] for link in chain.of_call(call(2), POLICY, facts("3001", OUTSIDE))] == [2]


def test_a_later_run_goes_on(chain: LineChain, state: AgentState) -> None:
    """The numbers outlive the process: a restart tears no chain."""
    before = chain.of_call(call(1), POLICY, facts("2001"))
    later = LineChain(state, Lines().log, lambda: KEY)
    assert later.of_call(call(1), POLICY, facts("2001")) == before
    assert later.of_call(call(2), POLICY, facts("2001"))[0]["sequence"] == 2


def test_old_links_are_forgotten(chain: LineChain, state: AgentState) -> None:
    """The state does not grow with the calls; the numbers go on."""
    for number in range(1, REMEMBERED + 50):
        (link,) = chain.of_call(call(number), POLICY, facts("2001"))
    assert link["sequence"] == REMEMBERED + 49
    ((rows,),) = state.run("SELECT count(*) FROM line_chain")
    assert rows == REMEMBERED + 1


def test_without_a_policy_there_are_no_lines(chain: LineChain) -> None:
    """The agent knows a tenant's lines by its policy alone."""
    assert chain.of_call(call(1), None, facts("2001")) == []


def test_a_disk_that_refuses_costs_the_number_alone(chain: LineChain, state: AgentState) -> None:
    """The call goes on."""
    state.close()
    assert chain.of_call(call(1), POLICY, facts("2001")) == []


def test_no_number_is_kept_in_the_clear(chain: LineChain, tmp_path: Path) -> None:
    """What the state file says of a line is its token."""
    chain.of_call(call(1), POLICY, facts("2001", OUTSIDE))
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert line("2001").encode() in files
    assert b"2001@" not in files
    assert OUTSIDE.encode() not in files


def test_while_there_is_no_key_for_tokens_nothing_is_numbered(state: AgentState) -> None:
    """A policy of an earlier run may be there before the key is."""
    keyless = LineChain(state, Lines().log, lambda: b"")
    assert keyless.of_call(call(1), POLICY, facts("2001")) == []
