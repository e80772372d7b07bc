"""``dualtone-agent doctor``: looks at everything that recordings depend on, and says in plain words what to change.

It may run beside the agent and before it was ever started: it binds no port that the agent has, takes no message, and
leaves nothing behind. Exit status 1 if something is to be changed.
"""

from __future__ import annotations

import datetime as dt
import resource
import socket
import time
from pathlib import Path
from typing import Any, Final

from dualtone.domain.errors import DualtoneError, NotFound, Unavailable
from sbc_agent.media.clock import AgentClock
from sbc_agent.runtime import doctor_machine, doctor_uplink, lan_credentials, preflight, status
from sbc_agent.runtime.cloud_api import CloudApi
from sbc_agent.runtime.config import AgentConfig
from sbc_agent.runtime.credentials import AgentCredentials, TokenSource, agent_session
from sbc_agent.runtime.diagnosis import Diagnosis, of_findings
from sbc_agent.runtime.durable import require_owner
from sbc_agent.runtime.identity import AgentKey, Identity
from sbc_agent.runtime.ingest_bucket import s3_client, sqs_client
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.revocation import Revocation
from sbc_agent.runtime.spool_room import DiskSpace

_API_TIMEOUT_S: Final = 5.0


def examine(config: AgentConfig, log: Log) -> list[Diagnosis]:
    """Looks at everything.

    Args:
        config: The settings.
        log: Where the agent's own modules tell what they do; the doctor says it again in its own words.

    Raises:
        PolicyViolation: If ``agent.state_dir`` is another user's: root can do what the agent cannot.
    """
    require_owner(config.agent.state_dir)
    report = _running(config.agent.state_dir)
    pid = None if report is None else int(report["pids"]["media"])
    found = [_agent(report)]
    found += _ports(config, running=report is not None)
    found += _machine(config, pid)
    found += _certificates(config)
    found += _uplink(config, log)
    return found


def _running(state_dir: Path) -> dict[str, Any] | None:
    try:
        return status.ask(state_dir)
    except (NotFound, Unavailable):
        return None


def _agent(report: dict[str, Any] | None) -> Diagnosis:
    if report is None:
        return Diagnosis("agent", "warn", "no agent runs with these settings, or it belongs to another user")
    alarms = ", ".join(f"{name} x{count}" for name, count in sorted(report["alarms"].items()))
    text = f"runs, version {report['version']}, {report['calls_live']} live calls"
    if alarms:
        return Diagnosis("agent", "warn", f"{text}; alarms since its start: {alarms}: the documentation explains each")
    return Diagnosis("agent", "ok", f"{text}, no alarms")


def _ports(config: AgentConfig, *, running: bool) -> list[Diagnosis]:
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    sip, lan = config.sip, config.lan
    endpoints = {
        "sip.udp": (sip.udp, udp),
        "sip.tcp": (sip.tcp, tcp),
        "sip.tls": (sip.tls, tcp),
        "lan.listen": (lan.listen, tcp),
        "lan.phones_http": (lan.phones_http, tcp),
        "metrics.listen": (config.metrics.listen, tcp),
    }
    media = config.media
    reserved = preflight.read_proc("sys/net/ipv4/ip_local_reserved_ports")
    clash = preflight.media_ports(media.ports, preflight.ephemeral_ports(), reserved)
    return [
        *doctor_machine.listeners(endpoints, running=running),
        doctor_machine.media_pool(media.address, media.ports, media.pool_size, running=running),
        *of_findings("port_range", clash, f"the kernel gives no port of {media.ports} to outgoing connections"),
    ]


