"""The settings file: the example is the documentation, and every fault is told with what to write instead."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from sbc_agent.runtime import config
from sbc_agent.runtime.config import AgentConfig, ConfigError, Endpoint, PortRange

EXAMPLE = Path(config.__file__).parents[1] / "docs" / "agent.toml"
SMALLEST = """
[agent]
state_dir = "/var/lib/a"
spool_dir = "/var/spool/a"
[media]
address = "192.0.2.10"
[uplink]
api = "https://recorder.example.com"
"""


def changed(line: str) -> str:
    """The smallest settings with one line more or other: ``section.key = value``."""
    path, _, value = line.partition(" = ")
    section, _, key = path.partition(".")
    document = re.sub(rf"(?m)^{key} = .*\n", "", SMALLEST)
    if f"[{section}]" in document:
        return document.replace(f"[{section}]\n", f"[{section}]\n{key} = {value}\n")
    return f"{document}\n[{section}]\n{key} = {value}\n"


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    return caught.value.problems


def test_the_example_loads() -> None:
    """The documented file is a file that works."""
    loaded = config.load(EXAMPLE)
    assert loaded.sip.udp == Endpoint("0.0.0.0", 5060)
    assert loaded.media.ports == PortRange(20_000, 29_999)
    assert loaded.media.hold_back_ms == 5_000


def test_the_example_names_every_setting_and_explains_it() -> None:
    """No key is missing from the documentation, and a comment stands above each."""
    document = tomllib.loads(EXAMPLE.read_text())
    lines = EXAMPLE.read_text().splitlines()
    for section, field in AgentConfig.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        assert set(document[section]) == set(field.annotation.model_fields)
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line) and not re.match(r"[a-z_]+ = ", lines[number - 1]):
            assert lines[number - 1].startswith("#"), line


def test_the_example_shows_the_defaults() -> None:
    """What the file says is what the agent does without it, wherever there is a default."""
    example, smallest = config.load(EXAMPLE), config.parse(SMALLEST)
    for section in ("sip", "log"):
        assert getattr(example, section) == getattr(smallest, section)
    assert example.media == smallest.media
    assert example.uplink == smallest.uplink
    for setting in ("drain_s", "min_free_mb", "when_full"):
        assert getattr(example.agent, setting) == getattr(smallest.agent, setting)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'agent.state_dir = "relative"',
            'agent.state_dir = "relative" (the path is not absolute): write an absolute path',
        ),
        ("agent.drain_s = -1", "agent.drain_s = -1: write a whole number of seconds from 0 to 600"),
        ("agent.drain_s = 1.5", "agent.drain_s = 1.5: write a whole number"),
        ('agent.drain_s = "20"', 'agent.drain_s = "20": write a whole number'),
        (
            'sip.udp = "5060"',
            'sip.udp = "5060" (address and port are not told apart): write an IPv4 address and a port',
        ),
        ('sip.udp = "localhost:5060"', "that is no IPv4 address"),
        ('sip.tcp = "0.0.0.0:70000"', 'such as "0.0.0.0:5060" (port 0 for any free one), or "off"'),
        ("sip.tcp = true", "sip.tcp = true (that is no text)"),
        ('sip.advertise = "two words"', "that is no host name"),
        ('sip.peers = "192.0.2.20"', "that is no list"),
        ('sip.peers = ["sbc.example.com"]', "that is no IPv4 address"),
        ('sip.srtp = "require-tls"', 'sip.srtp = "require-tls": write "allow", "require_tls" or "off"'),
        ('media.address = "0.0.0.0"', "no SBC can send to that address"),
        ('media.address = "::1"', "that is no IPv4 address"),
        ('media.ports = "20000"', 'such as "20000-29999"'),
        ('media.ports = "80-90"', "leaves 1024-65535"),
        ('media.ports = "30000-20000"', "runs backwards"),
        ('media.ports = "20001-20002"', "no even port with its odd neighbour"),
        ("media.pool_size = 0", "media.pool_size = 0: write a whole number of streams"),
        ("media.pool_size = 6000", "holds 5000 pairs of ports: write pool_size = 5000 or less"),
        ("media.hold_back_s = 31", "media.hold_back_s = 31: write a number of seconds from 0 to 30"),
        ("media.hold_back_s = nan", "media.hold_back_s = nan: write"),
        ('uplink.api = "recorder.example.com"', "that is no URL"),
        ('uplink.api = "http://recorder.example.com"', "plain http would show what the agent sends"),
        ('uplink.api = "https://recorder.example.com/v1"', "the agent adds /v1 itself"),
        ('uplink.api = "https://u:p@recorder.example.com"', "more than scheme, host, port and path"),
        ("uplink.threads = 33", "uplink.threads = 33: write a whole number from 1 to 32"),
        ("agent.min_free_mb = -1", "agent.min_free_mb = -1: write a whole number of MiB from 0 to 100000000"),
        ('agent.when_full = "hope"', 'agent.when_full = "hope": write "refuse_calls" or "record_in_memory"'),
        ("uplink.resend_days = 14", "uplink.resend_days = 14: write a whole number of days from 1 to 12"),
        ('log.level = "loud"', 'log.level = "loud": write "debug", "info", "warning" or "error"'),
        ("media.adress = 1", "media.adress: no such setting; remove it or correct its name ([media] knows address,"),
        ("medai.x = 1", "medai: no such setting; remove it or correct its name (the sections are agent, sip,"),
    ],
)
def test_a_fault_is_told_with_key_value_and_what_to_write(line: str, message: str) -> None:
    """Each fault is one sentence that names the key, shows the value, and says what will do."""
    (problem,) = problems(changed(line))
    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALLEST.replace("[media]\naddress", "[media]\nports"), "media.address: missing; write the IPv4 address"),
        (SMALLEST.replace("[uplink]\n", "").replace("api = ", "# "), "[uplink]: missing; write the section with api"),
        (SMALLEST + '[sip]\nudp = "off"\ntcp = "off"\n', "udp, tcp and tls are all off"),
        (SMALLEST.replace("/var/spool/a", "/var/lib/a"), "are one directory"),
        ("agent = 5\n" + SMALLEST.replace("[agent]", "[log]"), "agent: write a section [agent]"),
        ("[agent\n", "not TOML"),
    ],
)
def test_a_fault_of_the_whole_is_told(text: str, message: str) -> None:
    """What is missing, contradicts itself or is no TOML is told as plainly."""
    assert any(message in problem for problem in problems(text))


def test_all_faults_are_told_at_once() -> None:
    """Nobody has to start an agent five times to correct five lines."""
    assert len(problems(SMALLEST.replace("192.0.2.10", "x").replace("https:", "ftp:").replace("/var/lib", "lib"))) == 3


def test_ways_to_say_things() -> None:
    """Off, any free port, loopback over http, a stage in the path, whole seconds for a fraction."""
    text = SMALLEST.replace("https://recorder.example.com", "http://127.0.0.1:8080/prod/")
    loaded = config.parse(
        text + '[sip]\nudp = "127.0.0.1:0"\ntcp = "off"\nadvertise = "rec.example.com"\npeers = ["192.0.2.20"]\n'
    )
    assert loaded.sip.udp == Endpoint("127.0.0.1", 0)
    assert loaded.sip.tcp is None
    assert loaded.sip.advertise == "rec.example.com"
    assert loaded.sip.peers == {"192.0.2.20"}
    assert loaded.uplink.api == "http://127.0.0.1:8080/prod"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file or directory"), (b"\xff\xfe", "not UTF-8 text"), (b"x", "not TOML")]
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Each problem begins with the file's name."""
    path = tmp_path / "agent.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(path)
    assert all(problem.startswith(str(path)) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("a.test", False),
    ],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    """Plain http is for these hosts alone."""
    assert config.is_loopback(host) is loopback
