"""Checks template.yaml as CloudFormation will see it: translated by SAM first, then linted.

Linters that read the raw SAM template do not look into `Globals`, so a reference to nothing passes them there and
fails at deployment. `python -m infra.template_checks` translates and runs cfn-lint on the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.local.template import REGION, TEMPLATE
from infra.local.translate import translate


def main() -> int:
    """Lints the translated template; cfn-lint's exit code."""
    with tempfile.TemporaryDirectory(prefix="dualtone-template-") as folder:
        path = Path(folder) / "translated.json"
        path.write_text(json.dumps(translate(TEMPLATE, {"AWS::Region": REGION}), indent=1), encoding="utf-8")
        linter = Path(sys.executable).with_name("cfn-lint")
        command = [str(linter), "--regions", REGION, "--", str(path)]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own command


if __name__ == "__main__":
    raise SystemExit(main())
