"""From, To, Contact, Record-Route and Route: name-addr and addr-spec. Pure; standard: RFC 3261 sections 20.10, 20.20.

Where a URI stands without angle brackets, parameters after it belong to the header (section 20.10). SBCs have been seen
to write `<<sip:...>>` and a display name without a space before the bracket: both are read.
"""

from dataclasses import dataclass, field

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import uri as uris
from sbc_agent.protocol.grammar import format_parameters, parameters, quote, split, unquote

_NOT_IN_URIS = frozenset(' \t"<>')


@dataclass(frozen=True, slots=True)
class Address:
    """One address: display name, URI as written, header parameters."""

    uri: str
    display_name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        name = f"{quote(self.display_name)} " if self.display_name else ""
        return f"{name}<{self.uri}>{format_parameters(self.parameters)}"

    @property
    def tag(self) -> str:
        """The tag parameter, or ""."""
        return self.parameters.get("tag", "")

    def parsed_uri(self) -> uris.Uri:
        """The URI taken apart.

        Raises:
            MalformedInput: it is no sip, sips or tel URI.
        """
        return uris.parse(self.uri)


def parse(text: str) -> Address:
    """Read one address.

    Args:
        text: one value of From, To, Contact, Route or Record-Route.

    Returns:
        The address.

    Raises:
        MalformedInput: there is no URI, or its bracket never closes.
    """
    first, *rest = split(text, ";")
    display, bracket, inner = _before_bracket(first)
    if bracket:
        uri, closing, after = inner.lstrip("<").partition(">")
        if not closing:
            raise MalformedInput("the bracket of an address never closes")
        if after.strip(" \t>"):
            raise MalformedInput("there is text between an address and its parameters")
    else:
        display, uri = "", first
    uri = uri.strip()
    if not uri or not _NOT_IN_URIS.isdisjoint(uri):
        raise MalformedInput("an address has no URI")
    return Address(uri, unquote(display), parameters(rest))


def _before_bracket(text: str) -> tuple[str, str, str]:
    """Cut at the first "<" outside a quoted string."""
    if not text.startswith('"'):
        return text.partition("<")
    position = 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    bracket = text.find("<", position)
    return (text, "", "") if bracket < 0 else (text[:bracket], "<", text[bracket + 1 :])
