"""``dualtone desk``: a person's own desktop client. Pauses, resumes, keeps and watches the calls of their own lines.

It speaks to the agent on site, so it works while the uplink is down. The exit status is what a script or a hot key
wants to know: 0 done; 1 the agent does not answer or refuses; 2 settings; 3 asked for, but not confirmed, or overtaken
by something newer; 4 paused too late for some seconds, which are being removed; 5 no call, or several; 6 the line's
rule does not allow it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import requests

from infra.cli import desk_settings
from infra.cli.desk_client import DeskClient
from infra.cli.desk_settings import UnusableSettings
from infra.local.client import ApiProblem

OK, FAILED, USAGE, NOT_YET, TOO_LATE, WHICH, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
_STATUS: Final = {
    "acknowledged": OK,
    "kept": OK,
    "discarded": OK,
    "stopped": OK,
    "requested": NOT_YET,
    "pending": NOT_YET,
    "superseded": NOT_YET,
    "too_late": TOO_LATE,
}
_OF_PROBLEM: Final = {403: REFUSED, 404: WHICH, 409: WHICH}
_VERBS: Final = {
    "pause": "keep nothing of your call from now on",
    "resume": "let your call be recorded again",
    "keep": "keep a call that is recorded on demand or waits for your word",
    "personal": "mark your call as personal: nothing of it is kept, where your line allows that",
}
_STATES: Final = {
    "recording": "being recorded",
    "paused": "paused: nothing is being kept",
    "waiting": "not kept unless you say so: dualtone desk keep",
    "not_recorded": "not recorded",
}
_SAID: Final = {
    "requested": "asked for, but the agent has not confirmed it yet: look with dualtone desk status",
    "pending": "asked for, but the agent has not confirmed it yet: look with dualtone desk status",
    "superseded": "something newer was there first: look with dualtone desk status",
    "too_late": "paused; some seconds had been kept and are being removed",
    "kept": "this call is kept",
    "discarded": "personal: nothing of this call is kept",
    "stopped": "from now on nothing more of this call is kept; what was before stays",
}
_AGAIN_S: Final = 5.0
_PASSING: Final = frozenset({429, 503})

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone desk``; none may be shortened, or ``--token`` would be ``--token-file``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in _VERBS.items():
        options = verbs.add_parser(verb, help=summary, description=summary, allow_abbrev=False)
        options.add_argument("--call", metavar="ID", help="which call, if you have several; `status` shows them")
        _add_common(options)
    for verb, summary in (("status", "show your calls"), ("watch", "follow your calls until interrupted")):
        _add_common(verbs.add_parser(verb, help=summary, description=summary, allow_abbrev=False))


def run(arguments: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    path = arguments.config or desk_settings.default_path(os.environ)
    try:
        client = DeskClient(desk_settings.load(path, vars(arguments), os.environ))
    except UnusableSettings as error:
        return _fail(USAGE, str(error))
    try:
        return _done(client, arguments)
    except ApiProblem as error:
        if arguments.json:
            _say(json.dumps(error.problem))
        return _fail(_OF_PROBLEM.get(error.status, FAILED), *problem_lines(error))
    except requests.RequestException as error:
        return _fail(FAILED, unreachable(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def _done(client: DeskClient, arguments: argparse.Namespace) -> int:
    if arguments.verb == "watch":
        watch(client, json_lines=arguments.json, wait=_pass_s, write=_say)
        return OK
    if arguments.verb == "status":
        listed = client.calls()
        _say(json.dumps(listed) if arguments.json else "\n".join(shown(listed)))
        return OK
    answer = client.act(arguments.verb, arguments.call)
    _say(json.dumps(answer) if arguments.json else told(arguments.verb, answer))
    return _STATUS[answer["outcome"]]


def told(verb: str, answer: Json) -> str:
    """What became of a verb, in a line."""
    if answer["outcome"] != "acknowledged":
        return _SAID[answer["outcome"]]
    if verb == "pause":
        return "paused: nothing of this call is being kept"
    still = [cause for call in answer["calls"] for cause in call["causes"]]
    return f"still paused for another reason: {', '.join(still)}" if still else "recording again"


def shown(listed: Json) -> Iterator[str]:
    """A desk's calls, a line each."""
    if not listed["calls"]:
        yield f"{listed['desk']}: no live call"
    for call in listed["calls"]:
        causes = f" ({', '.join(call['causes'])})" if call["causes"] else ""
        yield f"{call['call_id']}  since {call['started_at']}  {_STATES[call['state']]}{causes}"


