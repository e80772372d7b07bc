"""`dualtone desk`: over HTTPS against an agent's endpoint, with the exit status that a hot key wants."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from infra.cli import desk, desk_settings
from infra.cli.desk_client import DeskClient
from infra.cli.desk_settings import DeskSettings, UnusableSettings
from infra.local import cli
from infra.local.client import ApiProblem
from sbc_agent.runtime import desks, lan_credentials
from sbc_agent.runtime.rate_limit import RateLimit
from tests.agent.runtime.desked import REGULATED, DeskSite

Run = Callable[..., int]
_T = TypeVar("_T")


class Threaded:
    """A site whose event loop has a thread of its own, so that a client that blocks can ask it."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.directory = directory
        self.loop = loop
        self.site: DeskSite = self.do(lambda: DeskSite(directory, of_desk=RateLimit(burst=1_000, per_s=1)))
        asyncio.run_coroutine_threadsafe(self.site.__aenter__(), loop).result(10)

    def do(self, act: Callable[[], _T]) -> _T:
        """Does something in the event loop."""

        async def acted() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self.loop).result(10)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Threaded]:
    """An agent with its endpoint open."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    (tmp_path / "state").mkdir()
    running = Threaded(tmp_path / "state", loop)
    yield running
    asyncio.run_coroutine_threadsafe(running.site.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def run(agent: Threaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `dualtone desk ...` with the settings file of the desk of line 1001."""
    new = agent.do(lambda: agent.site.add("Reception", "1001"))
    path = tmp_path / "config" / "dualtone" / "desk.toml"
    path.parent.mkdir(parents=True)
    fingerprint = lan_credentials.fingerprint(agent.directory)
    path.write_text(f'agent = "{agent.site.url}"\ntoken = "{new.token}"\nfingerprint = "{fingerprint}"\n')
    path.chmod(0o600)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return lambda *arguments: cli.main(["desk", *arguments])


def test_pause_status_and_resume(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 and a line that a person would say."""
    call = agent.do(agent.site.begin)
    assert run("pause") == 0
    assert capsys.readouterr().out == "paused: nothing of this call is being kept\n"
    assert run("status") == 0
    line = f"{call}  since 2027-01-15T08:00:00.000Z  paused: nothing is being kept (manual)\n"
    assert capsys.readouterr().out == line
    assert run("resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["calls"][0]["paused"] is False
    assert agent.do(lambda: agent.site.agent.causes(call)) == ()


def test_no_call_and_several(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 5; several are listed, and --call names one."""
    assert run("pause") == 5
    assert capsys.readouterr().err == "dualtone desk: no call is live on this desk's lines\n"
    assert run("status") == 0
    assert capsys.readouterr().out == "Reception: no live call\n"
    first, second = agent.do(lambda: (agent.site.begin(1), agent.site.begin(2)))
    assert run("pause") == 5
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"dualtone desk:   --call {first}",
        f"dualtone desk:   --call {second}",
    ]
    assert run("pause", "--call", second) == 0
    assert agent.do(lambda: (agent.site.agent.causes(first), agent.site.agent.causes(second))) == ((), ("manual",))


