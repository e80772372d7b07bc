"""What a call's profile asks of keys that are pressed in it, now and over time. Pure."""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from dualtone.domain.call_files import TonesEntry
from sbc_agent.media.messages import CallPolicy
from sbc_agent.media.tones import CODECS


@checked(config=ConfigDict(strict=True, extra="forbid"), slots=True)
class KeyProfile:
    """A call's profile.

    Attributes:
        policy: As it is now.
        since_us: Since when tones are to be blanked; None while they are kept.
        spans: Earlier spans in which they were, from and to, microseconds of the agent's clock.
    """

    policy: CallPolicy = field(default_factory=CallPolicy)
    since_us: int | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)

    def change(self, policy: CallPolicy, at_us: int) -> None:
        """Another profile is the call's from a moment on."""
        is_blank = policy.tones == "blank"
        if is_blank and self.since_us is None:
            self.since_us = at_us
        elif not is_blank:
            self.close(at_us)
        self.policy = policy

    def close(self, at_us: int) -> None:
        """The call is over."""
        if self.since_us is not None:
            self.spans.append((self.since_us, max(self.since_us, at_us)))
        self.since_us = None

    def begin_at(self, at_us: int) -> None:
        """All that was before a moment is as if it had not been."""
        self.spans = []
        if self.since_us is not None:
            self.since_us = at_us

    @property
    def entries(self) -> list[TonesEntry]:
        """What the manifest says of it, once the call is over."""
        return [TonesEntry(from_us, to_us, sorted(CODECS)) for from_us, to_us in self.spans]
