"""The map of personal data is complete: a new field or store fails here until somebody says what it holds."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dualtone.domain.audit_event import AuditEvent
from dualtone.domain.call_session import CallSession
from dualtone.domain.recording_entry import RecordingEntry
from dualtone.usecases import describe_recording

ROOT = Path(__file__).parents[2]
MAP: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "infra" / "data_map.toml").read_text())
FORMS = {"sealed", "token", "opaque", "clear"}
STORES = "DynamoDB::Table|S3::Bucket|SQS::Queue|Logs::LogGroup|Cognito::UserPool"
STORING = re.compile(rf"^  (\w+):\n    Type: AWS::(?:{STORES})$", re.MULTILINE)
OUTSIDE = {"agent memory", "agent spool", "agent state", "agent log", "vault object header"}


def mapped(prefix: str) -> set[str]:
    """Names of the mapped fields of a kind."""
    return {name.partition(".")[2] for name in MAP["fields"] if name.startswith(f"{prefix}.")}


def test_every_field_of_the_sealed_metadata_is_mapped_as_sealed() -> None:
    """What describe_recording seals is what the map says is sealed."""
    assert mapped("metadata") == set(describe_recording.metadata(CallSession(), ()))
    assert {entry["form"] for name, entry in MAP["fields"].items() if name.startswith("metadata.")} == {"sealed"}


@pytest.mark.parametrize(("prefix", "kind"), [("recording", RecordingEntry), ("audit", AuditEvent)])
def test_every_field_kept_readable_is_mapped_or_said_to_be_impersonal(prefix: str, kind: Any) -> None:
    """Index rows and audit events: each field is on exactly one of the two lists."""
    personal, impersonal = mapped(prefix), set(MAP["not_personal"][prefix])
    assert personal | impersonal == {field.name for field in fields(kind)}
    assert not personal & impersonal


def test_every_store_of_the_template_is_described() -> None:
    """Tables, buckets, queues, log groups and the user pool."""
    assert set(STORING.findall((ROOT / "template.yaml").read_text())) == set(MAP["stores"])


def test_every_entry_says_whose_where_how_and_until_when() -> None:
    """And names only forms and stores that exist."""
    for name, entry in MAP["fields"].items():
        assert set(entry) == {"about", "store", "form", "gone"}, name
        assert entry["form"] in FORMS, name
        assert set(entry["store"]) <= set(MAP["stores"]) | OUTSIDE, name
