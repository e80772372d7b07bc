"""The recording policy that is in force on this agent: signed by the cloud, kept on disk, good without an uplink.

It comes with every answer of the token endpoint. A policy is believed if the pinned key of the cloud signed it for this
tenant, and only if it is newer than the one in force: nobody who answers in the cloud's place can bring an old one
back. Where there is none, the built-in rule records every call (``domain.recording_policy``). Any thread may use it.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Final

from dualtone.domain import canonical, recording_policy
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import TenantId
from dualtone.domain.recording_policy import LONGEST_POLICY, RecordingPolicy
from dualtone.domain.signing import Envelope
from sbc_agent.runtime.durable import write_private
from sbc_agent.runtime.logs import Log

POLICY_FILE: Final = "recording-policy.json"
_LARGEST_FILE: Final = 2 * LONGEST_POLICY  # base64 and a signature


class PolicyStore:
    """Keeps the policy.

    Args:
        state_dir: Where it is kept.
        tenant: Whose it must be.
        signing_key_der: The cloud's pinned key.
        log: Where it is told that a policy was taken, or refused.
    """

    def __init__(self, state_dir: Path, *, tenant: TenantId, signing_key_der: bytes, log: Log) -> None:
        self._path = state_dir / POLICY_FILE
        self._tenant, self._signing_key_der, self._log = tenant, signing_key_der, log
        self._lock = threading.Lock()
        self._policy: RecordingPolicy | None = None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self._log.failure("policy_unread", error)
            return
        try:
            self._policy = self._verified(canonical.decode(data) if len(data) <= _LARGEST_FILE else None)
        except (IntegrityError, MalformedInput) as error:
            self._log.failure("policy_refused", error)

    @property
    def policy(self) -> RecordingPolicy | None:
        """The policy in force; None where the tenant has none."""
        return self._policy

    def learn(self, envelope: object) -> bool:
        """Takes what the cloud told.

        Args:
            envelope: The signed envelope as JSON; None where the tenant has no policy, which takes none away.

        Returns:
            Whether another policy is in force now; a disk that refuses keeps it from later runs, not from this one.
        """
        if envelope is None:
            return False
        try:
            newer = self._verified(envelope)
        except (IntegrityError, MalformedInput) as error:
            self._log.failure("policy_refused", error)
            return False
        with self._lock:
            in_force = 0 if self._policy is None else self._policy.version
            if newer.version <= in_force:
                if newer.version < in_force:
                    self._log.error("policy_refused", reason="older", revision=newer.version)
                return False
            self._policy = newer
            try:
                write_private(self._path, json.dumps(envelope, separators=(",", ":")).encode())
            except OSError as error:
                self._log.failure("policy_not_kept", error)
        self._log.info("policy_taken", revision=newer.version)
        return True

    def _verified(self, envelope: object) -> RecordingPolicy:
        policy = recording_policy.verified(Envelope.from_json(envelope), self._signing_key_der)
        if policy.tenant != self._tenant:
            raise IntegrityError("the recording policy is another tenant's")
        return policy
