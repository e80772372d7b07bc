"""Pressed keys in INFO requests: what is told of them, and that nothing else knows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.protocol import info_digits, message
from sbc_agent.protocol.events import DigitPressed, SessionId
from sbc_agent.protocol.info_digits import MAX_DIGITS
from sbc_agent.protocol.media_session import FLAG_DIGITS_SUPPRESSED
from sbc_agent.protocol.message import Request
from tests.agent.protocol.builders import Src, Under, crlf, status

RELAY = "application/dtmf-relay"
NORTEL = "application/vnd.nortelnetworks.digits"


def info(kind: str, body: str, method: str = "INFO") -> Request:
    headers = [("Content-Type", kind)] if kind else []
    return message.request(method, "sip:a", headers, crlf(body))


# Type, body, digits, whether the body must not be stored.
BODIES = {
    "Cisco's relay": (RELAY, "Signal=5\nDuration=160\n", "5", True),
    "with spaces": (RELAY, "Signal= #\nDuration= 250\n", "#", True),
    "in another order and spelling": (RELAY, "Duration=100\nSIGNAL = *\n", "*", True),
    "numbered star": (RELAY, "Signal=10\nDuration=100\n", "*", True),
    "numbered pound": (RELAY, "Signal=11\n", "#", True),
    "numbered D": (RELAY, "Signal=15\n", "D", True),
    "a letter": (RELAY, "Signal=a\n", "A", True),
    "a flash is no digit": (RELAY, "Signal=16\nDuration=100\n", "", True),
    "no signal at all": (RELAY, "Duration=100\n", "", True),
    "parameters of the type": ("Application/DTMF-Relay; charset=x", "Signal=7\n", "7", True),
    "the bare digit": ("application/dtmf", "9", "9", True),
    "the bare digit, spelled as a relay": ("application/dtmf", "Signal=0\nDuration=160\n", "0", True),
    "more than a digit": ("application/dtmf", "12345678", "", True),
    "Nortel": (NORTEL, "p=Digit-Collection\ny=Digits\nd=8\n", "8", True),
    "Nortel on one line": (NORTEL, "p=Digit-Collection y=Digits d=#", "#", True),
    "Nortel, several at once": (NORTEL, "p=Digit-Collection\ny=Digits\nd=0123456789*#\n", "0123456789*#", True),
    "in a part": (
        "multipart/mixed;boundary=b",
        f"--b\nContent-Type: text/plain\n\nhello\n--b\nContent-Type: {RELAY}\n\nSignal=3\n--b--\n",
        "3",
        True,
    ),
    "no type, but how it begins": ("", "Signal=4\nDuration=160\n", "4", True),
    "key presses by KPML are not stored": ("application/kpml-response+xml", "<kpml-response digits='5'/>", "", True),
    "something else": ("text/plain", "5", "", False),
    "nothing": ("", "", "", False),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name: str) -> None:
    """A body is read as its vendor writes it; whatever may hold digits is known as such, read or not."""
    kind, body, digits, secret = BODIES[name]
    asked = info(kind, body)
    assert info_digits.read(asked) == digits
    assert info_digits.carried_by(asked) is secret


def test_only_info_tells_digits() -> None:
    """In another request a body of that type is blanked all the same, and tells nothing."""
    asked = info(RELAY, "Signal=5\n", "UPDATE")
    assert info_digits.read(asked) == ""
    assert info_digits.carried_by(asked)


def test_a_request_tells_so_many_digits_and_no_more() -> None:
    """A body of thousands is no dialling."""
    assert info_digits.read(info(NORTEL, "\n".join(["d=" + "1" * 60] * 100))) == "1" * MAX_DIGITS


@given(st.sampled_from([RELAY, NORTEL, "application/dtmf", "", "multipart/mixed;boundary=b"]), st.binary(max_size=300))
def test_any_body_is_read(kind: str, body: bytes) -> None:
    """No body breaks the reader, and what it tells are digits."""
    asked = message.request("INFO", "sip:a", [("Content-Type", kind)] if kind else [], body)
    assert set(info_digits.read(asked)) <= set("0123456789*#ABCD")
    assert isinstance(info_digits.carried_by(asked), bool)


@pytest.mark.parametrize("name", [name for name, case in BODIES.items() if case[2]])
def test_digits_are_told_once_and_stored_nowhere(name: str) -> None:
    """The shell hears each digit; the record has the message, as long as it was, without its body."""
    kind, body, digits, _ = BODIES[name]
    under, src = Under(), Src()
    under.call(src)
    before = len(under.recorded)
    asked = src.request("INFO", *([("Content-Type", kind)] if kind else []), body=crlf(body))
    assert status(under.receive(asked)) == 200
    assert [event.digit for event in under.digits] == list(digits)
    assert {(event.session, event.at) for event in under.digits} == {(under.updated[0].session, under.now)}
    recorded, answered = under.recorded[before:]
    assert len(recorded.raw) == len(asked)
    head, _, content = recorded.raw.partition(b"\r\n\r\n")
    assert asked.startswith(head)
    assert set(content) <= set(b"*\r\n")
    assert len(content.split(b"\r\n")) == len(crlf(body).split(b"\r\n")), "line ends stay"
    assert answered.raw.startswith(b"SIP/2.0 200")
    under.receive(src.request("BYE"))
    assert FLAG_DIGITS_SUPPRESSED in under.ended[0].flags


def test_a_copy_tells_no_digit_again() -> None:
    """REQ: RFC 3261 section 17.2.2: a retransmission is answered again and heard once."""
    under, src = Under(), Src()
    under.call(src)
    asked = src.request("INFO", ("Content-Type", RELAY), body=b"Signal=5\r\nDuration=160\r\n")
    under.receive(asked)
    assert status(under.receive(asked)) == 200
    assert len(under.digits) == 1


def test_a_digit_is_not_shown() -> None:
    """The event can be logged by accident without harm."""
    assert "7" not in repr(DigitPressed(SessionId(1), 2.0, "7"))
