"""Is this INVITE a recording session? Pure; standard: RFC 7866 section 6.1, tolerances of INTEROP.

REQ: RFC 7866 section 6.1.1: an SRC names itself by `+sip.src` in Contact and requires `siprec`. Real ones leave out
one or the other, so any mark is enough: Require, Contact, metadata in the body, Cisco's header, a configured peer.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol.grammar import readable
from sbc_agent.protocol.message import Request, canonical_name
from sbc_agent.protocol.sdp import SessionDescription

MAX_MARKS: Final = 32
MAX_ASKED_HEADERS: Final = 64
MAX_ASKED_CHARACTERS: Final = 1_024

# `+sip.src` or `src` as a parameter of the header or, at Avaya, of the URI; Cisco's built-in bridge says isFocus.
_CONTACT_MARK: Final = re.compile(r";\s*(?:\+sip\.src|src|isfocus)\s*(?=[;=>,]|\Z)", re.IGNORECASE)

# Headers of vendors that identify the recorded call: kept in the SESSION record so that it can be found by them.
INDEXED_HEADERS: Final = (
    "Session-ID",
    "User-to-User",
    "Cisco-Guid",
    "X-Cisco-Recording-Participant",
    "X-audc-call-id",
    "X-GCID",
    "Replaces",
)

# Attributes of the session description by which a vendor identifies the recorded call (Metaswitch MAS): kept likewise.
INDEXED_ATTRIBUTES: Final = ("recordedparty", "mas_from", "mas_to", "mas_direction", "nana")

# Extensions that cost us nothing to honour or that only ask for what an answer at once makes needless (100rel).
HARMLESS_EXTENSIONS: Final = frozenset(
    {
        "siprec",
        "record-aware",
        "100rel",
        "timer",
        "replaces",
        "histinfo",
        "norefersub",
        "from-change",
        "outbound",
        "path",
    }
)


def is_recording_session(asked: Request, *, has_metadata: bool, configured_peer: bool) -> bool:
    """Whether an INVITE sets up a recording session.

    Args:
        asked: the INVITE.
        has_metadata: whether its body holds recording metadata.
        configured_peer: whether whoever sent it is configured as an SRC.
    """
    return (
        has_metadata
        or configured_peer
        or any(option.lower() == "siprec" for option in asked.listed("require"))
        or any(_CONTACT_MARK.search(contact) for contact in asked.all("contact"))
        or asked.header("x-cisco-recording-participant") is not None
    )


def unsupported(asked: Request) -> list[str]:
    """The required extensions that we must refuse (RFC 3261 section 8.2.2.3); never siprec nor 100rel."""
    return [option for option in asked.listed("require") if option.lower() not in HARMLESS_EXTENSIONS]


def indexed_headers(asked: Request) -> dict[str, str]:
    """The vendors' headers by which a call may be found."""
    return {name: value[:1024] for name in INDEXED_HEADERS if (value := ", ".join(asked.all(name.lower())))}


def indexed_attributes(offer: SessionDescription) -> dict[str, str]:
    """The vendors' attributes of an offer's m-lines by which a call may be found; equal ones once, others joined."""
    found: dict[str, dict[str, None]] = {}
    for media in offer.media:
        for name in INDEXED_ATTRIBUTES:
            if value := media.attribute(name):
                found.setdefault(name, {})[readable(value)] = None
    return {name: ", ".join(values)[:MAX_ASKED_CHARACTERS] for name, values in found.items()}


def marks_of_origin(asked: Request) -> dict[str, str]:
    """What Cisco's telephones write into From: references, devices and addresses of both ends of a call (BiB).

    Returns:
        The parameters of header and URI that begin with `x-`, by name in lower case; a flag's value is its name.
    """
    value = asked.header("from") or ""
    if ";x-" not in value.lower():
        return {}
    try:
        sender = addresses.parse(value)
        found = sender.parsed_uri().parameters | sender.parameters
    except MalformedInput:
        return {}
    marks = {name: readable(text or name)[:MAX_ASKED_CHARACTERS] for name, text in found.items() if name[:2] == "x-"}
    return dict(list(marks.items())[:MAX_MARKS])


def end_of_call(marks: Mapping[str, str]) -> Literal["near", "far", ""]:
    """Which end of its call a telephone records in this dialog; "" if it records both, or is none."""
    return "near" if "x-nearend" in marks else "far" if "x-farend" in marks else ""


def latest_headers(known: dict[str, str], asked: Request) -> dict[str, str]:
    """The headers that no standard of SIP defines, as a call's requests last had them: a policy may name one.

    Args:
        known: those of earlier requests.
        asked: the next request.

    Returns:
        Values by name in lower case, equal names joined by a comma; at most `MAX_ASKED_HEADERS`, the latest.
    """
    told: dict[str, str] = {}
    for name, value in asked.headers:
        key = canonical_name(name)
        if key.startswith(_PRIVATE) or key in _INDEXED:
            told[key] = readable(f"{told[key]}, {value}" if key in told else value)[:MAX_ASKED_CHARACTERS]
    merged = {key: value for key, value in known.items() if key not in told} | told
    return dict(list(merged.items())[-MAX_ASKED_HEADERS:])


def pause_action(asked: Request) -> bool | None:
    """What AudioCodes' X-AC-Action asks for: True to pause the recording, False to go on, None for neither."""
    action = (asked.header("x-ac-action") or "").partition(";")[0].strip().lower()
    return _ACTIONS.get(action)


_ACTIONS: Final = {"pause-siprec": True, "stop-siprec": True, "resume-siprec": False, "start-siprec": False}
_PRIVATE: Final = ("x-", "p-")
_INDEXED: Final = frozenset(name.lower() for name in INDEXED_HEADERS)
