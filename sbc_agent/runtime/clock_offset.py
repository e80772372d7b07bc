"""True time: how far the agent's clock is off, measured against the cloud's, and how well that is known.

The agent's clock is monotonic, so a step of the machine's wall clock changes nothing here. ``GET /v1/health`` says what
time it is in the cloud. Of several requests the quickest counts: the cloud read its clock somewhere between sending and
receiving, so the middle is right to half the round trip. Since then quartz may have run away by ``DRIFT_PPM``; what is
assumed to be unknown never exceeds ``WORST_UNCERTAINTY_US``, and that is also what is assumed before the first answer.

A measurement is kept on disk for as long as this machine is not started anew (the monotonic clock begins at a boot), so
that an agent that was killed while the cloud is out of reach knows the time as well as before.
"""

from __future__ import annotations

import json
import random as random_numbers
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dualtone.domain import canonical
from dualtone.domain.call_command import WORST_UNCERTAINTY_US
from dualtone.domain.errors import DualtoneError, MalformedInput
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime.backoff import Backoff
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.durable import write_private
from sbc_agent.runtime.logs import Log

OFFSET_FILE: Final = "clock-offset.json"
DRIFT_PPM: Final = 100
SAMPLES: Final = 5
MEASURE_EVERY_S: Final = 300.0
_RESOLUTION_US: Final = 1_000  # the cloud says whole milliseconds
_RETRY_CEILING_S: Final = 60.0
_FIRST_ANSWER_S: Final = 5.0
_JOIN_S: Final = 0.5
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_FIELDS: Final = ("since_boot_us", "error_us", "at_since_boot_us")


class Clock(Protocol):
    """The agent's clock."""

    def now_us(self) -> int:
        """The agent's time in microseconds."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One comparison with the cloud's clock.

    Attributes:
        offset_us: True time minus agent's time.
        error_us: How far that can be off, at the time of measuring.
        at_us: When it was measured, by the agent's clock.
    """

    offset_us: int
    error_us: int
    at_us: int

    def uncertainty_us(self, now_us: int) -> int:
        """How far the offset can be off by now: the error of measuring plus drift since, at most two seconds."""
        drift_us = max(0, now_us - self.at_us) * DRIFT_PPM // 1_000_000
        return min(self.error_us + drift_us, WORST_UNCERTAINTY_US)


