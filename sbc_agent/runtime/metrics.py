"""The agent's figures for Prometheus: what of the status report becomes which metric. Pure but for ``processes``.

Text format 0.0.4 (OpenMetrics where it is asked for) by the official library. Nothing in a label names a call, a
person, a number, a desk or a host: labels are words of fixed vocabularies, ids of rules, versions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "dualtone_agent_"
_PROC: Final = Path("/proc")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21  # fields of /proc/<pid>/stat after the command's name: proc(5)

Report = Mapping[str, Any]
Labelled = Mapping[tuple[str, ...], float]

# Counters of the media process's report that say what became of a packet.
_OUTCOMES: Final = (
    "stored", "duplicates", "late", "foreign_source", "events_suppressed", "malformed", "rtcp", "unauthentic",
    "replayed", "dropped", "overflowed",
)  # fmt: skip
_GAUGES_OF_WIRE: Final = frozenset({"connections_open"})


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric.

    Attributes:
        name: Without the prefix; a counter's ends in ``_total``.
        kind: ``counter`` or ``gauge``.
        about: What it says, in a sentence.
        read: Reads it from a report: a number for each combination of label values; none if nothing is known.
        labels: The labels' names.
    """

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    read: Callable[[Report], Labelled]
    labels: tuple[str, ...] = ()


def _one(*path: str, scale: float = 1.0) -> Callable[[Report], Labelled]:
    """A number at a place of the report; nothing if it is not there or null."""

    def read(report: Report) -> Labelled:
        value: Any = report
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return {} if value is None else {(): float(value) * scale}

    return read


def _each(*path: str) -> Callable[[Report], Labelled]:
    """An object of numbers at a place of the report, a label for each of its names."""

    def read(report: Report) -> Labelled:
        value: Any = report
        for step in path:
            value = value.get(step, {})
        return {(name,): float(number) for name, number in value.items()}

    return read


def _outcomes(report: Report) -> Labelled:
    return {(name,): float(report["media"][name]) for name in _OUTCOMES if name in report["media"]}


def _wire(report: Report) -> Labelled:
    sip: Mapping[str, Any] = report.get("sip", {})
    return {(name,): float(value) for name, value in sip.items() if name not in {*_GAUGES_OF_WIRE, "refused"}}


def _answered(report: Report) -> Labelled:
    return {
        (one["action"], one["cause"], one["outcome"], one["origin"]): float(one["count"])
        for one in report.get("events", {}).get("answered", ())
    }


def _link(word: str) -> Callable[[Report], Labelled]:
    return lambda report: {(): float(report["uplink"]["link"] == word)}


def _process(member: str) -> Callable[[Report], Labelled]:
    return lambda report: {
        (name,): float(found[member]) for name, found in report.get("processes", {}).items() if member in found
    }


