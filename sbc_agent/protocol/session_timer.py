"""Session timers: how long silence in a dialog may last. Pure; standard: RFC 4028.

We let the SRC refresh (INTEROP) and never refresh ourselves; a session that expires is probed before it is ended.
"""

from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import content_type
from sbc_agent.protocol.grammar import number
from sbc_agent.protocol.message import Request

MIN_SECONDS: Final = 90  # REQ: RFC 4028 section 4: no shorter interval
MAX_SECONDS: Final = 86_400
GRACE_SECONDS: Final = 32


def negotiate(asked: Request) -> tuple[tuple[tuple[str, str], ...], float | None]:
    """Accept the session timer that a request offers, with the SRC as refresher.

    Args:
        asked: an INVITE or UPDATE.

    Returns:
        The headers for the 2xx and the seconds of silence that are allowed; () and None where no timer is offered, or
        one that would have us refresh: a server that leaves it out has none (section 9).
    """
    options = {option.lower() for option in [*asked.listed("supported"), *asked.listed("require")]}
    offered = asked.header("session-expires")
    if "timer" not in options or not offered:
        return (), None
    try:
        wish = content_type.parse(offered)
        seconds = number(wish.value, "Session-Expires", MAX_SECONDS)
    except MalformedInput:
        return (), None
    if not seconds or wish.parameters.get("refresher", "uac").lower() != "uac":
        return (), None
    # REQ: RFC 4028 section 9: the interval is never raised. One below the standard's shortest could be refused by 422,
    # which would cost the recording: it is agreed to, and we are not more impatient than the standard.
    # REQ: RFC 4028 section 9: with the UAC as refresher the 2xx requires `timer`.
    headers = (("Session-Expires", f"{seconds};refresher=uac"), ("Require", "timer"))
    return headers, float(max(seconds, MIN_SECONDS) + GRACE_SECONDS)
