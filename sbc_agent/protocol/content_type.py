"""Content-Type, Content-Disposition and others of the form `value;parameters`. Pure; standard: RFC 3261, 20.15."""

from dataclasses import dataclass, field

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import format_parameters, parameters, split


@dataclass(frozen=True, slots=True)
class Parameterised:
    """A value in lower case and its parameters."""

    value: str
    parameters: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.value + format_parameters(self.parameters)


def parse(text: str) -> Parameterised:
    """Read a value and its parameters, white space allowed anywhere between.

    Raises:
        MalformedInput: the value is empty.
    """
    value, *rest = split(text, ";")
    if not value:
        raise MalformedInput("a header with parameters has no value")
    return Parameterised("".join(value.lower().split()), parameters(rest))
