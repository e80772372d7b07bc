"""An answered session as a later run of the agent takes it up again. Pure; standard: RFC 3261 section 12, RFC 4028.

Kept is what the peer's next request needs to be answered as if nothing had happened, and what requests of ours need to
be recognised: dialog id, CSeq numbers, target, routes, flow, timers, our description and its version, ports and plans.
No keys of SRTP: streams that need them wait, inactive, until the peer names keys (`key_question.py`). No personal data
but the Call-ID, which nothing can replace: of From, To and Contact the URIs alone, and of these no
user part that could be a number (section 12.2.1.1 matches dialogs by tags). Metadata, headers, names and messages stay
out; what was answered is written again when the peer repeats what it asked.

Times are microseconds of the clock that the server is told. A connection does not outlive its process: requests of
ours open a new one.
"""

import math
import re
from dataclasses import replace
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import blanking
from sbc_agent.protocol import uri as uris
from sbc_agent.protocol.answer import StreamPlan
from sbc_agent.protocol.dialogs import Dialog, Unacknowledged
from sbc_agent.protocol.events import SessionId
from sbc_agent.protocol.flow import Flow, HostPort
from sbc_agent.protocol.grammar import CONTROL
from sbc_agent.protocol.key_question import KeyQuestion
from sbc_agent.protocol.media_session import FLAG_SRTP_KEYS_LOST, MediaSession
from sbc_agent.protocol.server_session import ServerSession
from sbc_agent.protocol.uas import Uas

FORMAT: Final = 1

_ORIGIN_DIGITS: Final = 19
_STRICT: Final = ConfigDict(strict=True, extra="forbid")
_ANONYMOUS: Final = "sip:anonymous.invalid"  # REQ: RFC 3323 section 4.1.1.3: a host that names nobody
_COULD_BE_A_NUMBER: Final = re.compile(r"[0-9]{3}")
_IS_A_NUMBER: Final = re.compile(r"[0-9]{7}")


@checked(config=_STRICT, frozen=True, slots=True)
class DialogSnapshot:
    """A dialog; texts of the peer are spelled as octets, one character each, since they need not be UTF-8.

    Attributes:
        call_id: the Call-ID.
        local: our URI, from To.
        remote: the peer's URI, from From.
        local_tag: our tag.
        remote_tag: the peer's tag.
        target: where requests of ours go.
        routes: the route set.
        transport: of the flow on which the peer was heard last.
        peer: its address there.
        ours: our address there.
        remote_cseq: the highest CSeq number heard.
        settled: whether the answer to that request is known to have arrived.
        local_cseq: the last CSeq number of ours.
        confirmed: whether the peer is known to know the dialog.
        unacknowledged: CSeq numbers of INVITEs whose 2xx waits for its ACK, each with the end of its waiting.
        quiet_us: how long silence is taken for health.
        probe_at_us: when to ask; None while a question was open.
        failed_probes: how many went unanswered in a row.
        expires_at_us: when the session is over whatever the peer says.
    """

    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str
    target: str
    routes: tuple[str, ...]
    transport: Literal["udp", "tcp", "tls"]
    peer: HostPort
    ours: HostPort
    remote_cseq: int
    settled: bool
    local_cseq: int
    confirmed: bool
    unacknowledged: tuple[tuple[int, int], ...]
    quiet_us: int
    probe_at_us: int | None
    failed_probes: int
    expires_at_us: int | None = None


@checked(config=_STRICT, frozen=True, slots=True)
class MediaSnapshot:
    """What was negotiated: the attributes of `MediaSession`; `origin_id` as text, for it is larger than 53 bits."""

    origin_id: str
    version: int
    description: tuple[str, ...]
    plans: tuple[StreamPlan, ...]
    ports: tuple[tuple[int, int], ...]
    flags: tuple[str, ...]
    offer_outstanding: bool
    metadata_seen: bool
    paused: bool = False
    takes_update: bool = True


@checked(config=_STRICT, frozen=True, slots=True)
class SessionSnapshot:
    """An answered session."""

    first_cseq: int
    dialog: DialogSnapshot
    media: MediaSnapshot
    format: Literal[1] = FORMAT

    def to_json(self) -> object:
        """The snapshot as JSON values that `domain.canonical` can spell."""
        return _SNAPSHOT.dump_python(self, mode="json")


_SNAPSHOT: Final[TypeAdapter[SessionSnapshot]] = TypeAdapter(SessionSnapshot)


def from_json(value: object) -> SessionSnapshot:
    """Read what `SessionSnapshot.to_json` made.

    Raises:
        MalformedInput: it is no snapshot, or one of another version of the agent.
    """
    try:
        return _SNAPSHOT.validate_json(canonical.encode(value))
    except (ValidationError, ValueError):
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not the snapshot of a session") from None


