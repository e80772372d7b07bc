"""``dualtone policy``: show, change and try the recording policy through the public API.

A policy is a TOML file: `infra/docs/recording-policy.toml` is one with comments. ``show`` writes such a file, with the
version that was read, so that ``set`` overwrites nobody's change unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import requests

from infra.cli import api_access
from infra.local.client import ApiClient, ApiProblem

OK, FAILED = 0, 1
PATH: Final = "/v1/recording-policy"
_ROLES: Final = ("caller", "callee")
# What the API shows of a rule though its author need not write it.
_DEFAULTS: Final = {"tones": "blank", "card": "pause", "on_failure": "open"}

Json = dict[str, Any]


class UnusableFile(Exception):  # noqa: N818 - the word for what it is
    """The file with the policy cannot be used; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``dualtone policy``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="write the policy in force", description="write the policy as a TOML file")
    show.add_argument("--version", type=int, metavar="N", help="an earlier version")
    change = verbs.add_parser("set", help="put a policy in force", description="put the policy of a file in force")
    change.add_argument("file", metavar="FILE", help="TOML; one that `show` wrote names the version that it replaces")
    attempt = verbs.add_parser("try", help="say which rule decides on a call", description="try the policy on a call")
    for role in _ROLES:
        attempt.add_argument(f"--{role}", metavar="NUMBER", help="number or user part")
    attempt.add_argument("--queue", action="append", default=[], metavar="NAME", help="which it came through")
    attempt.add_argument("--at", type=api_access.moment, metavar="TIME", help="when it begins (default: now)")
    attempt.add_argument("--file", metavar="FILE", help="a policy that is not in force")
    for options in (show, change, attempt):
        api_access.add_arguments(options)


def run(arguments: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    fault = api_access.fault(arguments)
    if fault:
        return _failed(fault)
    client = ApiClient(arguments.api, arguments.token, verify=arguments.ca or True)
    verbs = {"show": show, "set": change, "try": attempt}
    try:
        answer, lines = verbs[arguments.verb](client, arguments)
    except UnusableFile as error:
        return _failed(str(error))
    except ApiProblem as error:
        return _failed(*reasons(error))
    except requests.RequestException as error:
        return _failed(api_access.unreachable(error))
    sys.stdout.write((json.dumps(answer) if arguments.json else "\n".join(lines)) + "\n")
    return OK


def show(client: ApiClient, arguments: argparse.Namespace) -> tuple[Json, list[str]]:
    """The policy, and the file that it would be."""
    query = None if arguments.version is None else {"version": str(arguments.version)}
    policy = client.get(PATH, query)
    return policy, list(written(policy))


def change(client: ApiClient, arguments: argparse.Namespace) -> tuple[Json, list[str]]:
    """Puts a file's policy in force."""
    policy = _file(arguments.file)
    version = policy.pop("version", None)
    if version is None:
        version = client.get(PATH)["version"]
    answer = client.put(PATH, policy, if_match=f'"{version}"')
    told = answer["agents_told"]
    return answer, [f"version {answer['version']} is in force: {answer['rules']} rules, {told} agents told"]


def attempt(client: ApiClient, arguments: argparse.Namespace) -> tuple[Json, list[str]]:
    """Says which rule decides on a call."""
    parties = [{"role": role, "number": getattr(arguments, role)} for role in _ROLES if getattr(arguments, role)]
    body: Json = {"call": {"parties": parties, "queues": arguments.queue}}
    if arguments.at is not None:
        body["call"]["at"] = arguments.at
    if arguments.file is not None:
        body["policy"] = {name: value for name, value in _file(arguments.file).items() if name != "version"}
    answer = client.post(f"{PATH}/preview", body)
    lines = [_ruling(answer["now"])]
    if answer["provisional"]:
        lines[0] += ", by what is known"
        lines.append(f"if nothing more is known 30 seconds after the answer: {_ruling(answer['settled'])}")
    return answer, lines


def written(policy: Json) -> Iterator[str]:
    """A policy as a TOML file that says the same."""
    yield f"version = {policy['version']}"
    if policy["groups"]:
        yield ""
        yield "[groups]"
        yield from (f"{json.dumps(name)} = {_toml(patterns)}" for name, patterns in policy["groups"].items())
    for rule in policy["rules"]:
        yield ""
        yield "[[rules]]"
        tables = {name: value for name, value in rule.items() if isinstance(value, dict)}
        yield from _members({name: value for name, value in rule.items() if name not in tables})
        for name, table in tables.items():
            members = list(_members(table))
            if members:
                yield f"[rules.{name}]"
                yield from members


def reasons(error: ApiProblem) -> list[str]:
    """What the API found wrong, one line each."""
    found = [f"{each['parameter']}: {each['detail']}" for each in error.problem.get("errors", ())]
    return found or [error.problem.get("detail") or str(error)]


def _members(table: Json) -> Iterator[str]:
    for name, value in table.items():
        if value not in (None, False, "", [], {}) and _DEFAULTS.get(name) != value:
            yield f"{name} = {_toml(value)}"


def _toml(value: object) -> str:
    """JSON's spelling of texts, whole numbers, truth and lists is TOML's, but for one character."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _ruling(ruling: Json) -> str:
    words = f"{ruling['rule']}: {ruling['record'].replace('_', ' ')}"
    if ruling["regulated"]:
        words += ", regulated"
    if ruling["waits"]:
        words += f", waits for a decision (without one: {ruling['undecided']})"
    return words + f", basis {ruling['basis'].replace('_', ' ')}"


def _file(name: str) -> Json:
    try:
        found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        json.dumps(found)
    except OSError as error:
        raise UnusableFile(f"{name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{name}: no TOML: {error}") from error
    except TypeError as error:
        raise UnusableFile(f"{name}: write dates and times in quotation marks") from error
    return found


def _failed(*lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"dualtone policy: {line}\n")
    return FAILED
