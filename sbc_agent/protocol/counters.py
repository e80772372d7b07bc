"""What happened on the wire, counted: one object for the SIP core, its sockets and whoever shows figures.

Plain numbers, nothing of any call or peer. Only ever grows, but for the gauges that are named so.
"""

from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class WireCounters:
    """Counters since the start.

    Attributes:
        datagrams: datagrams that came.
        requests: requests that were read for the first time.
        copies: requests that came again.
        responses: responses that were read.
        malformed: messages and streams that could not be read.
        shed: messages that found the tables of transactions full: answered 503.
        limited: datagrams that were dropped unread since their sender, or all senders, sent too many.
        held_up: how often reading from a connection was put off for the same reason.
        late_messages: connections closed since a message was not whole in time, or never began.
        late_handshakes: how many of these had not even done their TLS handshake.
        failed_handshakes: TLS handshakes that failed.
        connections: connections that were accepted.
        connections_refused: connections that were closed at once since there were too many.
        connections_cut: connections that were cut since the peer took nothing.
        connections_open: gauge: connections that are open now.
        idle_connections: connections closed since nothing came for long.
        refused: INVITEs that were refused with 503, by reason.
    """

    datagrams: int = 0
    requests: int = 0
    copies: int = 0
    responses: int = 0
    malformed: int = 0
    shed: int = 0
    limited: int = 0
    held_up: int = 0
    late_messages: int = 0
    late_handshakes: int = 0
    failed_handshakes: int = 0
    connections: int = 0
    connections_refused: int = 0
    connections_cut: int = 0
    connections_open: int = 0
    idle_connections: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """An INVITE was refused with 503."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def to_json(self) -> dict[str, int | dict[str, int]]:
        """All of them by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "refused"}
        return {**values, "refused": dict(self.refused)}
