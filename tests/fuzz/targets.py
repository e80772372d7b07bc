"""What is fuzzed: each parser with its seeds, taken from vendors' samples and captured calls.

A target's `run` takes octets; the oracle is one line: nothing but MalformedInput may escape.
"""

import gzip
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, get_args

from dualtone.domain import agent_events, call_command, call_decision, call_match, canonical, recording_policy
from dualtone.domain.agent_events import (
    AckEvent,
    CallEvent,
    ClockOffset,
    CutEvent,
    DecisionEvent,
    HealthEvent,
    LeaseEvent,
    Report,
    SilentFrom,
    SpoolState,
)
from dualtone.domain.call_command import Command
from dualtone.domain.call_decision import Decision
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.recording_policy import Match, Record, RecordingPolicy, Rule
from dualtone.domain.recording_ruling import CallFacts, evaluate
from dualtone.domain.signing import Envelope
from sbc_agent.protocol import (
    address,
    answer,
    body,
    content_type,
    cseq,
    message,
    metadata,
    multipart,
    sdp,
    snapshot,
    uri,
    via,
)
from sbc_agent.protocol.events import SessionOffered
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.message import Request
from sbc_agent.protocol.recording_session import RecordingSession
from sbc_agent.protocol.server import SipServer
from sbc_agent.protocol.stream import StreamFramer
from sbc_agent.protocol.uas import ServerSettings
from tests.call_samples import session
from tests.fuzz import domain_targets, media_targets, mutators, settings_targets, sip_targets
from tests.fuzz.target import Target

VECTORS: Final = Path(__file__).parents[1] / "vectors"
_ULID: Final = "01JD0000000000000000000000"
_UDP: Final = Flow("udp", ("198.51.100.7", 5060), ("192.0.2.1", 5060))


def _sample(path: Path) -> bytes:
    data = path.read_bytes()
    return data if path.suffix == ".xml" else data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _captured() -> list[bytes]:
    found = []
    for path in sorted((VECTORS / "captures").glob("*.json.gz")):
        with gzip.open(path) as file:
            capture = json.load(file)
        found += [item["text"].encode() for dialog in capture["dialogs"] for item in dialog["messages"]]
    return found


def _with_length(data: bytes) -> bytes:
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(rest), b"", rest])


def messages() -> list[bytes]:
    """Messages of captured calls and of vendors' samples."""
    return _corpus()["messages"]


def _corpus() -> dict[str, list[bytes]]:
    samples = {path.name: _sample(path) for path in sorted((VECTORS / "siprec").iterdir()) if path.suffix != ".md"}
    messages = [_with_length(data) for data in samples.values() if data.split(b" ", 1)[0].isupper()] + _captured()
    bodies, descriptions, documents = [], [], [data for name, data in samples.items() if name.endswith(".xml")]
    descriptions += [data for name, data in samples.items() if name.endswith(".sdp")]
    for data in messages:
        found = message.parse(data)
        if found.body.lstrip().startswith(b"--"):
            bodies.append(found.body)
        parts = body.read(found)
        descriptions += [parts.sdp] if parts.sdp else []
        documents += [parts.metadata] if parts.metadata else []
    documents = [document for document in documents if not metadata.read(document).flags]
    return {"messages": messages, "bodies": bodies, "descriptions": descriptions, "documents": documents}


def _message(data: bytes) -> None:
    """The message and every header value that has a grammar."""
    found = message.parse(data)
    message.salvage(data)
    for parse, names in (
        (via.parse, ["via"]),
        (address.parse, ["from", "to", "contact", "record-route"]),
        (cseq.parse, ["cseq"]),
        (content_type.parse, ["content-type", "content-disposition"]),
    ):
        for value in itertools.chain.from_iterable(found.listed(name) for name in names):
            _tolerated(parse, value)
    if isinstance(found, Request):
        _tolerated(uri.parse, found.uri)
    body.read(found)


def _tolerated(parse: Callable[[str], object], value: str) -> None:
    """A header value may be refused without the message being so."""
    try:
        parse(value)
    except MalformedInput:
        return


def _stream(data: bytes) -> None:
    framer = StreamFramer()
    for start in range(0, len(data), 700):
        framer.feed(data[start : start + 700])
        while framer.next_message() is not None:
            continue


def _description(data: bytes) -> None:
    offer = sdp.parse(data)
    plans = answer.plan(offer)
    ports = {item.index: 20000 + 2 * item.index for item in plans}
    lines = answer.write_answer(offer, plans, ports, "192.0.2.9", {item.index: b"k" * 46 for item in plans})
    answered = sdp.parse("\r\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.9", *lines]).encode("utf-8", "replace"))
    assert [media.kind for media in answered.media] == [media.kind for media in offer.media]


def _document(data: bytes) -> None:
    metadata.recover(data)  # never raises
    json.dumps(RecordingSession().merged(metadata.parse(data)).facts())


def _server(data: bytes) -> None:
    """A whole server, whatever comes: nothing at all may escape, a restart goes on with it, and time passes."""
    server, now = _fresh_server(), 1000.0
    for _ in range(2):
        server.receive(data, _UDP, now)
        while (event := server.next_event()) is not None:
            if isinstance(event, SessionOffered):
                server.answer(event.session, {index: 20000 + 2 * index for index in event.needs_ports}, now)
    for _, taken in server.changed():
        if taken is not None:
            _restored(canonical.encode(taken.to_json()))
    for _ in range(40):
        if (at := server.timer()) is not None:
            now = at
            server.handle_timer(now)


