"""What each zip unpacks to in Lambda: the wheels of Python 3.13 on arm64, resolved by pip, counted without unpacking.

pip resolves with dependencies; what it finds must be exactly what the requirements file pins, and the versions must be
those that the tests run with. Its cache makes every run but the first take seconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 250_000_000  # AWS: 250 MB for a function and its layers, unpacked; taken as the smaller of both readings
LAYER = "functions/layer"
FOLDERS = [
    LAYER,
    "functions/cut_paused_spans",
    "functions/finalize_recording",
    "functions/ingest_agent_events",
    "functions/reconcile_recordings",
    "frontend_api",
]
CHALICE_RUNTIME = ["chalice/__init__.py", "chalice/app.py"]

Pins = dict[str, str]


def pins(folder: str, name: str = "requirements.txt") -> Pins:
    """Name -> version of the lines in a folder's requirements that pin one."""
    text = (ROOT / folder / name).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Downloads the wheels that a folder's zip is built from, once a folder."""
    done: dict[str, list[Path]] = {}

    def download(folder: str) -> list[Path]:
        if folder not in done:
            target = tmp_path_factory.mktemp("wheels")
            # Chalice's two runtime files need none of what its command line needs.
            alone = ["--no-deps"] if folder == "frontend_api" else []
            command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-input"]
            command += ["--only-binary=:all:", "--python-version", "3.13", "--implementation", "cp"]
            command += ["--abi", "cp313", "--abi", "abi3", "--abi", "none"]
            command += ["--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64"]
            command += ["--dest", str(target), *alone, "--requirement", f"{folder}/requirements.txt"]
            if pins(folder):
                subprocess.run(command, cwd=ROOT, check=True, timeout=600)
            done[folder] = sorted(target.glob("*.whl"))
        return done[folder]

    return download


def _unpacked(wheel: Path, folder: str) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(
            entry.file_size
            for entry in archive.infolist()
            if folder != "frontend_api" or entry.filename in CHALICE_RUNTIME
        )


def _own_bytes(folder: str) -> int:
    return sum(path.stat().st_size for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_zip_holds_the_versions_that_the_tests_run_with(folder: str) -> None:
    """Pinned here as in requirements/run.txt."""
    tested = pins("requirements", "run.txt")
    assert pins(folder) == {name: tested.get(name) for name in pins(folder)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_wheels_exist_and_nothing_is_missing_from_the_pins(folder: str, wheels: Callable[[str], list[Path]]) -> None:
    """A wheel exists for each, and pip needs no other."""
    found = {
        re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower(): wheel.name.split("-")[1] for wheel in wheels(folder)
    }
    assert found == pins(folder)


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_function_and_layer_fit_into_lambda(
    folder: str, wheels: Callable[[str], list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """REQ: Lambda quotas, "Deployment package (.zip file archive) size": 250 MB unzipped, including layers."""
    layer = sum(_unpacked(wheel, LAYER) for wheel in wheels(LAYER)) + _own_bytes(LAYER)
    function = sum(_unpacked(wheel, folder) for wheel in wheels(folder)) + _own_bytes(folder)
    with capsys.disabled():
        sys.stdout.write(f"\n{folder}: {function / 1e6:.1f} MB + layer {layer / 1e6:.1f} MB of 250 MB unpacked\n")
    assert layer + function <= LIMIT_BYTES


def test_the_api_ships_two_files_of_chalice_and_they_are_enough(tmp_path: Path) -> None:
    """The build that the template names, and an import without any installed package."""
    make = shutil.which("make")
    assert make is not None
    command = [
        make,
        "-s",
        "-C",
        "frontend_api",
        "build-ApiFunction",
        f"ARTIFACTS_DIR={tmp_path}",
        f"PYTHON={sys.executable}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    shipped = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert [name for name in sorted(shipped) if name.startswith("chalice/")] == CHALICE_RUNTIME
    own = {path.relative_to(ROOT / "frontend_api").as_posix() for path in (ROOT / "frontend_api").rglob("*.py")}
    assert shipped == own | set(CHALICE_RUNTIME)
    alone = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import chalice.app"]
    subprocess.run(alone, cwd=tmp_path, check=True, timeout=60)
