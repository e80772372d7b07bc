"""Via: where a request came from and where its response goes. Pure; standard: RFC 3261 section 18.2, RFC 3581."""

from dataclasses import dataclass, field

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import format_parameters, number, parameters, parse_host_port, split

# REQ: RFC 3261 section 8.1.1.7: a branch made by this standard begins with this cookie.
MAGIC_COOKIE = "z9hG4bK"


@dataclass(frozen=True, slots=True)
class Via:
    """One hop."""

    transport: str
    host: str
    port: int | None = None
    parameters: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{format_parameters(self.parameters)}"

    @property
    def branch(self) -> str:
        """The branch parameter, or ""."""
        return self.parameters.get("branch", "")

    @property
    def sent_by(self) -> str:
        """Host and port as one text, lower case, for matching transactions (section 17.2.3)."""
        return f"{self.host.lower()}:{self.port or ''}"

    def response_port(self) -> int:
        """The port that a response goes to: rport, else that of sent-by, else 5060 (section 18.2.2).

        Raises:
            MalformedInput: rport is no port.
        """
        if rport := self.parameters.get("rport"):
            return number(rport, "rport", 65535)
        return self.port or (5061 if self.transport == "TLS" else 5060)


def parse(text: str) -> Via:
    """Read one hop.

    Args:
        text: one value of Via.

    Returns:
        The hop.

    Raises:
        MalformedInput: the protocol is not SIP/2.0 or there is no host.
    """
    first, *rest = split(text, ";")
    # Section 25.1 allows white space round the slashes: "SIP / 2.0 / UDP host".
    protocol, version, transport_host = ([part.strip() for part in first.split("/", 2)] + ["", ""])[:3]
    if protocol.upper() != "SIP" or version != "2.0" or not transport_host:
        raise MalformedInput("a Via is not of SIP/2.0")
    transport, _, sent_by = transport_host.partition(" ")
    host, port = parse_host_port(sent_by.strip(), "a Via")
    return Via(transport.upper(), host, port, parameters(rest))


def received_from(text: str, host: str, port: int) -> str:
    """A hop with the source address of its request noted, all else exactly as it was written.

    REQ: RFC 3261 section 18.2.1: `received` where the source differs from sent-by.
    REQ: RFC 3581 section 4: an empty rport is filled, and `received` then added even if it equals sent-by.

    Args:
        text: the top value of Via; peers compare what they get back with what they sent, so it is not written anew.
        host: the source address.
        port: the source port.

    Returns:
        The value for the response.

    Raises:
        MalformedInput: the hop cannot be read.
    """
    hop = parse(text)
    first, *pieces = split(text, ";")
    asked = hop.parameters.get("rport") == ""
    kept = []
    for piece in pieces:
        name = piece.partition("=")[0].strip().lower()
        if name == "rport" and asked:
            kept.append(f"rport={port}")
        elif name != "received":
            kept.append(piece)
    if asked or hop.host.strip("[]").lower() != host.lower():
        kept.append(f"received={host}")
    return ";".join([first, *kept])
