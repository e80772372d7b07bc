"""Recording metadata: what an SRC says of the calls it records. Pure; standard: RFC 7865, tolerances of INTEROP.

Elements are matched on local names. One document is read into frozen facts; `recording_session.py` merges the facts of
successive documents. Who speaks on which stream is taken from `send` alone, never from position or label number; who
called whom from vendors' marks alone (`apkt:callingParty`, BroadWorks' calling and called number), else unknown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import xml_tree
from sbc_agent.protocol.xml_tree import Element

FLAG_METADATA_MALFORMED: Final = "metadata-malformed"
MAX_EXTENSIONS: Final = 128
MAX_VALUE_CHARACTERS: Final = 1_024
MAX_EXTENSION_CHARACTERS: Final = 8_192  # of all extensions of one party, or of the sessions, names included

Role = Literal["caller", "callee", "unknown"]

# The names of RFC 7865 section 6 and of its draft ancestors, in lower case; any other element is a vendor's extension.
VOCABULARY: Final = frozenset(
    {
        *(
            "recording",
            "recording_metadata",
            "datamode",
            "requestsnapshot",
            "group",
            "session",
            "participant",
            "stream",
        ),
        *("sessionrecordingassoc", "participantsessionassoc", "participantstreamassoc", "nameid", "name", "aor"),
        *("send", "recv", "id", "label", "mode", "sipsessionid", "group-ref", "reason", "param", "extensiondata"),
        *("start-time", "stop-time", "associate-time", "disassociate-time"),
    }
)


@dataclass(frozen=True, slots=True)
class Session:
    """A communication session (RFC 7865 section 6.3): the call that is recorded."""

    session_id: str
    sip_session_id: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Participant:
    """A party (section 6.5). `aor` and `name` are as claimed, white space and quotation marks round them removed."""

    participant_id: str
    aor: str = ""
    name: str = ""
    role: Role = "unknown"
    extensions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream (section 6.7) and the label of the m-line that carries it."""

    stream_id: str
    label: str
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The facts of one document.

    `sends` maps a participant's id to the ids of the streams it sends; a participant with an association but nothing
    sent has stopped (INTEROP) and maps to ().
    """

    partial: bool = False
    groups: tuple[str, ...] = ()
    sessions: tuple[Session, ...] = ()
    participants: tuple[Participant, ...] = ()
    streams: tuple[Stream, ...] = ()
    sends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def parse(data: bytes) -> Metadata:
    """Read a document of well-formed XML.

    Args:
        data: the document, at most 64 KiB.

    Returns:
        Its facts.

    Raises:
        MalformedInput: it is not well-formed, passes a limit, or its root is no recording.
    """
    root = xml_tree.parse(data)
    if root.name.lower() not in {"recording", "recording_metadata"}:
        raise MalformedInput("the metadata's root is neither recording nor recording_metadata")
    return _read(root)


def recover(data: bytes) -> Metadata:
    """Read what can be read of a document that `parse` refused; never fails, always flags."""
    found = _read(xml_tree.recover(data, VOCABULARY))
    return replace(found, flags=(FLAG_METADATA_MALFORMED,))


def read(data: bytes) -> Metadata:
    """Read any document: by the standard if it is well-formed, else as far as it goes, flagged. Never fails."""
    try:
        return parse(data)
    except MalformedInput:
        return recover(data)


def _read(root: Element) -> Metadata:
    top = list(_top_level(root))
    mode = next((element.text for element in top if element.name.lower() == "datamode"), "")
    sessions = [_session(element) for element in top if element.name.lower() == "session"]
    people = [
        (element, _participant(element, number))
        for number, element in enumerate((e for e in top if e.name.lower() == "participant"), 1)
    ]
    streams = [_stream(element) for element in top if element.name.lower() == "stream"]
    groups = [_identity(element, "group_id") for element in top if element.name.lower() == "group"]
    groups += [session.group for session in sessions]
    extensions: dict[str, str] = {}
    for element in top:
        if element.name.lower() in {"group", "session", "stream"}:
            _gather(element.children, extensions)
        elif element.name.lower() == "extensiondata" or element.name.lower() not in VOCABULARY:
            _gather([element], extensions)
    return Metadata(
        partial=mode.strip().lower() == "partial",
        groups=tuple(dict.fromkeys(group for group in groups if group)),
        sessions=tuple(sessions),
        participants=tuple(_with_role(person, extensions) for _, person in people),
        streams=tuple(stream for stream in streams if stream.stream_id or stream.label),
        sends=_sends(top, people),
        extensions=extensions,
    )


def _top_level(root: Element) -> Iterator[Element]:
    """The elements that speak of the recording, those of a `<recording>` inside the root included."""
    for element in root.children:
        if element.name.lower() in {"recording", "recording_metadata"}:
            yield from _top_level(element)
        else:
            yield element


def _session(element: Element) -> Session:
    # RFC 7206: "uuid;remote=uuid"; RFC 7865's own example folds it over two lines.
    sip_session_id = _compact(element.child_text("sipSessionID"))
    return Session(_identity(element, "session_id"), sip_session_id, _compact(element.child_text("group-ref")))


def _participant(element: Element, number: int) -> Participant:
    names = [*element.named("nameID"), element]
    aor = next((found for item in names if (found := item.attribute("aor") or item.child_text("aor"))), "")
    name = next((found for item in names if (found := item.child_text("name"))), "")
    extensions: dict[str, str] = {}
    _gather(element.children, extensions)
    identity = _identity(element, "participant_id") or f"participant-{number}"
    return Participant(identity, _bare(aor), _bare(name), "unknown", extensions)


def _stream(element: Element) -> Stream:
    label = element.child_text("label") or element.attribute("label")
    session_id = _compact(element.attribute("session_id", "session"))
    return Stream(_identity(element, "stream_id"), label[:MAX_VALUE_CHARACTERS], session_id)


def _sends(top: list[Element], people: list[tuple[Element, Participant]]) -> dict[str, tuple[str, ...]]:
    """Who sends what, by associations of their own and by `send` inside participants."""
    found: dict[str, tuple[str, ...]] = {}
    owners = [(person.participant_id, element) for element, person in people]
    owners += [
        (_compact(element.attribute("participant_id", "participant", "id")), element)
        for element in top
        if element.name.lower() == "participantstreamassoc"
    ]
    for owner, element in owners:
        if not owner or not any(element.named("send", "recv")):
            continue
        # Who is said to hear what he sends is one voice of a mixed stream (Metaswitch): it is not his alone.
        heard = set(_streams_of(element, "recv"))
        sent = [stream for stream in _streams_of(element, "send") if stream not in heard]
        found[owner] = tuple(dict.fromkeys([*found.get(owner, ()), *sent]))
    return found


def _streams_of(element: Element, name: str) -> list[str]:
    """The streams that the `send` or `recv` elements in another one name."""
    named = [_compact(item.child_text("id") or item.text or item.attribute("id")) for item in element.named(name)]
    return [stream for stream in named if stream]


def _with_role(person: Participant, extensions: dict[str, str]) -> Participant:
    """The vendor's mark, if there is one."""
    role: Role = "unknown"
    if mark := person.extensions.get("callingParty", "").lower():
        role = "caller" if mark in {"true", "1"} else "callee" if mark in {"false", "0"} else "unknown"
    elif person.aor:
        party = _party(person.aor)
        calling, called = extensions.get("callingPartyNumber", ""), extensions.get("calledPartyNumber", "")
        if _party(calling) != _party(called):
            role = "caller" if party == _party(calling) else "callee" if party == _party(called) else "unknown"
    return replace(person, role=role)