def watch(client: DeskClient, *, json_lines: bool, wait: Callable[[float], bool], write: Callable[[str], None]) -> None:
    """Tells of each call of the desk that begins, changes, or ends; tries again while the agent does not answer.

    Args:
        client: Of the agent.
        json_lines: Whether to write JSON, one object a line.
        wait: Lets so many seconds pass; False ends.
        write: Takes a line.

    Raises:
        ApiProblem: If the agent refuses for good.
    """
    known: dict[str, Json] | None = None
    is_lost = False
    while True:
        try:
            listed = _heard(client)
        except _Lost as error:
            if not is_lost and not json_lines:
                write(f"{error}; trying again")
            is_lost = True
            if not wait(_AGAIN_S):
                return
            continue
        if is_lost and not json_lines:
            write("the agent answers again")
        is_lost = False
        if listed is not None:
            calls = {call["call_id"]: call for call in listed["calls"]}
            for call, what in _changes(known or {}, calls):
                write(json.dumps({"event": what, **call}) if json_lines else _line(call, what))
            if known is None and not calls and not json_lines:
                write(f"{listed['desk']}: no live call")
            known = calls
        if not wait(0.0):
            return


class _Lost(Exception):  # noqa: N818 - what happened, in a word
    """The agent says nothing for now; the text says why."""


def _heard(client: DeskClient) -> Json | None:
    try:
        return client.news()
    except requests.RequestException as error:
        raise _Lost(unreachable(error)) from error
    except ApiProblem as error:
        if error.status not in _PASSING:
            raise
        raise _Lost(next(problem_lines(error))) from error


def _changes(known: Mapping[str, Json], calls: Mapping[str, Json]) -> Iterator[tuple[Json, str]]:
    for call_id, call in calls.items():
        before = known.get(call_id)
        if before is None or (before["state"], before["causes"]) != (call["state"], call["causes"]):
            yield call, call["state"]
    for call_id, call in known.items():
        if call_id not in calls:
            yield call, "ended"


def _line(call: Json, what: str) -> str:
    causes = f" ({', '.join(call['causes'])})" if what == "paused" and call["causes"] else ""
    return f"{call['call_id']}  {_STATES.get(what, what)}{causes}"


def problem_lines(error: ApiProblem) -> Iterator[str]:
    """What an agent's refusal means to the person at the desk."""
    if error.status == requests.codes.unauthorized:
        yield "the agent does not know this token: ask your administrator for a new one (dualtone-agent desk add)"
    elif error.status == requests.codes.too_many_requests:
        yield "the agent was asked too often: wait a few seconds"
    elif error.status == requests.codes.service_unavailable:
        yield "not possible right now: try again in a moment"
    else:
        yield str(error.problem.get("detail") or error)
    for call in error.problem.get("calls", ()):
        yield f"  --call {call}"


def unreachable(error: requests.RequestException) -> str:
    """Why there was no answer."""
    if isinstance(error, requests.exceptions.SSLError):
        return "this is not the agent's certificate: check fingerprint or certificate in the settings; nothing was sent"
    return f"the agent does not answer ({type(error).__name__})"


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (default: ~/.config/dualtone/desk.toml)")
    parser.add_argument("--agent", metavar="URL", help="the agent's LAN endpoint (default: $DUALTONE_DESK_AGENT)")
    parser.add_argument("--token-file", metavar="FILE", help="a file with the token, readable by you alone")
    parser.add_argument("--fingerprint", metavar="SHA256", help="of the agent's certificate")
    parser.add_argument("--certificate", metavar="FILE", help="the agent's certificate, lan.crt")
    parser.add_argument("--json", action="store_true", help="write JSON")


def _pass_s(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(status: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"dualtone desk: {line}\n")
    return status
