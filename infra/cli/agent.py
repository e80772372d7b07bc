"""``dualtone agent``: which agents a tenant has, how they are, and the end of one.

Exit status: 0 done; 1 the API does not answer or refuses; 2 wrong usage; 3 it was not confirmed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import requests

from infra.local.client import ApiClient, ApiProblem

OK, FAILED, USAGE, NOT_CONFIRMED = 0, 1, 2, 3
_AGENT: Final = re.compile(r"agt_[0-7][0-9A-HJKMNP-TV-Z]{25}")

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone agent``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listed = verbs.add_parser("list", help="show the agents", description="show the agents, and how they are")
    about = "revoke an agent for good: it refuses new calls, and nothing of it is taken any more"
    revoke = verbs.add_parser("revoke", help="revoke an agent for good", description=about)
    revoke.add_argument("agent", metavar="AGENT_ID", help="as `list` shows it")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    for options in (listed, revoke):
        default = os.environ.get("DUALTONE_API")
        options.add_argument("--api", default=default, metavar="URL", help="default: $DUALTONE_API")
        options.add_argument("--json", action="store_true", help="write JSON")


def run(arguments: argparse.Namespace) -> int:
    """Does it, with an administrator's access token from $DUALTONE_TOKEN; returns the exit status."""
    token = os.environ.get("DUALTONE_TOKEN")
    if not arguments.api or not token:
        return _fail(USAGE, "say --api or set DUALTONE_API, and set DUALTONE_TOKEN to an administrator's access token")
    if arguments.verb == "revoke" and not _AGENT.fullmatch(arguments.agent):
        return _fail(USAGE, f"{arguments.agent}: an agent's id is agt_ and 26 characters; `list` shows it")
    try:
        return _done(ApiClient(arguments.api, token), arguments)
    except ApiProblem as error:
        return _fail(FAILED, str(error.problem.get("detail") or error))
    except requests.RequestException as error:
        return _fail(FAILED, f"the API does not answer: {type(error).__name__}")


def _done(client: ApiClient, arguments: argparse.Namespace) -> int:
    if arguments.verb == "list":
        found = client.get("/v1/agents")
        _say(json.dumps(found) if arguments.json else "\n".join(shown(found)))
        return OK
    if not arguments.yes and not _confirmed(arguments.agent):
        return _fail(NOT_CONFIRMED, "nothing was done")
    answer = client.post(f"/v1/agents/{arguments.agent}/revoke", {})
    told = f"{answer['name']} ({answer['agent_id']}) is revoked: it refuses new calls within a minute, its spool stays"
    _say(json.dumps(answer) if arguments.json else told)
    return OK


def shown(found: Json) -> Iterator[str]:
    """Agents, a line each."""
    for agent in found["agents"]:
        health = agent["health"]
        how = f", seen {health['seen_at']}, {health['live_calls']} live, version {health['version']}" if health else ""
        yield f"{agent['agent_id']}  {agent['state']:<8} {agent['name']}{how}"


def _confirmed(agent: str) -> bool:
    """Asks on the terminal; whoever is not at one says --yes."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"Revoke {agent} for good? What its disk still holds is not taken any more. Write yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == "yes"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _fail(status: int, line: str) -> int:
    sys.stderr.write(f"dualtone agent: {line}\n")
    return status
