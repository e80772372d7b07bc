"""What ``dualtone-agent call`` does: reads the speech, places one call or many, and says what came of them."""

from __future__ import annotations

import asyncio
import json as encoding
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualtone.domain.errors import MalformedInput
from sbc_agent.runtime import speech, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.src_dialog import Transport
from sbc_agent.runtime.src_link import CallFailed
from sbc_agent.runtime.test_call import CallResult, Side


@dataclass(frozen=True, slots=True)
class CallPlan:
    """The command's options; see ``dualtone-agent call --help``."""

    target: Endpoint
    transport: Transport
    caller_wav: Path
    callee_wav: Path
    caller: str
    callee: str
    caller_name: str
    callee_name: str
    duration_s: float | None = None
    loop: bool = False
    calls: int = 1
    parallel: int = 1
    ucid: str | None = None
    json: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False


async def run(plan: CallPlan, say: Callable[[str], None]) -> bool:
    """Places the calls.

    Args:
        plan: What to place.
        say: Prints a line.

    Returns:
        Whether all calls succeeded.

    Raises:
        MalformedInput: If a WAV file, or one of TLS, cannot be used.
    """
    sides = await asyncio.to_thread(_sides, plan)
    trust = trusted(plan.ca, plan.certificate, plan.key, insecure=plan.insecure) if plan.transport == "tls" else None
    failed = 0
    answered: list[int] = []

    def done(result: CallResult | CallFailed) -> None:
        nonlocal failed
        if isinstance(result, CallFailed):
            failed += 1
            say(encoding.dumps({"ok": False, "error": str(result)}) if plan.json else f"failed: {result}")
            return
        answered.append(result.answered_ms)
        say(encoding.dumps({"ok": True, **result.to_json()}) if plan.json else _sentence(result))

    await test_call.place_many(
        plan.calls,
        plan.parallel,
        lambda: test_call.place(plan.target, plan.transport, sides, ucid=plan.ucid, trust=trust),
        done,
    )
    if plan.calls > 1:
        total: dict[str, Any] = {
            "summary": True,
            "calls": plan.calls,
            "ok": len(answered),
            "failed": failed,
            "answered_ms_max": max(answered, default=None),
        }
        say(encoding.dumps(total) if plan.json else f"{plan.calls} calls: {len(answered)} recorded, {failed} failed")
    return not failed


def trusted(ca: Path | None, certificate: Path | None, key: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """By what the recorder proves itself on TLS, and we to it.

    Args:
        ca: Who signed its certificate; None trusts the system's authorities.
        certificate: Our own, where one is asked for.
        key: The key of that, if it is not in the same file.
        insecure: Whether any certificate is taken.

    Raises:
        MalformedInput: If a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise MalformedInput(
            "--ca, --cert or --key is no PEM file that can be used together with the others"
        ) from error
    return context


def _sides(plan: CallPlan) -> tuple[Side, Side]:
    caller, callee = speech.load(plan.caller_wav), speech.load(plan.callee_wav)
    longest = max(caller.size, callee.size)
    if plan.duration_s is None:
        packets = -(-longest // speech.SAMPLES_A_PACKET)
    else:
        packets = max(1, int(plan.duration_s * 1000 + 0.5) // speech.PACKET_MS)
    length = packets * speech.SAMPLES_A_PACKET
    return (
        Side("caller", plan.caller, plan.caller_name, speech.repeated(caller, length, loop=plan.loop)),
        Side("callee", plan.callee, plan.callee_name, speech.repeated(callee, length, loop=plan.loop)),
    )


def _sentence(result: CallResult) -> str:
    ended = "" if result.ended_by == "us" else "; the recorder hung up"
    return (
        f"{result.sip_call_id}: answered after {result.answered_ms} ms, "
        f"{' + '.join(map(str, result.packets))} packets in {result.duration_ms / 1000:.2f} s{ended}"
    )
