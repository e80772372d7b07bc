"""Builds what `sam build` and `sam package` make of the template: a zip for each function and layer.

The template is followed, not interpreted: CodeUri and ContentUri say where the source is, BuildMethod how it is built,
requirements.txt what it brings along. Two things differ from a deployment, and neither is in the template: wheels are
those of this machine instead of arm64, since the emulator runs the functions as processes of it; and they come from the
folder that `make` filled, whose hashes pip has checked.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samtranslator.yaml_helper import yaml_parse

LAYER_FOLDER: Final = "python/"
"""Where Lambda looks for a Python layer's packages: /opt/python."""

_URI_PROPERTIES: Final = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
_FASTEST: Final = 1  # they are read once


@dataclass(frozen=True, slots=True)
class Package:
    """A function or layer of the template.

    Attributes:
        logical_id: Its name in the template.
        uri: Its CodeUri or ContentUri as the template has it.
        source: The folder which that names.
        prefix: Where in the zip everything goes.
        makefile: Whether the folder's Makefile builds it (BuildMethod: makefile).
    """

    logical_id: str
    uri: str
    source: Path
    prefix: str
    makefile: bool


def packages(template: Path) -> list[Package]:
    """Reads which packages a template names."""
    resources: Mapping[str, Any] = yaml_parse(template.read_text("utf-8"))["Resources"]
    found = []
    for logical_id, declared in resources.items():
        if (name := _URI_PROPERTIES.get(declared["Type"])) is None:
            continue
        uri = declared["Properties"][name]
        prefix = LAYER_FOLDER if name == "ContentUri" else ""
        makefile = declared.get("Metadata", {}).get("BuildMethod") == "makefile"
        found.append(Package(logical_id, uri, template.parent / uri, prefix, makefile))
    return found


def build(package: Package, wheels: Path, target: Path) -> Path:
    """Builds one package.

    Args:
        package: Which.
        wheels: Folder of wheels for the Python that will run it.
        target: Folder for the zip.

    Returns:
        The zip.

    Raises:
        FileNotFoundError: If a wheel that its requirements pin is not there.
        subprocess.CalledProcessError: If its Makefile fails.
    """
    path = target / f"{package.logical_id}.zip"
    if package.makefile:
        folder, brought = target / package.logical_id, []
        _make(package, wheels, folder)
    else:
        folder, brought = package.source, [_wheel(pin, wheels) for pin in _pins(package.source / "requirements.txt")]
    if brought and not package.prefix:
        # A wheel is a zip of what it unpacks to: the largest is taken as it is, for ffmpeg takes long to compress.
        largest = max(brought, key=lambda wheel: wheel.stat().st_size)
        brought.remove(largest)
        shutil.copyfile(largest, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=_FASTEST) as archive:
        for wheel in brought:
            _add_wheel(archive, wheel, package.prefix)
        _add_folder(archive, folder, package.prefix)
    return path


def _make(package: Package, wheels: Path, folder: Path) -> None:
    """Runs the Makefile as `sam build` does; pip finds the wheels in their folder and nowhere else."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    target = f"build-{package.logical_id}"
    command = ["make", "--silent", target, f"ARTIFACTS_DIR={folder}", f"PYTHON={sys.executable}"]
    environment = {"PATH": os.environ["PATH"], **offline}
    subprocess.run(command, cwd=package.source, env=environment, check=True)  # noqa: S603 - our own command


def _pins(requirements: Path) -> list[str]:
    if not requirements.exists():  # `sam build` goes on without, too
        return []
    lines = (line.partition("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _wheel(pin: str, wheels: Path) -> Path:
    name, _, version = pin.partition("==")
    start = f"{name.replace('-', '_')}-{version}-".lower()
    for wheel in wheels.glob("*.whl"):
        if wheel.name.lower().startswith(start):
            return wheel
    message = f"{wheels} has no wheel of {pin}: `make test` downloads it"
    raise FileNotFoundError(message)


def _add_wheel(archive: zipfile.ZipFile, wheel: Path, prefix: str) -> None:
    """Unpacks a wheel into the zip, permissions and all: ffmpeg is run."""
    with zipfile.ZipFile(wheel) as content:
        for entry in content.infolist():
            if not entry.is_dir():
                placed = zipfile.ZipInfo(prefix + entry.filename, entry.date_time)
                placed.external_attr, placed.compress_type = entry.external_attr, zipfile.ZIP_DEFLATED
                archive.writestr(placed, content.read(entry), compresslevel=_FASTEST)


def _add_folder(archive: zipfile.ZipFile, folder: Path, prefix: str) -> None:
    for path in _files(folder):
        archive.write(path, prefix + path.relative_to(folder).as_posix())


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
