"""Each Lambda starts with what its zip, the layer and the runtime bring: nothing that only our environment has.

The handler is imported by a Python that refuses every other package, as Lambda's would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.contract.test_wheels import LAYER, ROOT, pins

RUNTIME = {"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"}
"""What Lambda's Python has beside the standard library."""

_IMPORT = """
import json, sys
refused, module, *folders = json.loads(sys.argv[1])

class OnlyWhatIsShipped:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not shipped", name=name)

sys.meta_path.insert(0, OnlyWhatIsShipped())
sys.path[:0] = folders
__import__(module)
"""


def _refused(folder: str) -> list[str]:
    """What is installed here and not there, by the names under which it is imported."""
    shipped = RUNTIME | pins(LAYER).keys() | pins(folder).keys()
    ours = {"dualtone"}  # the distribution of this repository: its packages come from the folders
    return [
        name
        for name, distributions in packages_distributions().items()
        if not {distribution.lower().replace("_", "-") for distribution in distributions} & (shipped | ours)
    ]


@pytest.mark.parametrize(
    ("folder", "module"),
    [
        ("functions/finalize_recording", "handler"),
        ("functions/cut_paused_spans", "handler"),
        ("functions/ingest_agent_events", "handler"),
        ("functions/reconcile_recordings", "handler"),
        ("frontend_api", "app"),
    ],
)
def test_a_handler_starts_with_what_is_shipped(folder: str, module: str) -> None:
    """Importing it needs no other package, no environment and no AWS."""
    argument = json.dumps([_refused(folder), module, str(ROOT / folder), str(ROOT / LAYER)])
    command = [sys.executable, "-c", _IMPORT, argument]
    run = subprocess.run(command, cwd=Path("/"), env={}, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
