"""Writes the API's definition into template.yaml: `python -m infra.api.generate`, or `--check` to only compare.

The definition stands in the template itself, between two markers, because everything that reads a template (`sam`,
cfn-lint, checkov, the local cloud) then sees all of it; an AWS::Include is opened by the real CloudFormation alone.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from infra.api.definition import Route, build

_ROOT: Final = Path(__file__).resolve().parents[2]
TEMPLATE: Final = _ROOT / "template.yaml"
_APP_FOLDER: Final = _ROOT / "frontend_api"
_INDENT: Final = " " * 8
_BEGIN: Final = _INDENT + "# BEGIN GENERATED"
_END: Final = _INDENT + "# END GENERATED"


class _Dumper(yaml.SafeDumper):
    """Writes what is shared twice: CloudFormation templates have no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002, ANN401 - PyYAML's signature
        return True


def app_routes() -> list[Route]:
    """Every route of the Chalice app, as the app itself lists them."""
    if str(_APP_FOLDER) not in sys.path:
        sys.path.insert(0, str(_APP_FOLDER))
    app = importlib.import_module("app").app
    return [Route(path, method) for path, methods in app.routes.items() for method in methods]


def render(definition: dict[str, Any]) -> str:
    """The definition as the lines that belong between the markers."""
    text = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=118 - len(_INDENT))
    return "".join(f"{_INDENT}{line}\n" for line in text.splitlines())


def replace(template: str, body: str) -> str:
    """Puts `body` between the template's markers.

    Raises:
        ValueError: The template does not have each marker exactly once, in order.
    """
    lines = template.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(_BEGIN)]
    ends = [number for number, line in enumerate(lines) if line.startswith(_END)]
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise ValueError("template.yaml must have one BEGIN GENERATED and, after it, one END GENERATED")
    return "".join(lines[: begins[0] + 1]) + body + "".join(lines[ends[0] :])


def main() -> int:
    """Writes, or with `--check` compares; 1 when the template is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the template is up to date")
    arguments = parser.parse_args()
    old = TEMPLATE.read_text(encoding="utf-8")
    new = replace(old, render(build(app_routes())))
    if arguments.check:
        if new != old:
            sys.stderr.write("template.yaml: the API's definition is out of date: run `make definition`\n")
        return int(new != old)
    if new != old:
        TEMPLATE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
