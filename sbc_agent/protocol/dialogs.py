"""Dialogs of a UAS. Pure state, time as an argument; standard: RFC 3261 sections 12 and 13.3.1.4, RFC 4028.

A dialog here begins with our 200 to an INVITE: we send no provisional responses but 100, so there are no early dialogs.
It repeats each 200 until its ACK (from T1, doubling to T2, whatever the transport), keeps requests in order, and when
nothing was heard for long it asks for a probe instead of assuming that the peer is gone.
"""

import ipaddress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import uri as uris
from sbc_agent.protocol import via as vias
from sbc_agent.protocol.cseq import MAX_CSEQ
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.message import Request, request
from sbc_agent.protocol.responses import with_tag
from sbc_agent.protocol.transactions import T1, T2, TIMEOUT

# A dialog in which nothing was heard for so long is probed; a session timer (RFC 4028) may say earlier.
QUIET_SECONDS: Final = 3_600.0
PROBE_AGAIN_SECONDS: Final = 60.0
PROBES: Final = 3

# 2xx responses that are repeated side by side; of more, the older ones are overlapped and their ACK no longer matters.
MAX_UNACKNOWLEDGED: Final = 8

DialogId = tuple[str, str, str]


class Signal(Enum):
    """What a dialog's timer asks for."""

    REPEAT = auto()
    UNACKNOWLEDGED = auto()
    PROBE = auto()
    EXPIRED = auto()


@dataclass(slots=True)
class Unacknowledged:
    """A 2xx on its way: its octets, when it is repeated next, and when waiting for the ACK ends.

    Of a 2xx of an earlier run the octets are not known: it is not repeated before the peer repeats its INVITE.
    """

    data: bytes = field(repr=False)  # it may hold a key of ours
    fallback: HostPort
    repeat_at: float
    give_up_at: float
    interval: float = T1


