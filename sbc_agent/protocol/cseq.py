"""CSeq: the order of requests in a dialog. Pure; standard: RFC 3261 section 20.16."""

from dataclasses import dataclass

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol.grammar import TOKEN, number

# REQ: RFC 3261 section 8.1.1.5: the number is below 2**31.
MAX_CSEQ = 2**31 - 1


@dataclass(frozen=True, slots=True)
class CSeq:
    """Number and method."""

    number: int
    method: str

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def parse(text: str) -> CSeq:
    """Read a CSeq.

    Raises:
        MalformedInput: it is not a number below 2**31 and a method.
    """
    fields = text.split()
    if len(fields) != 2 or not TOKEN.match(fields[1]):  # noqa: PLR2004 - number and method
        raise MalformedInput("CSeq is not a number and a method")
    return CSeq(number(fields[0], "the CSeq number", MAX_CSEQ), fields[1])
