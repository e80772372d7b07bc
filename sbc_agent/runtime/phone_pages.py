"""Pages for handsets: what a desk's call is doing, and keys that pause, resume, keep or forget it. Pure.

Two dialects. Cisco: "Cisco Unified IP Phone Services Application Development Notes", objects ``CiscoIPPhoneText`` and
``CiscoIPPhoneMenu``; the phone's parser knows no more than their tags. Yealink: "XML Browser Developer's Guide",
``YealinkIPPhoneTextScreen`` and ``YealinkIPPhoneTextMenu``, at most 10,000 bytes. Both are written in ASCII with
character references, so that it does not matter which encoding a phone believes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from xml.sax.saxutils import escape

from sbc_agent.runtime.desk_calls import DeskState, Verb

Dialect = Literal["cisco", "yealink"]

CONTENT_TYPE: Final = "text/xml"
LONGEST_TITLE: Final = 32
LONGEST_KEY: Final = 8
"""What a soft key of the narrowest display shows."""
_LONGEST_TEXT: Final = 400
_MOST_ENTRIES: Final = 16
_EXIT: Final = "SoftKey:Exit"
_SELECT: Final = "SoftKey:Select"
_MINUTE_S: Final = 60

_SHORT: Final[dict[DeskState, str]] = {
    "recording": "Recording",
    "paused": "Paused",
    "waiting": "Not kept yet",
    "not_recorded": "Not recorded",
}
_LONG: Final[dict[DeskState, str]] = {
    "recording": "This call is being recorded.",
    "paused": "Paused: nothing of this call is being kept.",
    "waiting": "This call is kept only if somebody says so: press Keep.",
    "not_recorded": "This call is not recorded.",
}
_KEYS: Final[dict[DeskState, tuple[Verb, ...]]] = {
    "recording": ("pause", "personal"),
    "paused": ("resume", "personal"),
    "waiting": ("keep", "personal"),
    "not_recorded": ("keep",),
}


@dataclass(frozen=True, slots=True)
class Link:
    """Something to press: what it shows, and the address that the phone asks for then."""

    label: str
    address: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a handset shows.

    Attributes:
        title: Whose page it is.
        prompt: The state in a word or two.
        text: The same in sentences.
        keys: Soft keys, the first four of which the narrowest phones show at once.
        entries: Calls to choose from; with any, ``text`` is not shown.
    """

    title: str
    prompt: str
    text: str
    keys: tuple[Link, ...]
    entries: tuple[Link, ...] = ()


def page(desk: str, calls: Sequence[dict[str, Any]], base: str, *, now_s: float, said: str = "") -> Page:
    """The page of a desk.

    Args:
        desk: Its name.
        calls: Those of its calls that the page is of, as ``DeskCalls.described`` tells them, with ``started_s``.
        base: The address of the desk's page, without a slash at its end.
        now_s: Unix time in seconds, of the clock that ``started_s`` is of.
        said: What became of the key that was pressed.
    """
    refresh, leave = Link("Refresh", base), Link("Exit", _EXIT)
    if not calls:
        return Page(desk, "No call", _sentences(said, "No call is live on this desk."), (refresh, leave))
    if len(calls) > 1:
        entries = tuple(
            Link(f"{_SHORT[call['state']]}, {_since(now_s - call['started_s'])}", f"{base}?call={call['call_id']}")
            for call in calls[:_MOST_ENTRIES]
        )
        return Page(desk, f"{len(calls)} calls", said, (Link("Select", _SELECT), refresh, leave), entries)
    (call,) = calls
    state: DeskState = call["state"]
    why = f"Reason: {', '.join(call['causes'])}." if call["causes"] else ""
    keys = tuple(Link(verb.capitalize(), f"{base}/{verb}?call={call['call_id']}") for verb in _KEYS[state])
    text = _sentences(said, _LONG[state], why, f"It began {_since(now_s - call['started_s'])} ago.")
    return Page(desk, _SHORT[state], text, (*keys, refresh, leave))


def written(shown: Page, dialect: Dialect) -> bytes:
    """A page as XML, ASCII."""
    return (_cisco(shown) if dialect == "cisco" else _yealink(shown)).encode("ascii", "xmlcharrefreplace")


def _cisco(shown: Page) -> str:
    kind = "Menu" if shown.entries else "Text"
    body = [_element("Title", shown.title, LONGEST_TITLE), _element("Prompt", shown.prompt, LONGEST_TITLE)]
    if shown.entries:
        body += [
            f"<MenuItem>{_element('Name', one.label)}{_element('URL', one.address)}</MenuItem>" for one in shown.entries
        ]
    else:
        body.append(_element("Text", shown.text))
    body += [
        f"<SoftKeyItem>{_element('Name', key.label, LONGEST_KEY)}{_element('URL', key.address)}"
        f"<Position>{position}</Position></SoftKeyItem>"
        for position, key in enumerate(shown.keys, 1)
    ]
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<CiscoIPPhone{kind}>{"".join(body)}</CiscoIPPhone{kind}>\n'


def _yealink(shown: Page) -> str:
    kind = "TextMenu" if shown.entries else "TextScreen"
    body = [_element("Title", f"{shown.title}: {shown.prompt}", 2 * LONGEST_TITLE)]
    if shown.entries:
        body += [
            f"<MenuItem>{_element('Prompt', one.label)}{_element('URI', one.address)}</MenuItem>"
            for one in shown.entries
        ]
    else:
        body.append(_element("Text", shown.text))
    body += [
        f'<SoftKey index="{index}">{_element("Label", key.label, LONGEST_KEY)}{_element("URI", key.address)}</SoftKey>'
        for index, key in enumerate(shown.keys, 1)
    ]
    root = f"YealinkIPPhone{kind}"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} Beep="no" Timeout="0">{"".join(body)}</{root}>\n'


def _element(name: str, text: str, longest: int = _LONGEST_TEXT) -> str:
    """An element with as much of a text as a display shows; what XML 1.0 has no character for is left out."""
    plain = "".join(character for character in text if character == "\n" or character.isprintable())
    return f"<{name}>{escape(plain[:longest])}</{name}>"


def _sentences(*sentences: str) -> str:
    return "\n".join(sentence for sentence in sentences if sentence)


def _since(seconds: float) -> str:
    minutes = int(max(0.0, seconds)) // _MINUTE_S
    return "less than a minute" if not minutes else "1 minute" if minutes == 1 else f"{minutes} minutes"
