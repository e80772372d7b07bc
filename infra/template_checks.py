"""Checks template.yaml as CloudFormation will see it: translated by SAM first, then linted.

Linters that read the raw SAM template do not look into `Globals`, so a reference to nothing passes them there and
fails at deployment. `python -m infra.template_checks` translates and runs cfn-lint on the result.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import boto3
import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

Json = dict[str, Any]

REGION: Final = "eu-west-1"
_ROOT: Final = Path(__file__).resolve().parents[1]
TEMPLATE: Final = _ROOT / "template.yaml"
_UPLOADED: Final = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms (`!Ref x`) as their long ones (`{"Ref": x}`)."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Json:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise yaml.constructor.ConstructorError(problem=f"!{suffix} on an unknown kind of node")
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def load(path: Path = TEMPLATE) -> Json:
    """Reads a template, with CloudFormation's short forms as long ones.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    template: Json = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    return template


def translate(template: Json) -> Json:
    """SAM's translation of a template: plain CloudFormation. Local code folders stand as if they were uploaded.

    Raises:
        samtranslator.model.exceptions.InvalidDocumentException: SAM refuses the template.
    """
    uploaded = copy.deepcopy(template)
    for resource in uploaded["Resources"].values():
        if code := _UPLOADED.get(resource["Type"]):
            resource["Properties"][code] = f"s3://packaged/{resource['Properties'][code]}.zip"
    session = boto3.session.Session(region_name=REGION)
    translator = Translator(managed_policy_map={}, sam_parser=Parser(), boto_session=session)
    translated: Json = translator.translate(uploaded, parameter_values={})
    return translated


def main() -> int:
    """Lints the translated template; cfn-lint's exit code."""
    with tempfile.TemporaryDirectory(prefix="dualtone-template-") as folder:
        path = Path(folder) / "translated.json"
        path.write_text(json.dumps(translate(load()), indent=1), encoding="utf-8")
        linter = Path(sys.executable).with_name("cfn-lint")
        command = [str(linter), "--regions", REGION, "--", str(path)]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own command


if __name__ == "__main__":
    raise SystemExit(main())