def measurement(sent_us: int, received_us: int, cloud_ms: int) -> Measurement:
    """What one request tells. Pure.

    Args:
        sent_us: The agent's time before the request.
        received_us: The agent's time after the answer.
        cloud_ms: What the cloud said its time was, in whole milliseconds.
    """
    middle_us = (sent_us + received_us) // 2
    true_us = cloud_ms * 1000 + _RESOLUTION_US // 2
    return Measurement(true_us - middle_us, (received_us - sent_us + _RESOLUTION_US) // 2, received_us)


def better(old: Measurement | None, new: Measurement, now_us: int) -> Measurement:
    """Which of two measurements to believe. Pure.

    The one that is more certain by now; but if both cannot be true, the new one: a clock has been set since.
    """
    if old is None:
        return new
    old_us, new_us = old.uncertainty_us(now_us), new.uncertainty_us(now_us)
    agree = abs(old.offset_us - new.offset_us) <= old_us + new_us
    return old if agree and old_us < new_us else new


class TrueTime:
    """What the agent knows of true time. Any thread may ask and tell.

    Args:
        clock: The agent's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._measured: Measurement | None = None

    @property
    def measured(self) -> Measurement | None:
        """The measurement that is believed, or None before the first."""
        return self._measured

    def learn(self, new: Measurement) -> None:
        """Takes a measurement."""
        self._measured = better(self._measured, new, self._clock.now_us())

    @property
    def offset_us(self) -> int:
        """True time minus agent's time; 0 if that was never measured: then the wall clock at the start is believed."""
        return 0 if self._measured is None else self._measured.offset_us

    @property
    def uncertainty_us(self) -> int:
        """How far the offset can be off now."""
        return WORST_UNCERTAINTY_US if self._measured is None else self._measured.uncertainty_us(self._clock.now_us())

    def now_us(self) -> int:
        """True time in microseconds."""
        return self._clock.now_us() + self.offset_us

    def now_ms(self) -> int:
        """True time in milliseconds."""
        return self.now_us() // 1000

    def agent_us(self, true_ms: int) -> int:
        """The agent's time, in microseconds, of a true time in milliseconds; never below 0."""
        return max(0, true_ms * 1000 - self.offset_us)


class ClockSampler:
    """Measures now and then, in a thread of its own, and keeps the last measurement on disk.

    Args:
        api: The way to the API.
        base: Its base address, without ``/v1``.
        clock: The agent's clock.
        true_time: What learns.
        state_dir: Where the measurement is kept.
        log: Where failures are told.
        boot_id: Names this boot of the machine.
        random: Draws from [0, 1), for the jitter.
    """

    def __init__(
        self,
        *,
        api: CloudApi,
        base: str,
        clock: AgentClock,
        true_time: TrueTime,
        state_dir: Path,
        log: Log,
        boot_id: str | None = None,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._api = api
        self._url = f"{base}/v1/health"
        self._clock = clock
        self._time = true_time
        self._path = state_dir / OFFSET_FILE
        self._log = log
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip() if boot_id is None else boot_id
        self._backoff = Backoff(random, ceiling_s=_RETRY_CEILING_S)
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="clock", daemon=True)
        self._recall()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stops it; a request that is under way ends with the process."""
        self._stopping.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def now_s(self) -> float:
        """True time in seconds; at the agent's start it waits a moment for the cloud to say what time it is."""
        if self._thread.is_alive():
            self._asked.wait(_FIRST_ANSWER_S)
        return self._time.now_us() / 1_000_000

    def measure(self) -> Measurement:
        """Asks the cloud several times, and believes the quickest answer.

        Raises:
            Unavailable: If it does not answer.
            PolicyViolation: If it refuses.
            MalformedInput: If the answer names no time.
        """
        new = min((self._sample() for _ in range(SAMPLES)), key=lambda sample: sample.error_us)
        self._time.learn(new)
        self._keep()
        return new

    def _sample(self) -> Measurement:
        sent_us = self._clock.now_us()
        answer = self._api.get_json(self._url)
        received_us = self._clock.now_us()
        cloud_ms = answer.get("now_ms")
        if type(cloud_ms) is not int or not 0 < cloud_ms < canonical.MAX_SAFE_INTEGER // 1000:
            raise MalformedInput("the API does not say what time it is")
        return measurement(sent_us, received_us, cloud_ms)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self.measure()
                self._backoff.succeed()
                wait_s = MEASURE_EVERY_S
            except (DualtoneError, OSError) as error:
                wait_s = self._backoff.fail(time.monotonic())
                self._log.debug("clock_unmeasured", reason=type(error).__name__, retry_s=round(wait_s, 1))
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave the offset to age in silence
                wait_s = self._backoff.fail(time.monotonic())
                self._log.failure("clock_failed", error)
            self._asked.set()
            self._stopping.wait(wait_s)

    def _keep(self) -> None:
        kept, since_boot_us = self._time.measured, self._clock.offset_us
        assert kept is not None
        value = {
            "boot_id": self._boot_id,
            "since_boot_us": kept.offset_us + since_boot_us,
            "error_us": kept.error_us,
            "at_since_boot_us": kept.at_us - since_boot_us,
        }
        write_private(self._path, json.dumps(value).encode())

    def _recall(self) -> None:
        """Takes the measurement of an earlier run, if the machine was not started anew since."""
        try:
            value = canonical.decode(self._path.read_bytes())
        except (OSError, MalformedInput):
            return
        if not isinstance(value, dict) or value.get("boot_id") != self._boot_id:
            return
        fields = [field for name in _FIELDS if type(field := value.get(name)) is int]
        if len(fields) == len(_FIELDS):
            since_boot_us, error_us, at_us = fields
            shift_us = self._clock.offset_us
            self._time.learn(Measurement(since_boot_us - shift_us, error_us, at_us + shift_us))
