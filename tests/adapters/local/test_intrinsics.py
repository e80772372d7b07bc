"""Translating and resolving templates: what is understood, and what is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.local.cloud import LocalCloud
from infra.local.intrinsics import Created, Resolver, TemplateError, references
from infra.local.template import apply
from tests.adapters.local.conftest import MINI

CIRCLE = """\
  A: { Type: AWS::SQS::Queue, Properties: { QueueName: !GetAtt B.QueueName } }
  B: { Type: AWS::SQS::Queue, Properties: { QueueName: !GetAtt A.QueueName } }
"""


def _template(tmp_path: Path, resources: str) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(f"Transform: AWS::Serverless-2016-10-31\nResources:\n{resources}", "utf-8")
    return path


@pytest.mark.parametrize(
    ("resources", "complaint"),
    [
        ("  A: { Type: AWS::SNS::Topic }", "does not know AWS::SNS::Topic"),
        ("  A: { Type: AWS::SQS::Queue, Properties: { Colour: red } }", "does not know Colour"),
        ("  A: { Type: AWS::SQS::Queue, Properties: { QueueName: !Ref Nobody } }", "Ref Nobody"),
        ("  A: { Type: AWS::SQS::Queue, Properties: { QueueName: !GetAtt B.Arn } }", "B.Arn: no such resource"),
        ("  A: { Type: AWS::SQS::Queue, Properties: { QueueName: !ImportValue x } }", "Fn::ImportValue"),
        (CIRCLE, "circular"),
    ],
)
def test_what_is_not_understood_is_an_error(mini: LocalCloud, tmp_path: Path, resources: str, complaint: str) -> None:
    """An unknown type, property, name, function or order stops the cloud with a message that names it."""
    assert mini
    with pytest.raises(TemplateError, match=complaint):
        apply(_template(tmp_path, resources), stack="bad")


def test_parameters_are_checked(mini: LocalCloud) -> None:
    """A value that its pattern refuses, and a parameter that does not exist."""
    assert mini
    with pytest.raises(TemplateError, match="Stage does not match"):
        apply(MINI, parameters={"Stage": "Not This"})
    with pytest.raises(TemplateError, match="no parameter Phase"):
        apply(MINI, parameters={"Phase": "x"})


def test_conditions_decide_what_is_made(mini: LocalCloud) -> None:
    """A resource under a false condition is not there; Fn::If and the literal ${!...} resolve."""
    assert "OnlyLive" not in mini.stack.created
    environment = mini.functions.environment()
    assert environment["MINI_STAGE"] == "not-test-but-${literal}"
    assert environment["MINI_QUEUE_URL"] == mini.stack.ref("Work")
    assert mini.stack.ref("Uploads") == "mini-test-uploads"
    assert mini.stack.outputs == {"Work": mini.stack.arn("Work")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "P"}, "p"),
        ({"Fn::GetAtt": ["R", "Arn"]}, "arn:r"),
        ({"Fn::GetAtt": "R.Arn"}, "arn:r"),
        ({"Fn::Sub": "${P}-${R}-${R.Arn}-${!P}"}, "p-r-arn:r-${P}"),
        ({"Fn::Sub": ["${V}-${P}", {"V": {"Ref": "R"}}]}, "r-p"),
        ({"Fn::Join": ["", ["a", {"Ref": "P"}]]}, "ap"),
        ({"Fn::Select": [1, {"Fn::Split": ["-", "x-y"]}]}, "y"),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [{"Ref": "AWS::NoValue"}, 1]}, {"b": [1]}),
        ({"Fn::If": ["Yes", "then", "else"]}, "then"),
        ({"Condition": {"Bool": {"x": "y"}}}, {"Condition": {"Bool": {"x": "y"}}}),
        ({"Fn::Base64": {"Ref": "P"}}, "cA=="),
    ],
)
def test_intrinsics(value: Any, expected: Any) -> None:
    """A table of what each function gives."""
    conditions = {"Yes": {"Fn::And": [{"Fn::Equals": [{"Ref": "P"}, "p"]}, {"Fn::Not": [{"Condition": "No"}]}]}}
    conditions["No"] = {"Fn::Or": [{"Fn::Equals": ["a", "b"]}, {"Fn::Equals": ["a", "c"]}]}
    resolver = Resolver({"P": "p"}, conditions, {"R": Created("r", {"Arn": "arn:r"})})
    assert resolver.resolve(value) == expected


def test_references_are_found_wherever_they_hide() -> None:
    """Dependency order comes from these."""
    value = {
        "a": [{"Fn::Sub": "${A}-${!No}-${B.Arn}"}],
        "b": {"Fn::If": ["X", {"Ref": "C"}, {"Fn::GetAtt": ["D", "Arn"]}]},
    }
    assert set(references(value)) == {"A", "B", "C", "D"}


def test_a_condition_that_is_true_makes_more(mini: LocalCloud) -> None:
    """The same template for another stage."""
    assert mini
    live = apply(MINI, parameters={"Stage": "live"}, stack="live")
    assert "OnlyLive" in live.created
    assert {spec.environment["MINI_STAGE"] for spec in live.compute.functions.values()} == {"production"}


def test_one_cloud_a_process(mini: LocalCloud) -> None:
    """Moto patches botocore for the whole process: a second cloud is refused, the first goes on."""
    assert mini
    with pytest.raises(RuntimeError, match="only one"), LocalCloud(template=MINI, driven=False, tenants=()):
        pass
    assert mini.client("sqs").list_queues()["QueueUrls"]