def _gather(elements: list[Element], found: dict[str, str]) -> None:
    """Vendors' leaves under these elements, by local name; an `apkt:header` by its label; equal names are joined.

    Where there are too many, those that come first are kept.
    """
    room = MAX_EXTENSION_CHARACTERS - sum(len(name) + len(value) for name, value in found.items())
    waiting = [
        (element, "") for element in reversed(elements) if element.name.lower() not in VOCABULARY - {"extensiondata"}
    ]
    while waiting and len(found) < MAX_EXTENSIONS:
        element, above = waiting.pop()
        label = element.attribute("label")
        name = above or (f"{element.name}:{label}" if label else element.name)
        if text := " ".join(element.text.split())[:MAX_VALUE_CHARACTERS]:
            earlier = found.get(name, "")
            if text not in earlier.split(", "):
                value = f"{earlier}, {text}"[:MAX_VALUE_CHARACTERS] if earlier else text
                if (room := room - len(name) - len(value)) < 0:
                    return
                found[name] = value
        waiting.extend((child, name if label else "") for child in reversed(element.children))


def _identity(element: Element, name: str) -> str:
    return _compact(element.attribute(name, "id"))


def _compact(text: str) -> str:
    """An id without the white space that pretty-printers leave in it."""
    return "".join(text.split())[:MAX_VALUE_CHARACTERS]


def _bare(text: str) -> str:
    """A name or an address without white space, quotation marks or brackets round it."""
    return " ".join(text.split()).strip("\"'<> ")[:MAX_VALUE_CHARACTERS]


def _party(aor: str) -> str:
    """What tells one address from another here: scheme and parameters set aside."""
    return aor.lower().removeprefix("sips:").removeprefix("sip:").removeprefix("tel:").partition(";")[0]
