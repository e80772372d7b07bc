"""What the agent's own call says, and how it is placed: loaded when it is wanted, since no other call needs it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from sbc_agent.protocol.flow import HostPort
from sbc_agent.runtime import speech, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.sip_shell import SipAddresses
from sbc_agent.runtime.src_dialog import Transport
from sbc_agent.runtime.src_link import CallFailed
from sbc_agent.runtime.test_call import Side

SECONDS: Final = 4
_LOWEST_HZ: Final = 400
_HIGHEST_HZ: Final = 2_800
_LEVEL: Final = 8_000


async def place(addresses: SipAddresses, media_address: str, call_id: str) -> None:
    """Places the call where the SBC places its calls.

    Args:
        addresses: Where the agent listens.
        media_address: By what it is reached, where it listens on every address.
        call_id: Call-ID of the call.

    Raises:
        CallFailed: If it is not taken, or lost, or there is only TLS: the agent has no client's certificate.
    """
    pairs: tuple[tuple[HostPort | None, Transport], ...] = ((addresses.udp, "udp"), (addresses.tcp, "tcp"))
    for address, transport in pairs:
        if address is not None:
            host = media_address if address[0] == "0.0.0.0" else address[0]  # noqa: S104 - recognised, not bound
            result = await test_call.place(Endpoint(host, address[1]), transport, sides(), call_id=call_id)
            if result.ended_by != "us":
                raise CallFailed("the recorder ended it")
            return
    raise CallFailed("SIP is listened to by TLS alone")


def sides() -> tuple[Side, Side]:
    """Who speaks: the caller sweeps up, the callee down."""
    up = sweep()
    return Side("caller", "canary", "Canary", speech.alaw(up)), Side("callee", "mine", "Mine", speech.alaw(up[::-1]))


def sweep() -> npt.NDArray[np.int16]:
    """A tone that rises evenly from 400 to 2,800 Hz, at 8 kHz: int16[n]. No moment of it is like a key's two tones."""
    time_s = np.arange(SECONDS * speech.CLOCK_HZ) / speech.CLOCK_HZ
    phase = 2 * np.pi * (_LOWEST_HZ * time_s + (_HIGHEST_HZ - _LOWEST_HZ) * time_s**2 / (2 * SECONDS))
    return np.round(_LEVEL * np.sin(phase)).astype(np.int16)