FIGURES: Final = (
    Figure(
        "build_info",
        "gauge",
        "Always 1; says which version runs.",
        lambda report: {(report["version"],): 1.0},
        ("version",),
    ),
    Figure("uptime_seconds", "gauge", "Since this run began.", _one("uptime_ms", scale=1e-3)),
    Figure("draining", "gauge", "1 while a stop waits for calls and uploads.", _one("draining")),
    Figure("revoked", "gauge", "1 when the cloud has revoked this agent.", _one("revoked")),
    Figure("calls_live", "gauge", "Calls that are live now.", _one("calls_live")),
    Figure("calls_adopted_total", "counter", "Calls taken over from the run before.", _one("calls_adopted")),
    Figure("calls_not_recorded_total", "counter", "Calls left unrecorded, by rule.", _each("not_recorded"), ("rule",)),
    Figure("canary_tried_total", "counter", "Calls of its own that the agent placed.", _one("canary", "tried")),
    Figure("canary_failed_total", "counter", "Those for which no receipt came.", _one("canary", "failed")),
    Figure("canary_age_seconds", "gauge", "Since a receipt came for one; none until then.", _one("canary", "age_s")),
    Figure("streams_live", "gauge", "Streams that are received now.", _one("media", "streams")),
    Figure("packets_received_total", "counter", "RTP packets that came.", _one("media", "received")),
    Figure("packets_total", "counter", "RTP packets by fate; dropped: in a pause.", _outcomes, ("outcome",)),
    Figure("packets_reordered_total", "counter", "Packets put back in order.", _one("media", "reordered")),
    Figure("packets_left_ring_total", "counter", "Packets that outlived the hold-back.", _one("media", "left_ring")),
    Figure("records_sealed_total", "counter", "Records sealed.", _one("media", "records")),
    Figure("sealed_bytes_total", "counter", "Bytes sealed.", _one("media", "bytes_sealed")),
    Figure("ticks_total", "counter", "Rounds of the media process.", _one("media", "ticks")),
    Figure("tick_seconds_max", "gauge", "Longest round since the start.", _one("media", "tick_ms_max", scale=1e-3)),
    Figure("tick_seconds_lately", "gauge", "Longest of the last ten.", _one("media", "tick_ms_lately", scale=1e-3)),
    Figure("clock_steps_total", "counter", "Steps of the wall clock that were seen.", _one("media", "clock_steps")),
    Figure("sip_events_total", "counter", "What happened on the SIP sockets, by kind.", _wire, ("kind",)),
    Figure("sip_refused_total", "counter", "INVITEs answered 503, by reason.", _each("sip", "refused"), ("reason",)),
    Figure("sip_connections_open", "gauge", "SIP connections that are open now.", _one("sip", "connections_open")),
    Figure("spool_calls", "gauge", "Calls in the spool.", _one("spool", "calls")),
    Figure("spool_bytes", "gauge", "Bytes in the spool.", _one("spool", "bytes")),
    Figure("spool_free_bytes", "gauge", "Bytes free on the spool's disk.", _one("spool", "free_bytes")),
    Figure("spool_full", "gauge", "1 while the spool counts as full.", _one("spool", "full")),
    Figure("takes_calls", "gauge", "0 while new calls are refused for want of room.", _one("spool", "takes_calls")),
    Figure("uplink_up", "gauge", "1 while the cloud takes what is sent.", _link("up")),
    Figure("uplink_refused", "gauge", "1 while the cloud says no to this agent.", _link("refused")),
    Figure("uplink_failures", "gauge", "Failed attempts in a row.", _one("uplink", "failures")),
    Figure("uplink_calls_waiting", "gauge", "Calls with something to send.", _one("uplink", "calls_waiting")),
    Figure("uplink_calls_unconfirmed", "gauge", "Calls that wait for a receipt.", _one("uplink", "calls_unconfirmed")),
    Figure("uplink_objects_total", "counter", "Objects sent.", _one("uplink", "objects_sent")),
    Figure("uplink_bytes_total", "counter", "Bytes sent.", _one("uplink", "bytes_sent")),
    Figure("uplink_last_success_seconds", "gauge", "When an object was sent last.", _one("uplink", "last_success_s")),
    Figure("clock_offset_seconds", "gauge", "True time less this machine's.", _one("clock_offset_ms", scale=1e-3)),
    Figure("clock_uncertainty_seconds", "gauge", "How wrong that may be.", _one("clock_uncertainty_ms", scale=1e-3)),
    Figure("events_waiting", "gauge", "Events that wait for the cloud.", _one("events", "waiting")),
    Figure("commands_total", "counter", "Pauses and resumes.", _answered, ("action", "cause", "outcome", "origin")),
    Figure("leases_expired_total", "counter", "Pauses that nobody renewed or ended.", _one("events", "leases_expired")),
    Figure("desk_watchers", "gauge", "Desks that wait for news.", _one("desk_watchers")),
    Figure("media_alarms_total", "counter", "What the media process alarmed of.", _each("media_alarms"), ("kind",)),
    Figure("alarms_total", "counter", "Log lines of level error, by event.", _each("alarms"), ("event",)),
    Figure("process_resident_memory_bytes", "gauge", "Memory of a process.", _process("resident_bytes"), ("process",)),
    Figure("process_cpu_seconds_total", "counter", "CPU time of a process.", _process("cpu_s"), ("process",)),
    Figure("process_open_fds", "gauge", "Open files of a process.", _process("open_files"), ("process",)),
)  # fmt: skip


class _Collected(Collector):
    """One report as metrics."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterable[Metric]:
        """Every figure of the report; one that is not known has no sample."""
        for figure in FIGURES:
            name, labels = PREFIX + figure.name, figure.labels
            family: CounterMetricFamily | GaugeMetricFamily
            if figure.kind == "counter":
                family = CounterMetricFamily(name, figure.about, labels=labels)
            else:
                family = GaugeMetricFamily(name, figure.about, labels=labels)
            for values, number in sorted(figure.read(self._report).items()):
                family.add_metric(list(values), number)
            yield family


def exposition(report: Report, accept: str) -> tuple[bytes, str]:
    """A report as Prometheus reads it.

    Args:
        report: What ``dualtone-agent status`` prints, with ``processes``.
        accept: The request's Accept header.

    Returns:
        The body, and its Content-Type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(report))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def processes(pids: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Memory, CPU time and open files of each process, from /proc.

    One that is gone is left out; so are its open files where the kernel shows them to nobody, because it may not be
    dumped.
    """
    found: dict[str, dict[str, float]] = {}
    for name, pid in pids.items():
        directory = _PROC / str(pid)
        try:
            fields = (directory / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        found[name] = {
            "resident_bytes": int(fields[_RSS]) * _PAGE_BYTES,
            "cpu_s": (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_A_SECOND,
        }
        with contextlib.suppress(OSError):
            found[name]["open_files"] = len(os.listdir(directory / "fd"))  # noqa: PTH208 - thousands of names alone
    return found
