"""From template.yaml to plain CloudFormation, offline: what `sam package` and the SAM transform do on the way there."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from infra.local.intrinsics import TemplateError

CODE_BUCKET = "local-code"
"""Stands in for the bucket to which `sam package` uploads: a function's code is the key, a path beside the template."""

_CODE_PROPERTIES = ("CodeUri", "ContentUri")


def translate(path: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Read a SAM template and return it as CloudFormation.

    Args:
        path: the template; AWS::Include locations are relative to its directory.
        parameters: values of the template's parameters, pseudo parameters included; `AWS::Region` must be there.

    Returns:
        The translated template, with `Code` of functions at `s3://local-code/<path beside the template>`.

    Raises:
        TemplateError: if the template cannot be read or translated.
    """
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it warns of feature toggles that only AWS has
    document = _with_includes(yaml_parse(path.read_text("utf-8")), path.parent)
    for resource in document["Resources"].values():
        properties = resource.get("Properties", {})
        for name in _CODE_PROPERTIES:
            if isinstance(properties.get(name), str):
                properties[name] = f"s3://{CODE_BUCKET}/{properties[name]}"
    session = boto3.session.Session(region_name=parameters["AWS::Region"])  # asked for its region, never for AWS
    # Managed policies are named by their ARN in the template, so the account's list of them is never needed.
    translator = Translator(managed_policy_map={}, sam_parser=Parser(), boto_session=session)
    try:
        translated: dict[str, Any] = translator.translate(document, parameter_values=dict(parameters))
    except Exception as error:
        message = f"{path.name} cannot be translated: {getattr(error, 'message', error)}"
        raise TemplateError(message) from error
    return translated


def _with_includes(value: Any, directory: Path) -> Any:
    """Replace every `Fn::Transform: AWS::Include` by the file it names."""
    if isinstance(value, list):
        return [_with_includes(item, directory) for item in value]
    if not isinstance(value, dict):
        return value
    included = value.get("Fn::Transform")
    if isinstance(included, dict) and included.get("Name") == "AWS::Include":
        text = (directory / included["Parameters"]["Location"]).read_text("utf-8")
        fragment = json.loads(text) if text.lstrip().startswith("{") else yaml_parse(text)
        rest = {key: item for key, item in value.items() if key != "Fn::Transform"}
        return _with_includes({**rest, **fragment}, directory)
    return {key: _with_includes(item, directory) for key, item in value.items()}
