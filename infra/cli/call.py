"""``dualtone call``: pause, resume and watch calls through the public API, or through an agent's LAN endpoint.

The exit status is what a script wants to know: 0 acknowledged, 3 requested or pending (it will happen, but nobody says
that it has) or superseded, 4 too late (something had been kept and is being removed), 1 error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import requests

from infra.cli import api_access
from infra.local.client import ApiClient, ApiProblem

OK, FAILED, NOT_YET, TOO_LATE = 0, 1, 3, 4
_STATUS: Final = {
    "acknowledged": OK,
    "requested": NOT_YET,
    "pending": NOT_YET,
    "superseded": NOT_YET,
    "too_late": TOO_LATE,
}
_NAMES: Final = {
    "ucid": "Avaya UCID",
    "extension": "number or user part of a party",
    "external_id": "any vendor's value in the SBC's metadata",
    "call_id": "SIP Call-ID of the call itself, not of the recording session",
}
_CAUSES: Final = ("manual", "payment", "hold", "consent", "dtmf")
_SAID: Final = {
    "acknowledged": "acknowledged by the agent",
    "requested": "requested; the agent has not answered yet",
    "pending": "pending: no such call is known; one that begins within 60 seconds is paused",
    "too_late": "too late: something of the span had been kept and is being removed",
    "superseded": "superseded: a newer command was there first, nothing changed",
}

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone call``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in (("pause", "keep nothing of a call from now on"), ("resume", "lift a cause of a pause")):
        options = verbs.add_parser(verb, help=summary, description=summary)
        which = options.add_mutually_exclusive_group(required=True)
        which.add_argument("--call", metavar="ID", help="our id of the call, as `watch` shows it")
        for name, help_text in _NAMES.items():
            which.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", help=help_text)
        options.add_argument("--cause", choices=_CAUSES, default="manual", help="which cause (default: manual)")
        if verb == "pause":
            options.add_argument(
                "--effective-at", type=api_access.moment, metavar="TIME", help="when it began: RFC 3339 with a zone"
            )
            options.add_argument("--until", type=api_access.moment, metavar="TIME", help="when it ended, if it is over")
            options.add_argument("--lease", type=int, metavar="S", help="how long it lasts without another word")
        api_access.add_arguments(options)
    watch = verbs.add_parser("watch", help="follow live calls", description="follow live calls until interrupted")
    watch.add_argument("--interval", type=float, default=1.0, metavar="S", help="between looks (default: 1)")
    api_access.add_arguments(watch)


def run(arguments: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    fault = api_access.fault(arguments)
    if fault:
        sys.stderr.write(f"dualtone call: {fault}\n")
        return FAILED
    client = ApiClient(arguments.api, arguments.token, verify=arguments.ca or True)
    try:
        if arguments.verb == "watch":
            with contextlib.suppress(KeyboardInterrupt):
                watch(client, json_lines=arguments.json, wait=_every(arguments.interval), write=_say)
            return OK
        answer = command(client, arguments)
    except ApiProblem as error:
        sys.stderr.write(f"dualtone call: {error.problem.get('detail') or error}\n")
        return FAILED
    except requests.RequestException as error:
        sys.stderr.write(f"dualtone call: {api_access.unreachable(error)}\n")
        return FAILED
    _say(json.dumps(answer) if arguments.json else "\n".join(told(answer)))
    return _STATUS[answer["outcome"]]


def command(client: ApiClient, arguments: argparse.Namespace) -> Json:
    """Pauses or resumes; returns the API's answer."""
    body: Json = {"cause": arguments.cause}
    if arguments.verb == "pause":
        spans = {"effective_at": arguments.effective_at, "until": arguments.until, "lease_s": arguments.lease}
        body |= {name: value for name, value in spans.items() if value is not None}
    if arguments.call:
        return client.post(f"/v1/calls/{arguments.call}/{arguments.verb}", body)
    named = {name: getattr(arguments, name) for name in _NAMES if getattr(arguments, name)}
    return client.post(f"/v1/{arguments.verb}s", {**body, "call": named})


def told(answer: Json) -> Iterator[str]:
    """An answer in words: one line for the whole, one for each call."""
    yield _SAID[answer["outcome"]]
    for call in answer["calls"]:
        line = f"  {call['call_id']}: {call['outcome'].replace('_', ' ')}"
        if call["paused"] is not None and call.get("state", "live") == "live":
            line += f", silent ({', '.join(call['causes'])})" if call["paused"] else ", recording"
        if call["gap_started_at"]:
            line += f" from {call['gap_started_at']}"
        if call["outcome"] == "too_late":
            gone = call["seconds_until_gone"]
            line += "; not everything is gone yet" if gone is None else f"; all gone after {gone:.1f} s"
        yield line


def watch(client: ApiClient, *, json_lines: bool, wait: Callable[[], bool], write: Callable[[str], None]) -> None:
    """Tells of each call that begins, is paused, is recorded again, or ends.

    Args:
        client: Of the API.
        json_lines: Whether to write JSON, one object a line.
        wait: Lets time pass between looks; False ends.
        write: Takes a line.

    Raises:
        ApiProblem: If the API refuses.
    """
    known: dict[str, Json] = {}
    while True:
        calls = {call["call_id"]: call for call in client.get("/v1/calls")["calls"]}
        for call, what in _changes(known, calls):
            write(json.dumps({"event": what, **call}) if json_lines else _line(call, what))
        known = calls
        if not wait():
            return


def _changes(known: Mapping[str, Json], calls: Mapping[str, Json]) -> Iterator[tuple[Json, str]]:
    for call_id, call in calls.items():
        before = known.get(call_id)
        if before is None:
            yield call, "live"
        if call["causes"] != (before["causes"] if before else []):
            yield call, "paused" if call["causes"] else "recording"
    for call_id, call in known.items():
        if call_id not in calls:
            yield call, "ended"


def _line(call: Json, what: str) -> str:
    # An agent's LAN endpoint tells nobody who talks.
    parties = " - ".join(party["number"] or party["aor"] for party in call.get("parties") or ())
    causes = f" ({', '.join(call['causes'])})" if what == "paused" else ""
    return f"{call['call_id']}  {what}{causes}  since {call['started_at']}  {parties}".rstrip()


def _every(interval_s: float) -> Callable[[], bool]:
    def wait() -> bool:
        time.sleep(interval_s)
        return True

    return wait


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
