"""SIP, SIPS and tel URIs. Pure; standard: RFC 3261 section 19.1, RFC 3966."""

from dataclasses import dataclass, field

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import format_parameters, parameters, parse_host_port

DEFAULT_PORTS = {"sip": 5060, "sips": 5061}


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI taken apart; a tel URI has its number as `user` and no host."""

    scheme: str
    user: str
    host: str
    port: int | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    headers: str = ""

    def __str__(self) -> str:
        if self.scheme == "tel":
            return f"tel:{self.user}{format_parameters(self.parameters)}"
        user = f"{self.user}@" if self.user else ""
        port = "" if self.port is None else f":{self.port}"
        query = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{self.host}{port}{format_parameters(self.parameters)}{query}"

    @property
    def transport(self) -> str:
        """The transport it leads to, in lower case (section 19.1.2: UDP unless said otherwise, TLS for sips)."""
        return "tls" if self.scheme == "sips" else self.parameters.get("transport", "udp").lower()


def parse(text: str) -> Uri:
    """Read a URI.

    Args:
        text: without angle brackets.

    Returns:
        The URI.

    Raises:
        MalformedInput: no scheme, another scheme than sip, sips or tel, or no host.
    """
    scheme, colon, rest = text.strip().partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in {"sip", "sips", "tel"}:
        raise MalformedInput("a URI is neither sip, sips nor tel", sip_status=416)
    rest, _, query = rest.partition("?")
    if scheme == "tel":
        digits, *rest_parameters = rest.split(";")
        return Uri(scheme, digits.strip(), "", None, parameters(rest_parameters))
    # The user part may hold ";" and "?" (section 25.1, user-unreserved): it ends at the last "@" before the parameters.
    user, at, address = rest.rpartition("@") if "@" in rest else ("", "", rest)
    host_port, *uri_parameters = address.split(";")
    host, port = parse_host_port(host_port, "a URI")
    return Uri(scheme, user if at else "", host, port, parameters(uri_parameters), query)