def _machine(config: AgentConfig, pid: int | None) -> list[Diagnosis]:
    agent, pool_size = config.agent, config.media.pool_size
    limits, of = doctor_machine.limits(pid)
    files, locked = limits[resource.RLIMIT_NOFILE], limits[resource.RLIMIT_MEMLOCK]
    swapping = preflight.swapping()
    found = of_findings("descriptors", preflight.descriptors(files, pool_size), f"{files} files may be open ({of})")
    well = f"the hold-back stays out of swap ({of})" if swapping else "this machine has no swap"
    found += of_findings("memory_lock", preflight.locked_memory(locked, pool_size, swapping=swapping), well)
    srtp = config.sip.srtp
    found += of_findings("srtp", preflight.srtp(srtp), "none is taken" if srtp == "off" else "SRTP can be opened")
    found.append(doctor_machine.core_dumps(limits[resource.RLIMIT_CORE], of=of))
    found += [
        doctor_machine.socket_buffer(),
        doctor_machine.nic_backlog(pool_size),
        doctor_machine.datagrams_lost(),
        doctor_machine.clock_kept(),
    ]
    for path, setting in ((agent.state_dir, "agent.state_dir"), (agent.spool_dir, "agent.spool_dir")):
        found += of_findings(
            "directory", preflight.directory(path, setting, make=False), f"{setting} {path} can be written"
        )
    if agent.spool_dir.is_dir():
        free = DiskSpace.of(agent.spool_dir).free_bytes
        hours = free / (config.media.pool_size * 9_000 * 3_600)
        room = preflight.space(free, agent.min_free_bytes, agent.when_full, agent.spool_dir)
        found += of_findings("disk_space", room, f"{free >> 30} GiB are free: {hours:.0f} h of {pool_size} streams")
        name = preflight.file_system_of(agent.spool_dir)
        found += of_findings("disk_kind", preflight.file_system(name, agent.spool_dir), f"the spool lies on {name}")
        found += doctor_machine.disk_speed(agent.spool_dir, pool_size)
    return found


def _certificates(config: AgentConfig) -> list[Diagnosis]:
    now, found = dt.datetime.fromtimestamp(time.time(), dt.UTC), []
    if config.sip.tls is not None and config.sip.tls_certificate is not None:
        found.append(doctor_uplink.certificate("sip.tls_certificate", config.sip.tls_certificate, now))
    own = config.agent.state_dir / lan_credentials.CERTIFICATE_FILE
    if config.lan.listen is not None and own.exists():
        found.append(doctor_uplink.certificate("the LAN endpoint's certificate", own, now))
    return found


def _uplink(config: AgentConfig, log: Log) -> list[Diagnosis]:
    state_dir, api, clock = config.agent.state_dir, CloudApi(timeout_s=_API_TIMEOUT_S), AgentClock.measured()
    try:
        identity = Identity.load(state_dir)
        key = AgentKey.load(state_dir, identity.agent)
    except DualtoneError as error:
        found, _ = doctor_uplink.health(api, config.uplink.api, clock)
        return [*found, Diagnosis("identity", "fail", str(error))]
    found = [Diagnosis("identity", "ok", f"enrolled as {identity.agent} of tenant {identity.tenant}")]
    revocation = Revocation(state_dir, identity.agent, log)
    if revocation.is_revoked:
        text = "the cloud has revoked this agent: ask the administrator; to record again, enrol anew with --replace"
        return [*found, Diagnosis("revoked", "fail", text)]
    found += doctor_uplink.names({"the API": identity.api, "its command queue": identity.command_queue_url})
    answered, offset = doctor_uplink.health(api, identity.api, clock)
    found += answered
    if offset is None:
        return found

    def true_s() -> float:
        return (clock.now_us() + offset.offset_us) / 1e6

    source = TokenSource(
        api=api, key=key, identity=identity, state_dir=None, log=log, revocation=revocation, clock=true_s
    )
    held = AgentCredentials(source, clock=true_s)
    token = doctor_uplink.credentials(held.get_frozen_credentials)
    found.append(token)
    if token.state == "ok":
        session = agent_session(held, identity.region, revocation, clock=true_s)
        found.append(doctor_uplink.command_queue(sqs_client(session), identity))
        found.append(doctor_uplink.ingest_bucket(s3_client(session, threads=1), identity))
    return found
