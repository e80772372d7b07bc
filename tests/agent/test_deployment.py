"""How the agent is put on a machine: the service's sandbox and the container, looked at line by line."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "sbc_agent" / "deploy"
UNIT = DEPLOY / "dualtone-agent.service"
SYSTEMD = shutil.which("systemd-analyze")


def _unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Section -> directive -> its values in order; systemd takes a directive more than once."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, separator, value = line.partition("=")
            assert separator, line
            found.setdefault(section, {}).setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    return _unit(UNIT.read_text())["Service"]


@pytest.mark.parametrize(
    ("directive", "value"),
    [
        ("User", "dualtone"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("LimitCORE", "0"),
        ("LimitMEMLOCK", "infinity"),
        ("LimitNOFILE", "65536"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictNamespaces", "yes"),
        ("SystemCallArchitectures", "native"),
        ("UMask", "0077"),
        ("KillMode", "mixed"),
        ("Restart", "always"),
        ("RestartPreventExitStatus", "2"),
    ],
)
def test_the_service_is_kept_in_its_place(service: dict[str, list[str]], directive: str, value: str) -> None:
    """No privilege, nothing of the system to write, memory locked, dumps off, started again."""
    assert service[directive] == [value]


def test_the_service_writes_its_state_and_spool_alone(service: dict[str, list[str]]) -> None:
    """The directories of the documented settings."""
    settings = (ROOT / "sbc_agent" / "docs" / "agent.toml").read_text()
    (spool,) = service["ReadWritePaths"]
    assert f'spool_dir = "{spool}"' in settings
    assert f'state_dir = "/var/lib/{service["StateDirectory"][0]}"' in settings


def test_the_agent_sees_its_media_process(service: dict[str, list[str]]) -> None:
    """With hidepid, /proc hides a process that may not be traced from its own user too: nothing to tell of it."""
    assert not {"ProtectProc", "ProcSubset"} & service.keys()


def test_a_stop_has_time_for_the_hold_back_and_the_drain(service: dict[str, list[str]]) -> None:
    """The longest hold-back and the default grace time fit."""
    assert int(service["TimeoutStopSec"][0]) >= 30 + 20 + 30


@pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """`verify` says nothing about it, with a program in the place of ours."""
    text = UNIT.read_text().replace("/opt/dualtone/bin/dualtone-agent", sys.executable)
    assert _verified(tmp_path, text) == ""
    assert "Unknown key" in _verified(tmp_path, text.replace("ProtectHome", "ProtectHouse"))


@pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed")
def test_systemd_rates_its_exposure_as_ok(tmp_path: Path) -> None:
    """Below 2 of 10; the network is what it is for."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text())
    assert SYSTEMD is not None
    done = subprocess.run(
        [SYSTEMD, "security", "--offline=true", str(copy)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", done.stdout)
    if found is None:
        pytest.skip("this systemd-analyze rates no files")
    assert float(found[1]) < 2.0


def _verified(directory: Path, text: str) -> str:
    """What systemd-analyze says of a unit by our name."""
    copy = directory / UNIT.name
    copy.write_text(text)
    assert SYSTEMD is not None
    done = subprocess.run([SYSTEMD, "verify", str(copy)], capture_output=True, text=True, check=False)
    return "\n".join(line for line in done.stderr.splitlines() if UNIT.name in line)


# -- the container ----------------------------------------------------------------------------------------------------


def _instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    return _instructions((DEPLOY / "Dockerfile").read_text())


def _all(dockerfile: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in dockerfile if instruction == name]


def test_the_base_image_is_named_by_whoever_builds(dockerfile: list[tuple[str, str]]) -> None:
    """No default that grows old: an argument, documented with a digest."""
    assert _all(dockerfile, "ARG") == ["PYTHON_IMAGE"]
    assert [rest.split()[0] for rest in _all(dockerfile, "FROM")] == ["${PYTHON_IMAGE}"] * 2
    assert "PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:" in (DEPLOY / "Dockerfile").read_text()


def test_packages_are_pinned_by_hash_and_built_of_nothing_foreign(dockerfile: list[tuple[str, str]]) -> None:
    """Every pip install either demands hashes or has no index; nothing is fetched by ADD, curl or apt."""
    installs = [rest for rest in _all(dockerfile, "RUN") if '"install"' in rest]
    assert len(installs) == 3
    assert all('"--require-hashes"' in rest or '"--no-index"' in rest for rest in installs)
    assert not _all(dockerfile, "ADD")
    assert not [rest for rest in _all(dockerfile, "RUN") if re.search(r"curl|wget|apt", rest)]


def _imported(path: Path) -> set[str]:
    """What a module imports when it runs, by full name: not what only its types need."""
    tree = ast.parse(path.read_bytes())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update({node.module}, {f"{node.module}.{alias.name}" for alias in node.names})
    return found


def test_its_packages_are_those_that_the_agent_imports() -> None:
    """Of the agent and what it imports of the shared package; the time zones are data."""
    waiting, seen, foreign = set((ROOT / "sbc_agent").rglob("*.py")), set[Path](), set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in _imported(path):
            top, *rest = name.split(".")
            if top == "dualtone":
                module = (ROOT / "functions" / "layer" / "dualtone").joinpath(*rest).with_suffix(".py")
                waiting |= {module} - seen if module.is_file() else set()
            elif top not in {*sys.stdlib_module_names, "sbc_agent"}:
                foreign.add(top)
    named = {"botocore": "boto3", "jwt": "pyjwt", "prometheus_client": "prometheus-client"}
    wanted = {named.get(name, name) for name in foreign} | {"tzdata", "setuptools", "wheel"}
    lines = (ROOT / "requirements" / "agent.in").read_text().lower().splitlines()
    assert {line.partition("[")[0] for line in lines if not line.startswith(("#", "-c"))} == wanted


def test_it_does_not_run_as_root(dockerfile: list[tuple[str, str]]) -> None:
    """A number, which needs no look into the image; nothing follows that would run as another."""
    assert _all(dockerfile, "USER") == ["10001:10001"]
    names = [name for name, _ in dockerfile]
    assert "RUN" not in names[names.index("USER") :]
    assert "COPY" not in names[names.index("USER") :]


def test_no_secret_is_baked_in(dockerfile: list[tuple[str, str]]) -> None:
    """Neither by an argument nor by the environment; keys come with the volume."""
    text = " ".join(rest for name, rest in dockerfile if name in {"ENV", "ARG", "LABEL"})
    assert not re.search(r"TOKEN|SECRET|PASSWORD|KEY", text)


def test_what_is_copied_exists_and_is_let_through(dockerfile: list[tuple[str, str]]) -> None:
    """Each source is in the repository and in the build context; commands are in their exec form."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    sources = [source for rest in _all(dockerfile, "COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert len(sources) == 9
    for source in sources:
        assert (ROOT / source).exists()
        assert source in let_in
    for name in ("ENTRYPOINT", "CMD", "VOLUME"):
        assert all(rest.startswith("[") for rest in _all(dockerfile, name))
    assert _all(dockerfile, "STOPSIGNAL") == ["SIGTERM"]
