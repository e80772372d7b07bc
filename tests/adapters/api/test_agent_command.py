"""`dualtone agent`: over HTTP, as an administrator."""

from __future__ import annotations

import json

import pytest

from infra.local import cli
from infra.local.cloud import LocalCloud
from tests.adapters.api.agents import invite


@pytest.fixture(autouse=True)
def _as_administrator(cloud: LocalCloud, administrator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALTONE_API", cloud.api_url)
    monkeypatch.setenv("DUALTONE_TOKEN", administrator)


def test_an_agent_is_revoked_and_listed_so(administrator: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0; whoever is not at a terminal must say so."""
    agent = invite(administrator, "Old one")["agent_id"]
    assert cli.main(["agent", "revoke", agent]) == 3
    assert "nothing was done" in capsys.readouterr().err
    assert cli.main(["agent", "revoke", agent, "--yes"]) == 0
    assert f"Old one ({agent}) is revoked" in capsys.readouterr().out
    assert cli.main(["agent", "list"]) == 0
    assert f"{agent}  revoked  Old one" in capsys.readouterr().out
    assert cli.main(["agent", "list", "--json"]) == 0
    states = {one["agent_id"]: one["state"] for one in json.loads(capsys.readouterr().out)["agents"]}
    assert states[agent] == "revoked"


def test_what_goes_wrong_has_its_status(
    officer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 for usage, 1 for a refusal or an API that does not answer."""
    unknown = "agt_" + "0" * 26
    assert cli.main(["agent", "revoke", "nonsense", "--yes"]) == 2
    assert cli.main(["agent", "revoke", unknown, "--yes"]) == 1
    assert cli.main(["agent", "list", "--api", "http://127.0.0.1:9"]) == 1
    monkeypatch.setenv("DUALTONE_TOKEN", officer)
    assert cli.main(["agent", "list"]) == 1
    monkeypatch.delenv("DUALTONE_TOKEN")
    assert cli.main(["agent", "list"]) == 2
    assert "DUALTONE_TOKEN" in capsys.readouterr().err
