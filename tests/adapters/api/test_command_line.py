"""`dualtone call`: over HTTP, with the exit status that a script wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dualtone.domain.agent_events import CallEvent
from infra.cli import call
from infra.local import cli
from infra.local.client import ApiClient
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import Turns
from tests.adapters.api.live_agent import LiveAgent

Run = Callable[..., int]


@pytest.fixture
def run(cloud: LocalCloud, officer: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `dualtone call ...` as an officer, by the environment."""
    monkeypatch.setenv("DUALTONE_API", cloud.api_url)
    monkeypatch.setenv("DUALTONE_TOKEN", officer)
    return lambda *arguments: cli.main(["call", *arguments])


def test_pause_and_resume_by_our_id(
    run: Run, agent: LiveAgent, live: CallEvent, turns: Turns, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0: the agent has done it; the line says from when on."""
    turns.actors.append(agent.obeys())
    assert run("pause", "--call", live.call) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "acknowledged by the agent"
    assert second.startswith(f"  {live.call}: acknowledged, silent (manual) from 20")
    assert run("resume", "--call", live.call, "--json") == 0
    assert json.loads(capsys.readouterr().out)["calls"][0]["paused"] is False


@pytest.mark.parametrize("name", ["ucid", "extension", "external-id", "call-id"])
def test_by_the_switchs_names(
    run: Run, agent: LiveAgent, live: CallEvent, names: dict[str, str], turns: Turns, name: str
) -> None:
    """With cause, beginning and lease."""
    turns.actors.append(agent.obeys())
    value = names[name.replace("-", "_")]
    agent.received.clear()
    assert run("pause", f"--{name}", value, "--cause", "payment", "--lease", "60") == 0
    (command,) = agent.received
    assert (command.call, command.cause, command.lease_s) == (live.call, "payment", 60)


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (None, 3, "requested; the agent has not answered yet"),
        ("too_late", 4, "too late: something of the span had been kept and is being removed"),
    ],
)
def test_the_exit_status_is_the_outcome(
    run: Run,
    agent: LiveAgent,
    live: CallEvent,
    turns: Turns,
    outcome: Any,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """3: not yet; 4: too late."""
    if outcome:
        turns.actors.append(agent.obeys(outcome))
    assert run("pause", "--call", live.call) == status
    out = capsys.readouterr().out
    assert out.startswith(said)
    assert ("not everything is gone yet" in out) is (status == 4)


def test_a_pause_for_a_call_to_come_is_3(run: Run, names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Pending."""
    assert run("pause", "--external-id", names["external_id"]) == 3
    assert capsys.readouterr().out.startswith("pending: no such call is known")


def test_errors_are_1_and_say_why(
    run: Run, live: CallEvent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown call, refused token, nothing that listens, nothing said."""
    assert run("pause", "--call", "01JD0000000000000000000000") == 1
    assert run("pause", "--ucid", "zz") == 1
    assert run("pause", "--call", live.call, "--token", "a.b.c") == 1
    assert run("pause", "--call", live.call, "--api", "http://127.0.0.1:9") == 1
    monkeypatch.delenv("DUALTONE_TOKEN")
    assert run("watch") == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("dualtone call: ") for line in said] == [True] * 5
    assert "names no call" in said[1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("pause",),
        ("pause", "--call", "x", "--ucid", "y"),
        ("pause", "--call", "x", "--effective-at", "2026-11-24T10:00:00"),
        ("pause", "--call", "x", "--cause", "boredom"),
        ("resume", "--call", "x", "--until", "2026-11-24T10:00:00Z"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    """Before anything is asked."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--api", "127.0.0.1:1"), "with https://"),
        (("--ca", "no-such.crt"), "--ca no-such.crt: no such file"),
    ],
    ids=["address without a scheme", "no certificate"],
)
def test_wrong_settings_are_1_and_say_what_to_write(
    run: Run, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent."""
    assert run("watch", *arguments) == 1
    assert says in capsys.readouterr().err


def test_a_moment_that_is_none_is_shown_one(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The usage error gives an example."""
    with pytest.raises(SystemExit):
        run("pause", "--ucid", "00FA080018803B69810C6D", "--effective-at", "yesterday")
    assert "such as 2026-11-24T10:15:02Z" in capsys.readouterr().err


def test_watch_tells_of_what_changes(
    cloud: LocalCloud, agent: LiveAgent, names: dict[str, str], live: CallEvent, officer: str
) -> None:
    """Live, paused, recording, ended; each once, whoever else is on the line."""
    client, lines = ApiClient(cloud.api_url, officer), list[str]()

    def steps() -> Iterator[bool]:
        for causes in (["payment"], ["payment"], []):
            agent.report(replace(live, revision=next(revisions), causes=causes))
            yield True
        agent.report(replace(live, revision=next(revisions), state="ended", ended_at_us=agent.now_us()))
        yield True
        yield False

    revisions, step = iter(range(2, 9)), steps()
    call.watch(client, json_lines=False, wait=lambda: next(step), write=lines.append)
    mine = [line.split()[1:3] for line in lines if line.startswith(live.call)]
    assert mine == [["live", "since"], ["paused", "(payment)"], ["recording", "since"], ["ended", "since"]]
    assert names["extension"] in next(line for line in lines if line.startswith(live.call))


def test_watch_takes_calls_without_parties() -> None:
    """Administrators see none, and an agent's LAN endpoint tells of none."""

    class Lan(ApiClient):
        def get(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
            call = {"call_id": "c", "started_at": "t", "paused": True, "causes": ["manual"]}
            return {"calls": [call, {**call, "call_id": "d", "parties": None}]}

    lines: list[str] = []
    call.watch(Lan("https://127.0.0.1:1"), json_lines=False, wait=lambda: False, write=lines.append)
    assert lines == [
        "c  live  since t",
        "c  paused (manual)  since t",
        "d  live  since t",
        "d  paused (manual)  since t",
    ]


def test_watch_writes_json_lines(cloud: LocalCloud, live: CallEvent, officer: str) -> None:
    """One object a change."""
    lines: list[str] = []
    call.watch(ApiClient(cloud.api_url, officer), json_lines=True, wait=lambda: False, write=lines.append)
    events = {value["call_id"]: value["event"] for value in map(json.loads, lines)}
    assert events[live.call] == "live"