def take(session: ServerSession) -> SessionSnapshot | None:
    """What a later run must know of a session; None for one that is not answered, or over.

    An offer that waits for its ports is left out: nobody was answered, so the peer asks again.
    """
    dialog = session.dialog
    if dialog is None or session.ended:
        return None
    media, flow = session.media, dialog.flow
    return SessionSnapshot(
        first_cseq=session.first_cseq,
        dialog=DialogSnapshot(
            call_id=_octets(dialog.call_id),
            local=_octets(_uri_of(dialog.local)),
            remote=_octets(_uri_of(dialog.remote)),
            local_tag=dialog.local_tag,
            remote_tag=_octets(dialog.remote_tag),
            target=_octets(impersonal(dialog.target)),
            routes=tuple(_octets(_route(route)) for route in dialog.routes),
            transport=flow.transport,
            peer=flow.remote,
            ours=flow.local,
            remote_cseq=dialog.remote_cseq,
            settled=dialog.settled,
            local_cseq=dialog.local_cseq,
            confirmed=dialog.confirmed,
            unacknowledged=tuple(
                (cseq, _microseconds(waiting.give_up_at)) for cseq, waiting in dialog.unacknowledged.items()
            ),
            quiet_us=_microseconds(dialog.quiet_seconds),
            probe_at_us=None if dialog.probe_at is None else _microseconds(dialog.probe_at),
            failed_probes=dialog.failed_probes,
            expires_at_us=None if dialog.expires_at is None else _microseconds(dialog.expires_at),
        ),
        media=MediaSnapshot(
            origin_id=str(media.origin_id),
            version=media.version,
            description=tuple(blanking.keys(line.encode()).decode() for line in media.description),
            plans=tuple(_keyless(plan) for plan in media.plans),
            ports=tuple(sorted(media.ports.items())),
            flags=tuple(media.flags),
            offer_outstanding=media.offer_outstanding,
            metadata_seen=media.metadata_seen,
            paused=media.paused,
            takes_update=media.takes_update,
        ),
    )


def restored(snapshot: SessionSnapshot, session: SessionId, uas: Uas, now: float) -> ServerSession:
    """The session as it was; a probe that was open is sent again.

    Args:
        snapshot: what `take` noted.
        session: its number in this run.
        uas: what answers share.
        now: the time, in seconds of the clock that the snapshot was taken by.

    Raises:
        MalformedInput: a field has a value that no snapshot has.
    """
    kept, told = snapshot.dialog, snapshot.media
    call_id, local, remote = (_text(text) for text in (kept.call_id, kept.local, kept.remote))
    remote_tag, target = _text(kept.remote_tag), _text(kept.target)
    flow = Flow(kept.transport, kept.peer, kept.ours)
    dialog = Dialog(
        call_id=call_id,
        local=f"<{local}>;tag={_text(kept.local_tag)}",
        remote=f"<{remote}>;tag={remote_tag}" if remote_tag else f"<{remote}>",
        local_tag=kept.local_tag,
        remote_tag=remote_tag,
        target=target,
        routes=tuple(_text(route) for route in kept.routes),
        flow=flow,
        remote_cseq=kept.remote_cseq,
        settled=kept.settled,
        takes_last_again=not kept.settled,
        local_cseq=kept.local_cseq,
        confirmed=kept.confirmed,
        unacknowledged={
            cseq: Unacknowledged(b"", flow.remote, math.inf, give_up_at_us / 1_000_000)
            for cseq, give_up_at_us in kept.unacknowledged
        },
        quiet_seconds=kept.quiet_us / 1_000_000,
        probe_at=now if kept.probe_at_us is None else kept.probe_at_us / 1_000_000,
        expires_at=None if kept.expires_at_us is None else kept.expires_at_us / 1_000_000,
        failed_probes=kept.failed_probes,
    )
    media = MediaSession(
        session,
        _origin_id(told.origin_id),
        call_id,
        src=flow.remote[0],
        ports=dict(told.ports),
        plans=told.plans,
        flags=dict.fromkeys(told.flags),
        offer_outstanding=told.offer_outstanding,
        version=told.version,
        description=list(told.description),
        metadata_seen=told.metadata_seen,
        paused=told.paused,
        takes_update=told.takes_update,
    )
    again = ServerSession(uas, media, dialog.local_tag, remote_tag, snapshot.first_cseq, dialog)
    if media.lacks_keys:
        media.flag(FLAG_SRTP_KEYS_LOST)
        if not media.offer_outstanding:  # else the ACK that answers our offer names them
            again.question = KeyQuestion(now)
    return again


def impersonal(uri: str) -> str:
    """A URI without what could name a person: no user part with three digits in a row, no headers, no long numbers.

    Args:
        uri: a URI without angle brackets; one that names no host, or cannot be read, becomes an anonymous one.
    """
    try:
        read = uris.parse(uri)
    except MalformedInput:
        return _ANONYMOUS
    if not read.host:  # a tel URI is a number and nothing else
        return _ANONYMOUS
    parameters = {name: value for name, value in read.parameters.items() if not _IS_A_NUMBER.search(name + value)}
    user = "" if _COULD_BE_A_NUMBER.search(read.user) else read.user
    return str(replace(read, user=user, parameters=parameters, headers=""))


def _keyless(plan: StreamPlan) -> StreamPlan:
    return plan if plan.crypto is None else replace(plan, crypto=plan.crypto.without_keys())


def _uri_of(value: str) -> str:
    """The URI of a From or To value without its parameters: they say nothing that a dialog needs."""
    try:
        read = uris.parse(impersonal(addresses.parse(value).uri))
    except MalformedInput:
        return _ANONYMOUS
    return str(replace(read, parameters={}))


def _route(value: str) -> str:
    """A route without its name. Its parameters are the cookies of a proxy: they stay, or nothing would arrive."""
    try:
        read = addresses.parse(value)
        uri = read.parsed_uri()
    except MalformedInput:
        return f"<{_ANONYMOUS};lr>"
    user = "" if _COULD_BE_A_NUMBER.search(uri.user) else uri.user
    return str(replace(read, uri=str(replace(uri, user=user)), display_name=""))


def _origin_id(digits: str) -> int:
    if not digits.isascii() or not digits.isdigit() or len(digits) > _ORIGIN_DIGITS:
        raise MalformedInput("the id of a description is not a number below 2**63")
    return int(digits)


def _octets(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _text(octets: str) -> str:
    try:
        text = octets.encode("latin-1").decode("utf-8", "surrogateescape")
    except ValueError:
        raise MalformedInput("a text of a snapshot has characters that are no octets") from None
    if CONTROL.search(text):
        raise MalformedInput("a text of a snapshot has a control character")
    return text


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
