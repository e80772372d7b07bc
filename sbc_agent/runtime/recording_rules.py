"""All that says which calls are recorded, in one place: policy, choices made before a call, and what was left out.

It is there before the first call comes, and before the cloud is: what an earlier run knew is read from the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sbc_agent.media.messages import CallPolicy
from sbc_agent.runtime.agent_state import STATE_FILE, AgentState
from sbc_agent.runtime.consents import Consents
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.decisions import Decisions
from sbc_agent.runtime.identity import Identity
from sbc_agent.runtime.line_chain import LineChain
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.not_recorded import NotRecorded
from sbc_agent.runtime.policy_store import PolicyStore


class RecordingRules:
    """Opens the agent's state and what depends on it.

    Args:
        state_dir: Where the agent keeps what it must remember.
        identity: Who the agent is.
        log: Where it tells what happens.

    Attributes:
        state: The agent's state.
        policies: The policy in force.
        consents: Choices that came before a call, or from another dialog.
        tally: What was not recorded.
        chain: Numbers the recordings of each line.
        decisions: Judges calls.
    """

    def __init__(self, state_dir: Path, identity: Identity, log: Log) -> None:
        self.state = AgentState(state_dir / STATE_FILE)
        if self.state.was_damaged:
            log.error("state_damaged")
        if self.state.in_memory:
            log.error("state_not_kept")
        self._facts: Callable[[], ControlFacts] = lambda: identity.control
        self._offset_us: Callable[[], int] = lambda: 0
        self.policies = PolicyStore(
            state_dir, tenant=identity.tenant, signing_key_der=identity.signing_public_key_der, log=log
        )
        self.consents = Consents(self.state, log, self._newest_live_key)
        self.tally = NotRecorded(self.state, log)
        self.chain = LineChain(self.state, log, self._newest_live_key)
        self.decisions = Decisions(lambda: self.policies.policy, self.consents, self._offset, self._usual)

    def follow(self, facts: Callable[[], ControlFacts], offset_us: Callable[[], int]) -> None:
        """The cloud's side is there.

        Args:
            facts: Yields the newest of what the cloud told.
            offset_us: Yields how far true time is ahead of the agent's clock.
        """
        self._facts, self._offset_us = facts, offset_us

    def _newest_live_key(self) -> bytes:
        return self._facts().live_key

    def _usual(self) -> CallPolicy:
        facts = self._facts()
        return CallPolicy(lease_s=facts.lease_s, on_expiry=facts.on_expiry)

    def _offset(self) -> int:
        return self._offset_us()
