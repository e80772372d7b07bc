"""The Replaces header: a recording session that takes over from another one. Pure; standard: RFC 3891.

Ribbon's SBCs begin a new recording session when a call is transferred and name the old one so. The new one is recorded
whatever the header says; a dialog that it names truly, and whose peer sent it, is ended by us once the new one is
answered (section 3). Not here: `early-only`, for we have no early dialogs.
"""

from collections.abc import Mapping
from typing import TypeVar

from sbc_agent.protocol.dialogs import DialogId
from sbc_agent.protocol.grammar import parameters, split
from sbc_agent.protocol.message import Request

_T = TypeVar("_T")


def named_by(asked: Request) -> DialogId | None:
    """The dialog that a request's Replaces header names, as we know dialogs; None if there is none, or no sense in it.

    REQ: RFC 3891 section 3: to-tag is compared with our tag, from-tag with the peer's; both must be there.
    """
    call_id, *pieces = split(asked.header("replaces") or "", ";")
    tags = parameters(pieces)
    if not call_id or "to-tag" not in tags or "from-tag" not in tags:
        return None
    # REQ: RFC 3891 section 3: a tag of zero means no tag at all, as peers of RFC 2543 have.
    remote = "" if tags["from-tag"] == "0" else tags["from-tag"]
    return call_id, tags["to-tag"], remote


def replaced(asked: Request, dialogs: Mapping[DialogId, _T]) -> _T | None:
    """What the dialog that a request replaces belongs to, or None."""
    named = named_by(asked)
    return None if named is None else dialogs.get(named)
