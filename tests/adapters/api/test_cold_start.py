"""What a cold start of the API costs before its first request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, time
before = time.process_time()
import app
print(time.process_time() - before)
assert not {"numpy", "moto", "ffmpeg", "defusedxml"} & set(sys.modules)
"""


def test_importing_the_app_is_cheap_and_imports_nothing_of_the_finaliser() -> None:
    """About a third of a second of processor; the bound leaves room for a slow machine."""
    environment = {"PYTHONPATH": f"{ROOT / 'frontend_api'}:{ROOT / 'functions' / 'layer'}", "PATH": ""}
    run = [
        float(subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert min(run) < 1.0