def _fresh_server() -> SipServer:
    tokens = itertools.count(1)
    return SipServer(ServerSettings("192.0.2.9"), lambda: f"{next(tokens):032x}", lambda size: b"k" * size)


def _restored(data: bytes) -> None:
    """A snapshot that can be read makes a session that can be ended."""
    server = _fresh_server()
    server.restore(snapshot.from_json(canonical.decode(data)), 1000.0)
    server.end_all("shutdown", 1000.0)


def _snapshots(messages: Sequence[bytes]) -> list[bytes]:
    """What a journal would hold of the calls that captured INVITEs begin."""
    found = []
    for data in messages:
        server = _fresh_server()
        server.receive(data, _UDP, 1000.0)
        while (event := server.next_event()) is not None:
            if isinstance(event, SessionOffered):
                server.answer(event.session, {index: 20000 + 2 * index for index in event.needs_ports}, 1000.0)
        found += [canonical.encode(taken.to_json()) for _, taken in server.changed() if taken is not None]
    return found


def _reports() -> list[bytes]:
    """What agents report, an event of each kind."""
    ack = AckEvent(
        _ULID, _ULID, 7, "cloud", "pause", "payment", "acknowledged", 1, 2, 3, [SilentFrom(0, 4, 5)], ["payment"],
        "person:p", 6,
    )  # fmt: skip
    events: list[agent_events.Event] = [
        CallEvent(_ULID, 1, "live", 1, None, ["a" * 32], "c2VhbGVk", []),
        ack,
        CutEvent(_ULID, _ULID, 1, 2, ["part-00-000001.dtp"]),
        LeaseEvent(_ULID, "payment", "silent", 9),
        DecisionEvent(_ULID, _ULID, "decline", "dtmf", 9, "", "stopped"),
        HealthEvent([_ULID], SpoolState(1, 2, 3), {"disk": 1}, "0.1.0", 0),
    ]
    kinds = [[event] for event in events]
    return [
        canonical.encode(asdict(Report("acme", f"agt_{_ULID}", 1, 2, ClockOffset(-3, 4), kind)))
        for kind in (*kinds, events)
    ]


def _commands() -> list[bytes]:
    """A pause of a call, and a resume by match."""
    pause = Command(
        _ULID, "acme", f"agt_{_ULID}", 1, 2, "pause", _ULID, None, 3, "payment", 4, 5, 900, "silent", "person:p"
    )
    resume = replace(pause, action="resume", call=None, match="a" * 32, effective_at_ms=None, until_ms=None)
    return [canonical.encode(asdict(command)) for command in (pause, resume)]


def _decisions() -> list[bytes]:
    """A decision on a call, and one by match."""
    keep = Decision(_ULID, "acme", f"agt_{_ULID}", 1, 2, _ULID, None, "keep", "on_demand", "api", "person:p")
    refuse = replace(keep, call=None, match="a" * 32, decision="discard", cause="consent")
    return [canonical.encode(asdict(decision)) for decision in (keep, refuse)]


def _policies() -> list[bytes]:
    """A policy with a rule of each kind, and one without rules."""
    match = Match(lines=("2*",), queues=("q",), weekdays=("mon",), hours="22:00-06:00", timezone="Europe/London")
    rules = tuple(
        Rule(id=record.replace("_", "-"), record=record, basis="contract", match=match) for record in get_args(Record)
    )
    policy = RecordingPolicy("acme", 1, 2, rules, {"g": ("21??",)}, ("2*",))
    return [canonical.encode(asdict(one)) for one in (policy, replace(policy, rules=()))]


def _policy(data: bytes) -> None:
    """Whatever is a policy judges every call, and what it says at last is not provisional."""
    policy = recording_policy.read(data)
    assert not evaluate(policy, CallFacts.of_session(session(), 0), final=True).provisional


def _tokens(data: bytes) -> None:
    """Whatever the signalling said of a call, it has tokens and its parties can be sealed."""
    facts = canonical.decode(data)
    if not isinstance(facts, dict):
        raise MalformedInput("no facts")
    assert len(call_match.of_session(bytes(32), facts)) <= call_match.MOST_TOKENS
    sealed = call_match.seal(bytes(32), TenantId("acme"), CallId(_ULID), facts, bytes(12))
    call_match.unseal(bytes(32), TenantId("acme"), CallId(_ULID), sealed)


def targets() -> dict[str, Target]:
    """All targets by name."""
    corpus = _corpus()
    streams = [
        b"\r\n\r\n".join(group) for group in zip(*[iter(map(_with_length, corpus["messages"]))] * 3, strict=False)
    ]
    return {
        "message": Target(corpus["messages"], _message),
        "stream": Target(streams, _stream),
        "multipart": Target(corpus["bodies"], lambda data: multipart.parse(data, "")),
        "sdp": Target(corpus["descriptions"], _description),
        "metadata": Target(corpus["documents"], _document, mutators.XML),
        "server": Target(corpus["messages"], _server),
        "report": Target(
            _reports(), lambda data: agent_events.read(Envelope("agent-events", data, b"", "")), still_read=0.05
        ),
        "command": Target(_commands(), call_command.read, still_read=0.05),
        "decision": Target(_decisions(), call_decision.read, still_read=0.05),
        "policy": Target(_policies(), _policy, still_read=0.05),
        "tokens": Target([canonical.encode(session())], _tokens, still_read=0.05),
        "snapshot": Target(_snapshots(corpus["messages"]), _restored, still_read=0.05),
        **sip_targets.targets(corpus["messages"]),
        **media_targets.targets(),
        **domain_targets.targets(),
        **settings_targets.targets(),
    }
