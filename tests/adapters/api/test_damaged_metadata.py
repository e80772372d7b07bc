"""Tampered metadata: its recording is listed and flagged, the others are as ever, and somebody is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dualtone.adapters import clock, wiring
from dualtone.adapters.attribute_values import to_item
from dualtone.domain.period import DAY_MS
from tests.adapters.api import recordings
from tests.adapters.api.gateway import call, post_json
from tests.adapters.api.recordings import Made

CALLER = "+15550002222"


def _key(made: Made) -> dict[str, Any]:
    return to_item({"pk": f"{made.tenant}#rec#{made.recording_id}", "sk": "meta"})


def _altered(made: Made) -> None:
    wiring.dynamodb().update_item(
        TableName=wiring.settings().index_table,
        Key=_key(made),
        UpdateExpression="SET sealed = :other",
        ExpressionAttributeValues=to_item({":other": bytes(64)}),
    )


def _of_another_type(made: Made) -> None:
    wiring.dynamodb().update_item(
        TableName=wiring.settings().index_table,
        Key=_key(made),
        UpdateExpression="SET wrapped_key = :other",
        ExpressionAttributeValues=to_item({":other": "text"}),
    )


def _removed(made: Made) -> None:
    wiring.dynamodb().delete_item(TableName=wiring.settings().index_table, Key=_key(made))


@pytest.mark.parametrize("damage", [_altered, _of_another_type, _removed])
@pytest.mark.parametrize("search", [False, True])
def test_a_damaged_row_is_flagged_and_the_page_answered(
    officer: str, capsys: pytest.CaptureFixture[str], damage: Callable[[Made], None], *, search: bool
) -> None:
    """Whoever alters one recording's metadata cannot hide a page of others."""
    started = clock.now_ms() - 40 * DAY_MS
    damaged, whole = (recordings.make("acme", started + offset, caller=CALLER) for offset in (0, 1000))
    damage(damaged)
    if search:
        answer = post_json("/v1/recordings/search", {"number": CALLER}, token=officer)
    else:
        answer = call("GET", "/v1/recordings", token=officer, query={"limit": "100"})
    assert answer.status == 200
    rows = {row["recording_id"]: row for row in answer.json["recordings"]}
    assert rows[damaged.recording_id]["participants"] is None
    assert rows[damaged.recording_id]["metadata_damaged"] is True
    assert rows[whole.recording_id]["participants"][0]["number"] == CALLER
    assert rows[whole.recording_id]["metadata_damaged"] is False
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert any(line.get("MetadataDamaged") for line in written)
    assert CALLER not in json.dumps(written)
    one = call("GET", "/v1/recordings/{recording_id}", path={"recording_id": damaged.recording_id}, token=officer)
    assert (one.status, "participants" in one.json) == (500, False)
    _removed(whole)
    for made in (damaged, whole):
        wiring.dynamodb().delete_item(
            TableName=wiring.settings().index_table,
            Key=to_item({"pk": f"{made.tenant}#rec#{made.recording_id}", "sk": "rec"}),
        )
