"""The page for developers of payment pages: its examples run, and its tables name every outcome and refusal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

import pytest

from chalicelib import payment_routes
from chalicelib.call_answers import Commanded
from dualtone.domain import standard_webhooks
from dualtone.domain.agent_events import CallEvent
from infra.local.cloud import LocalCloud
from tests.adapters.api.conftest import Turns
from tests.adapters.api.live_agent import LiveAgent
from tests.adapters.api.payments import ENDED, STARTED, PaymentSystem

PAGE: Final = (Path(__file__).parents[3] / "infra" / "docs" / "payment-pause.md").read_text()


def example(language: str) -> str:
    """The one code block in a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


@pytest.fixture
def surroundings(administrator: str, names: dict[str, str]) -> Mapping[str, str]:
    """What an example finds in its environment."""
    shop = PaymentSystem.created(administrator)
    secret = standard_webhooks.write_secret(shop.secret)
    return {
        "PATH": os.environ["PATH"],
        "WEBHOOK_URL": shop.url,
        "WEBHOOK_SECRET": secret,
        "UCID": names["ucid"],
        "NO_PROXY": "*",
    }


def test_the_python_example_opens_the_fields_when_the_agent_has_answered(
    cloud: LocalCloud, agent: LiveAgent, live: CallEvent, turns: Turns, surroundings: Mapping[str, str]
) -> None:
    """Over HTTP, through the gateway, as a stranger to this code."""
    turns.actors.append(agent.obeys())
    done = subprocess.run(
        [sys.executable, "-I", "-c", example("python")],
        env=dict(surroundings),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "open the card fields"


def test_the_python_example_keeps_them_closed_otherwise(cloud: LocalCloud, surroundings: Mapping[str, str]) -> None:
    """An unknown call, and a secret that is not right."""
    wrong = {**surroundings, "WEBHOOK_SECRET": "whsec_" + "A" * 40}
    for env, said in ((surroundings, "202 pending"), (wrong, "401 The message's signature is not right")):
        done = subprocess.run(
            [sys.executable, "-I", "-c", example("python")], env=dict(env), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == f"keep them closed: {said}"


def test_the_shell_example_resumes(
    cloud: LocalCloud, agent: LiveAgent, live: CallEvent, turns: Turns, surroundings: Mapping[str, str]
) -> None:
    """With openssl and curl."""
    turns.actors.append(agent.obeys())
    done = subprocess.run(
        ["sh", "-eu", "-c", example("sh")], env=dict(surroundings), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["calls"][0]["paused"]) == ("acknowledged", False)


def test_every_outcome_and_every_refusal_has_its_row() -> None:
    """A new one is explained here, or this fails."""
    operation, _view = payment_routes.routes.declared[0]
    outcomes = set(get_args(Commanded.model_fields["outcome"].annotation))
    rows = re.findall(r"^\| `([a-z_]+)` \| 20[02]", PAGE, re.MULTILINE)
    assert set(rows) == outcomes
    for problem in operation.problems:
        assert f"| {problem.status.value} | `{problem.slug}` |" in PAGE


def test_every_message_shown_is_one_that_is_taken() -> None:
    """JSON blocks parse; the kinds of messages are the two that exist."""
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    assert {block["type"] for block in blocks if "type" in block} == {STARTED, ENDED}
