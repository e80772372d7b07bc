"""Writes the API's OpenAPI description to frontend_api/openapi.json: `python -m infra.api.describe`.

It is what `GET /v1/openapi.json` serves, checked in so that a change of the API is seen where changes are reviewed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Final

from dualtone import __version__

_APP_FOLDER: Final = Path(__file__).resolve().parents[2] / "frontend_api"
DESCRIPTION: Final = _APP_FOLDER / "openapi.json"


def render() -> str:
    """The description of the app as it is, as JSON that people can compare."""
    if str(_APP_FOLDER) not in sys.path:
        sys.path.insert(0, str(_APP_FOLDER))
    operations = importlib.import_module("app").app.operations
    description = importlib.import_module("chalicelib.openapi").describe(operations, __version__)
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DESCRIPTION.write_text(render(), encoding="utf-8")
