"""Each function killed at every call to AWS, overtaken there by another delivery, and delivered twice: one end state.

The undisturbed run says what the end state is. A kill differs from the one before only if something was changed in
between, so a delivery is killed on both sides of every change; it is overtaken at every call by which it could learn of
the other, or the other of it. That these tests can fail is a test too: with a fault planted in the product, they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from dualtone.adapters.table import Table
from dualtone.domain.commit_attempt import Attempt
from dualtone.usecases.commit_recording import CommitRecording
from tests.adapters.survival import snapshot
from tests.adapters.survival.scenarios import SCENARIOS, Scenario, world
from tests.adapters.survival.wire import Killed, Where, elsewhere, kill

CHANGES: Final = ("Put", "Delete", "Update", "Transact", "Send")
STATELESS: Final = ("kms:", "sts:")
"""What these do leaves nothing behind that another delivery could meet."""

State = dict[str, Any]


def undisturbed(scenario: Scenario) -> tuple[State, list[str]]:
    """The end state when nothing goes wrong, and the calls of one delivery."""
    with world() as one:
        scenario.prepare(one)
        with one.wire.watching():
            assert scenario.deliver(one)
        calls = one.wire.calls
        scenario.settle(one)
        return snapshot.of(one.cloud), calls


def killed(scenario: Scenario, number: int, where: Where, expected: State) -> str:
    """Kills the first delivery at a call; returns where the end state differs."""
    with world() as one:
        scenario.prepare(one)
        with pytest.raises(Killed), one.wire.watching(number, where, kill):
            scenario.deliver(one)
        scenario.deliver_until_done(one)
        scenario.settle(one)
        return snapshot.differences(expected, snapshot.of(one.cloud))


def overtaken(scenario: Scenario, number: int, expected: State) -> str:
    """Another delivery comes and is done while the first one waits at a call; returns where the end state differs."""
    with world() as one:
        scenario.prepare(one)
        with one.wire.watching(number, Where.NEVER_SENT, elsewhere(lambda: scenario.deliver_until_done(one))):
            done = scenario.deliver(one)
        assert one.wire.reached()
        if not done:
            scenario.deliver_until_done(one)
        scenario.settle(one)
        return snapshot.differences(expected, snapshot.of(one.cloud))


def faults(scenario: Scenario, *, everywhere: bool = False, only: str = "") -> Iterator[str]:
    """Disturbs a scenario at every call at which it can make a difference, or at all of them; tells what differs."""
    expected, calls = undisturbed(scenario)
    for number, call in enumerate(calls):
        if only not in {"", call}:
            continue
        results: dict[str, str] = {}
        if everywhere or call.partition(":")[2].startswith(CHANGES):
            results = {where: killed(scenario, number, where, expected) for where in Where}
        if everywhere or not call.startswith(STATELESS):
            results["overtaken"] = overtaken(scenario, number, expected)
        yield from (f"{how} at call {number}, {call}:\n{result}" for how, result in results.items() if result)


@pytest.mark.parametrize("name", SCENARIOS)
def test_wherever_it_is_killed_or_overtaken_the_end_is_the_same(name: str) -> None:
    """On both sides of every change, and at every call that meets others."""
    assert list(faults(SCENARIOS[name])) == []


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_at_every_single_call(name: str) -> None:
    """Those included at which nothing should make a difference."""
    assert list(faults(SCENARIOS[name], everywhere=True)) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_delivered_twice_is_delivered_once(name: str) -> None:
    """As standard queues and schedules do."""
    scenario = SCENARIOS[name]
    expected, _ = undisturbed(scenario)
    with world() as one:
        scenario.prepare(one)
        assert scenario.deliver(one)
        scenario.deliver_until_done(one)
        scenario.settle(one)
        assert snapshot.differences(expected, snapshot.of(one.cloud)) == ""


def test_a_commit_that_forgets_too_early_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the attempt is forgotten before its object is locked. A kill in between leaves it unlocked for ever."""

    def complete(self: CommitRecording, attempt: Attempt) -> None:
        self._index.forget(attempt)
        self._vault.lock(attempt.vault_key, attempt.vault_version_id or "", attempt.lock_until_ms or 0)
        if attempt.releases:
            self.release(attempt.upload, attempt.recording)

    monkeypatch.setattr(CommitRecording, "complete", complete)
    told = "".join(faults(SCENARIOS["finalize: a manifest"], only="dynamodb:DeleteItem"))
    assert "answer lost at call" in told
    assert "locked: False" in told


def test_a_claim_without_a_condition_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: new items are written whatever was there. Of two finalisers at once both then make the recording."""

    def transact(self: Table, *writes: Any) -> None:
        careless: list[Any] = [{kind: dict(write) for kind, write in one.items()} for one in writes]
        for one in careless:
            one.get("Put", {}).pop("ConditionExpression", None)
            if "attribute_not_exists" in one.get("Update", {}).get("ConditionExpression", ""):
                del one["Update"]["ConditionExpression"]
        careful(self, *careless)

    careful = Table.transact
    monkeypatch.setattr(Table, "transact", transact)
    told = "".join(faults(SCENARIOS["finalize: a manifest"], only="dynamodb:TransactWriteItems"))
    assert "overtaken at call" in told