def test_keep_and_personal(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A regulated line: status 6 and its sentence, and nothing is decided."""
    call = agent.do(agent.site.begin)
    assert run("keep") == 0
    agent.site.decisions.regulated.add(call)
    assert run("personal") == 6
    captured = capsys.readouterr()
    assert captured.out == "this call is kept\n"
    assert captured.err == f"dualtone desk: {REGULATED}\n"
    agent.site.decisions.regulated.clear()
    assert run("personal") == 0
    assert capsys.readouterr().out == "personal: nothing of this call is kept\n"


def test_an_order_that_is_not_confirmed(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 3: a script must not take it for done."""
    agent.do(agent.site.begin)
    agent.site.agent.media.answers = False
    assert run("pause") == 3
    assert "not confirmed" in capsys.readouterr().out


def test_a_resume_that_lifts_not_all(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The payment's pause stays, and the person is told so."""
    call = agent.do(agent.site.begin)
    control = agent.site.agent.control
    asyncio.run_coroutine_threadsafe(control.obey(agent.site.agent.command(call=call)), agent.loop).result(10)
    assert run("resume") == 0
    assert capsys.readouterr().out == "still paused for another reason: payment\n"


def test_a_token_that_is_not_known(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and whom to ask."""
    desks.remove(agent.directory, "Reception")
    assert run("status") == 1
    assert "ask your administrator" in capsys.readouterr().err


def test_another_certificate_gets_nothing(agent: Threaded, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The token is not sent to who cannot show the agent's certificate, whatever its name."""
    assert run("pause", "--fingerprint", "0" * 64) == 1
    assert "not the agent's certificate" in capsys.readouterr().err
    assert "pause" not in agent.site.agent.lines.stream.getvalue()


def test_the_certificate_itself_is_as_good_as_its_fingerprint(agent: Threaded, run: Run) -> None:
    """As a file, whatever address the agent is reached by."""
    assert run("status", "--certificate", str(agent.directory / "lan.crt"), "--fingerprint", "") == 0
    agent_by_name = agent.site.url.replace("127.0.0.1", "localhost")
    assert run("status", "--agent", agent_by_name) == 0


def test_an_agent_that_is_not_there(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1."""
    assert run("status", "--agent", "https://127.0.0.1:9") == 1
    assert "does not answer" in capsys.readouterr().err


def test_watch_tells_what_changes(agent: Threaded, run: Run, tmp_path: Path) -> None:
    """Each change once, in words; the agent answers when something happens and not before."""
    assert run("status") == 0
    path = tmp_path / "config" / "dualtone" / "desk.toml"
    client = DeskClient(desk_settings.load(path, {}, {}))
    said: list[str] = []
    calls: list[str] = []
    acts: list[Callable[[], object]] = [
        lambda: calls.append(agent.do(agent.site.begin)),
        lambda: run("pause"),
        lambda: agent.do(lambda: agent.site.agent.end(agent.site.agent.control.calls.live[0])),
    ]

    def wait(_seconds: float) -> bool:
        if not acts:
            return False
        acts.pop(0)()
        return True

    desk.watch(client, json_lines=False, wait=wait, write=said.append)
    (call,) = calls
    assert said == [
        "Reception: no live call",
        f"{call}  being recorded",
        f"{call}  paused: nothing is being kept (manual)",
        f"{call}  ended",
    ]


def test_watch_goes_on_when_the_agent_was_away(agent: Threaded, run: Run, tmp_path: Path) -> None:
    """It says so once, and once when it is back."""
    assert run("status") == 0
    client = DeskClient(desk_settings.load(tmp_path / "config" / "dualtone" / "desk.toml", {}, {}))
    said: list[str] = []
    news, turns = client.news, iter(range(4))

    def sometimes() -> dict[str, Any] | None:
        if next(turns) < 2:
            raise requests.ConnectionError
        return news()

    client.news = sometimes  # type: ignore[method-assign]
    left = iter((True, True, False))
    desk.watch(client, json_lines=False, wait=lambda _: next(left), write=said.append)
    assert said == [
        "the agent does not answer (ConnectionError); trying again",
        "the agent answers again",
        "Reception: no live call",
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "the agent was asked too often: wait a few seconds; trying again"),
        (503, "not possible right now: try again in a moment; trying again"),
    ],
)
def test_watch_outlasts_a_refusal_that_passes(
    agent: Threaded, run: Run, tmp_path: Path, status: int, said: str
) -> None:
    """Too many watchers, or an agent that has not heard from the cloud yet; a token that is not known ends it."""
    assert run("status") == 0
    client = DeskClient(desk_settings.load(tmp_path / "config" / "dualtone" / "desk.toml", {}, {}))
    news, answers = client.news, iter((status, 0, 401))

    def sometimes() -> dict[str, Any] | None:
        if refused := next(answers):
            raise ApiProblem(refused, {})
        return news()

    client.news = sometimes  # type: ignore[method-assign]
    written: list[str] = []
    with pytest.raises(ApiProblem):
        desk.watch(client, json_lines=False, wait=lambda _: True, write=written.append)
    assert written == [said, "the agent answers again", "Reception: no live call"]


# -- settings ---------------------------------------------------------------------------------------------------------

GOOD = {"agent": "https://192.0.2.10:5443", "token": "dsk_" + "a" * 64, "fingerprint": "sha256:" + "ab" * 32}


def _written(path: Path, settings: dict[str, Any], mode: int = 0o600) -> Path:
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    path.chmod(mode)
    return path


def test_file_environment_and_options_in_this_order(tmp_path: Path) -> None:
    """The later overrules the earlier; the token is in no repr."""
    path = _written(tmp_path / "desk.toml", GOOD)
    token_file = tmp_path / "token"
    token_file.write_text("dsk_" + "b" * 64 + "\n")
    token_file.chmod(0o600)
    found = desk_settings.load(path, {}, {})
    assert found == DeskSettings(GOOD["agent"], GOOD["token"], "ab" * 32)
    assert GOOD["token"] not in repr(found)
    environment = {"DUALTONE_DESK_AGENT": "https://192.0.2.11:1", "DUALTONE_DESK_TOKEN_FILE": str(token_file)}
    given = {"agent": "https://192.0.2.12:1", "fingerprint": ":".join(["CD"] * 32), "token": "dsk_" + "c" * 64}
    found = desk_settings.load(path, given, environment)
    assert found == DeskSettings("https://192.0.2.12:1", "dsk_" + "b" * 64, "cd" * 32)


def test_a_certificate_overrules_an_earlier_fingerprint(tmp_path: Path) -> None:
    """It is read as the fingerprint that it has."""
    lan_credentials.server_context(tmp_path, "127.0.0.1", 1_800_000_000.0)
    path = _written(tmp_path / "desk.toml", GOOD)
    found = desk_settings.load(path, {"certificate": str(tmp_path / "lan.crt")}, {})
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "lan.crt").read_text())
    assert found.fingerprint == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    ("settings", "mode", "said"),
    [
        (GOOD, 0o640, "chmod 600"),
        (GOOD | {"agent": "http://192.0.2.10:5443"}, 0o600, "https://ADDRESS:PORT"),
        (GOOD | {"agent": "https://192.0.2.10:5443/v1"}, 0o600, "https://ADDRESS:PORT"),
        (GOOD | {"token": "short"}, 0o600, "dualtone-agent desk add"),
        (GOOD | {"fingerprint": "sha1:00"}, 0o600, "fingerprint"),
        (GOOD | {"certificate": "/nowhere/lan.crt"}, 0o600, "no certificate"),
        (GOOD | {"token_file": "/nowhere/token"}, 0o600, "does not exist"),
        (GOOD | {"colour": "red"}, 0o600, "no setting colour"),
        (GOOD | {"token": 5}, 0o600, 'token = "text"'),
        ({}, 0o600, "https://ADDRESS:PORT"),
    ],
)
def test_settings_that_cannot_be_used_say_what_to_write(
    tmp_path: Path, settings: dict[str, Any], mode: int, said: str
) -> None:
    """And never what the token is."""
    with pytest.raises(UnusableSettings) as refused:
        desk_settings.load(_written(tmp_path / "desk.toml", settings, mode), {}, {})
    assert said in str(refused.value)
    assert "dsk_a" not in str(refused.value)


def test_unusable_settings_are_exit_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no option for the token, which other users of the machine could read."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert cli.main(["desk", "status"]) == 2
    assert "--agent" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["desk", "status", "--token", "dsk_x"])
    assert "unrecognized arguments" in capsys.readouterr().err