@dataclass(slots=True)
class Dialog:
    """One dialog.

    Attributes:
        call_id: the Call-ID.
        local: our To value, tag included.
        remote: the peer's From value, tag included.
        local_tag: our tag.
        remote_tag: the peer's tag; "" for a peer of RFC 2543.
        target: the URI of the peer's Contact: where requests of ours go.
        routes: the Route values of requests of ours.
        flow: where the peer was heard last.
        remote_cseq: the highest CSeq number heard.
        settled: whether the answer to that request is known to have arrived: it was an INVITE, and acknowledged.
        takes_last_again: whether that request may come once more as a new one: an earlier run of ours heard it, and
            nobody knows whether its answer left.
        local_cseq: the last CSeq number of ours.
        confirmed: whether an ACK, or a later request of the peer, has shown that it knows the dialog.
        unacknowledged: 2xx responses by CSeq number.
        quiet_seconds: how long silence is taken for health.
        probe_at: when to ask whether the peer is alive.
        expires_at: when it is over whatever the peer says; None for never.
        failed_probes: how many probes in a row went unanswered.
    """

    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str
    target: str
    routes: tuple[str, ...]
    flow: Flow
    remote_cseq: int
    settled: bool = False
    takes_last_again: bool = False
    local_cseq: int = 0
    confirmed: bool = False
    unacknowledged: dict[int, Unacknowledged] = field(default_factory=dict)
    quiet_seconds: float = QUIET_SECONDS
    probe_at: float | None = None
    expires_at: float | None = None
    failed_probes: int = 0

    @classmethod
    def opened(cls, invite: Request, local_tag: str, cseq: int, flow: Flow) -> "Dialog":
        """The dialog that a 200 to this INVITE opens (section 12.1.1).

        Raises:
            MalformedInput: From cannot be read.
        """
        remote = invite.required("from")
        dialog = cls(
            call_id=invite.required("call-id"),
            local=with_tag(invite.required("to"), local_tag),
            remote=remote,
            local_tag=local_tag,
            remote_tag=addresses.parse(remote).tag,
            target=f"sip:{_bracketed(flow.remote[0])}:{flow.remote[1]}",
            routes=tuple(invite.listed("record-route")),
            flow=flow,
            remote_cseq=cseq,
        )
        dialog.refresh_target(invite)
        return dialog

    @property
    def dialog_id(self) -> DialogId:
        """What requests of the peer name it by."""
        return self.call_id, self.local_tag, self.remote_tag

    def heard(self, flow: Flow, now: float) -> None:
        """The peer was heard: remember where, and wait anew before a probe."""
        self.flow, self.failed_probes = flow, 0
        self.probe_at = now + self.quiet_seconds

    def expect_silence(self, seconds: float | None, now: float) -> None:
        """A session timer says how long silence may last, from now on; None leaves it as it was."""
        if seconds is not None:
            self.quiet_seconds = seconds
            self.probe_at = now + seconds

    def refresh_target(self, asked: Request) -> None:
        """Take the peer's Contact, if it can be read (section 12.2.2); one that cannot leaves the target as it was."""
        contact = next(iter(asked.listed("contact")), None)
        if contact:
            try:
                self.target = addresses.parse(contact).uri
            except MalformedInput:
                return

    def next_in_order(self, cseq: int) -> bool:
        """Whether a request of this CSeq number comes after all before it (section 12.2.2); if so it is noted."""
        if cseq < self.remote_cseq or (cseq == self.remote_cseq and not self.takes_last_again):
            return False
        self.remote_cseq, self.settled, self.takes_last_again = cseq, False, False
        return True

    def success_sent(self, cseq: int, data: bytes, fallback: HostPort, now: float) -> None:
        """A 2xx to an INVITE was sent: repeat it until its ACK."""
        if len(self.unacknowledged) >= MAX_UNACKNOWLEDGED:
            del self.unacknowledged[min(self.unacknowledged)]
        self.unacknowledged[cseq] = Unacknowledged(data, fallback, now + T1, now + TIMEOUT)

    def acknowledged(self, cseq: int) -> bool:
        """An ACK came. It settles every 2xx up to its number: SBCs leave overlapped ones unacknowledged (INTEROP).

        Returns:
            Whether it was the first for that number.
        """
        self.confirmed = True
        first = cseq in self.unacknowledged
        if first and cseq == self.remote_cseq:
            self.settled, self.takes_last_again = True, False
        for number in [number for number in self.unacknowledged if number <= cseq]:
            del self.unacknowledged[number]
        return first

    def timer(self) -> float | None:
        """The next deadline, or None."""
        deadlines = [at for item in self.unacknowledged.values() for at in (item.repeat_at, item.give_up_at)]
        deadlines += [at for at in (self.probe_at, self.expires_at) if at is not None]
        return min(deadlines, default=None)

    def handle_timer(self, now: float) -> list[tuple[Signal, Unacknowledged | None]]:
        """What is due.

        Returns:
            `REPEAT` with the 2xx to send again; `UNACKNOWLEDGED` once for a 2xx that waited 64*T1; `PROBE`; `EXPIRED`.
        """
        signals: list[tuple[Signal, Unacknowledged | None]] = []
        for cseq, waiting in list(self.unacknowledged.items()):
            if waiting.give_up_at <= now:
                del self.unacknowledged[cseq]
                signals.append((Signal.UNACKNOWLEDGED, waiting))
            elif waiting.repeat_at <= now:
                # REQ: RFC 3261 section 13.3.1.4: the interval starts at T1 and doubles until it reaches T2.
                waiting.interval = min(2 * waiting.interval, T2)
                waiting.repeat_at = now + waiting.interval
                signals.append((Signal.REPEAT, waiting))
        if self.probe_at is not None and self.probe_at <= now:
            self.probe_at = None
            signals.append((Signal.PROBE, None))
        if self.expires_at is not None and self.expires_at <= now:
            self.expires_at = None
            signals.append((Signal.EXPIRED, None))
        return signals

    def request(self, method: str, branch: str, sent_by: str, contact: str, sdp: bytes = b"") -> Request:
        """A request of ours in this dialog (section 12.2.1.1).

        Args:
            method: BYE, OPTIONS or UPDATE.
            branch: the transaction's branch, cookie included.
            sent_by: our host and port for Via.
            contact: our Contact value.
            sdp: a session description to carry, or nothing.

        Returns:
            The request.
        """
        self.local_cseq = min(self.local_cseq + 1, MAX_CSEQ)
        uri, routes = self.target, list(self.routes)
        if routes and not _is_loose(routes[0]):
            # REQ: RFC 3261 section 12.2.1.1: a strict router takes the request URI, the target goes last.
            uri, routes = addresses.parse(routes[0]).uri, [*routes[1:], f"<{self.target}>"]
        via = vias.Via(self.flow.transport.upper(), sent_by, None, {"branch": branch, "rport": ""})
        return request(
            method,
            uri,
            [
                ("Via", str(via)),
                ("Max-Forwards", "70"),
                *(("Route", route) for route in routes),
                ("From", self.local),
                ("To", self.remote),
                ("Call-ID", self.call_id),
                ("CSeq", f"{self.local_cseq} {method}"),
                ("Contact", contact),
                *([("Content-Type", "application/sdp")] if sdp else []),
            ],
            sdp,
        )

    def next_hop(self) -> HostPort:
        """Where requests of ours go: the first route, else the target; where that names no IP address, the last source.

        No name is resolved: the peer that was heard on this dialog is the better witness of its own address.
        """
        try:
            uri = addresses.parse(self.routes[0] if self.routes else f"<{self.target}>").parsed_uri()
        except MalformedInput:
            return self.flow.remote
        host = uri.host.strip("[]")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return self.flow.remote
        return host, uri.port or uris.DEFAULT_PORTS["sips" if self.flow.transport == "tls" else "sip"]


def _is_loose(route: str) -> bool:
    try:
        return "lr" in addresses.parse(route).parsed_uri().parameters
    except MalformedInput:
        return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
