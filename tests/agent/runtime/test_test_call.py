"""The test call against a real SIP core: our own agent's, with a media port that notes what it is told."""

from __future__ import annotations

import asyncio
import io
import json
import selectors
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbc_agent.media.clock import AgentClock
from sbc_agent.media.messages import Event, Pause, Resume, StreamSpec
from sbc_agent.runtime import cli, load_call, test_call
from sbc_agent.runtime.config import Endpoint
from sbc_agent.runtime.logs import Log
from sbc_agent.runtime.sip_certificate import TlsFiles
from sbc_agent.runtime.sip_shell import SipSettings, SipShell
from sbc_agent.runtime.src_dialog import Transport
from sbc_agent.runtime.src_link import CallFailed
from sbc_agent.runtime.test_call import Side
from tests.agent.runtime.certificates import Authority
from tests.agent.runtime.spooled import Clock
from tests.agent.runtime.test_speech import write_wav


@dataclass
class NotingMedia:
    """The media port, with open sockets that keep what arrives."""

    clock: AgentClock = field(default_factory=AgentClock.measured)
    begun: list[tuple[StreamSpec, ...]] = field(default_factory=list)
    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, count: int) -> None:
        for _ in range(count):
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            channel.bind(("127.0.0.1", 0))
            channel.setblocking(False)
            self.sockets[channel.getsockname()[1]] = channel

    def close(self) -> None:
        for channel in self.sockets.values():
            channel.close()

    def packets(self, port: int) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.sockets[port].recv(2_048))
            except BlockingIOError:
                return found

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(self.sockets)

    @property
    def accepting(self) -> bool:
        return True

    def begin(self, call: str, at_us: int, streams: Sequence[StreamSpec], **_: object) -> None:
        self.begun.append(tuple(streams))

    def decide(self, call: str, at_us: int, *, keep: bool) -> None:
        pass

    def policy(self, call: str, at_us: int, policy: object) -> None:
        pass

    def streams(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        self.begun.append(tuple(streams))

    def signalling(self, call: str, at_us: int, direction: int, raw: bytes) -> None:
        pass

    def session(self, call: str, session: Mapping[str, Any]) -> None:
        self.sessions.append(session)
        self.began.set()

    def end(self, call: str, at_us: int, reason: str, flags: Sequence[str] = ()) -> None:
        self.ended.append(reason)

    def adopt(self, call: str, at_us: int, streams: Sequence[StreamSpec]) -> None:
        pass

    def digit(self, call: str, at_us: int, digit: str, stream: int | None = None) -> None:
        pass

    def recover(self) -> None:
        pass

    def pause(self, pause: Pause) -> None:
        pass

    def resume(self, resume: Resume) -> None:
        pass

    def use_ingest_key(self, key_arn: str, public_key_der: bytes) -> None:
        pass

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        pass


@asynccontextmanager
async def recorder(
    streams: int = 4, tls_files: TlsFiles | None = None
) -> AsyncIterator[tuple[NotingMedia, SipShell, dict[Transport, Endpoint]]]:
    """A recording server on loopback."""
    media = NotingMedia()
    media.open(streams)
    any_port = ("127.0.0.1", 0)
    settings = SipSettings("127.0.0.1", any_port, any_port, tls=any_port if tls_files else None, tls_files=tls_files)
    shell = SipShell(settings, media, Log(stream=io.StringIO()))
    addresses = await shell.start()
    assert addresses.udp
    assert addresses.tcp
    try:
        found: dict[Transport, Endpoint] = {"udp": Endpoint(*addresses.udp), "tcp": Endpoint(*addresses.tcp)}
        if addresses.tls:
            found["tls"] = Endpoint(*addresses.tls)
        yield media, shell, found
    finally:
        await shell.close()
        media.close()


def sides(packets: int = 5) -> tuple[Side, Side]:
    ramp = np.arange(160 * packets).astype(np.uint8)
    return Side("caller", "+442079460101", "Alice", ramp), Side("callee", "+442079460102", "Bob", ramp[::-1].copy())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_speaks_both_sides_in_phase_and_hangs_up_at_the_end(transport: Transport) -> None:
    """The recorder gets both streams whole, knows who is who, and the dialog ends by our BYE."""

    async def scenario() -> None:
        async with recorder() as (media, _, targets):
            spoken = sides()
            result = await test_call.place(targets[transport], transport, spoken)
            assert result.packets == [5, 5]
            assert (result.ended_by, result.bye_status, result.duration_ms) == ("us", 200, 100)
            assert [stream.role for stream in result.streams] == ["caller", "callee"]
            (streams,) = media.begun
            for stream, side, told in zip(streams, spoken, result.streams, strict=True):
                got = media.packets(stream.port)
                assert (stream.label, stream.port) == (told.label, told.port)
                assert b"".join(packet[12:] for packet in got) == side.samples.tobytes()
            people = media.sessions[-1]["participants"]
            assert [(person["role"], person["name"]) for person in people] == [("caller", "Alice"), ("callee", "Bob")]
            assert media.sessions[-1]["sip_call_id"] == result.sip_call_id
            assert [stream["participant_id"] for stream in media.sessions[-1]["streams"]] == [
                person["participant_id"] for person in people
            ]
            assert media.ended == ["bye"]

    asyncio.run(scenario())


def test_a_call_over_tls_trusts_whom_it_is_told_to(tmp_path: Path) -> None:
    """With the authority, and with --insecure, the call is placed; without either it is said plainly why not."""
    authority = Authority.new(tmp_path)
    own = authority.sign("srs")
    asking = TlsFiles(own.certificate, own.key, authority.file("ca"))
    mine = authority.sign("sbc")
    wav = tmp_path / "a.wav"
    write_wav(wav, np.zeros(1_600, np.int16))

    async def placed(*options: str) -> int:
        async with recorder(tls_files=asking) as (_, _shell, targets):
            command = ["call", "--target", str(targets["tls"]), "--transport", "tls", "--duration", "0.02", *options]
            command += ["--caller-wav", str(wav), "--callee-wav", str(wav)]
            return await asyncio.to_thread(cli.main, command)

    proof = ["--cert", str(mine.certificate), "--key", str(mine.key)]
    assert asyncio.run(placed("--ca", str(authority.file("ca")), *proof)) == 0
    assert asyncio.run(placed("--insecure", *proof)) == 0
    assert asyncio.run(placed(*proof)) == 1
    assert asyncio.run(placed("--insecure")) == 1
    assert asyncio.run(placed("--ca", str(wav))) == 1


class JumpingSelector(selectors.DefaultSelector):
    """Lets a loop's time pass by moving its clock instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += timeout or 0.0
        return super().select(0)


def test_packets_leave_every_20_ms_without_drift() -> None:
    """Packet k is due k * 20 ms after the first; a stall delays what falls into it and nothing after it."""
    clock, times = Clock(0.0), []

    class Channel:
        def send(self, packet: bytes) -> None:
            times.append(round(clock.now * 1000))
            if len(times) == 5:
                clock.now += 0.05

    class Link:
        def waiting(self) -> bool:
            return False

    loop = asyncio.SelectorEventLoop(JumpingSelector(clock))
    loop.time = clock  # type: ignore[method-assign]
    spoken = sides(10)[:1]
    sent = loop.run_until_complete(test_call._speak(Link(), [Channel()], [4_000], spoken))  # type: ignore[arg-type,list-item]
    loop.close()
    assert times == [0, 20, 40, 60, 80, 130, 130, 140, 160, 180]
    assert round(clock.now, 3) == 0.2, "the last packet's time is over before the BYE"
    assert (sent.ticks, round(sent.late_s, 3)) == (10, 0.05)


def test_many_calls_side_by_side() -> None:
    """Twenty calls at once in one process: each has its own dialog and all its packets."""

    async def scenario() -> None:
        async with recorder(streams=2 * 20) as (media, _, targets):
            done: list[Any] = []
            await test_call.place_many(20, 20, lambda: test_call.place(targets["udp"], "udp", sides()), done.append)
            assert [result.packets for result in done] == [[5, 5]] * 20
            assert len({result.sip_call_id for result in done}) == 20
            assert media.ended == ["bye"] * 20

    asyncio.run(scenario())


def test_a_full_recorder_is_told_by_its_status() -> None:
    """A refusal is an error that says what the recorder answered; other calls are not stopped by it."""

    async def scenario() -> None:
        async with recorder(streams=2) as (_, _, targets):
            done: list[Any] = []
            await test_call.place_many(2, 2, lambda: test_call.place(targets["tcp"], "tcp", sides()), done.append)
            failures = [str(result) for result in done if isinstance(result, CallFailed)]
            assert len(failures) == 1
            assert failures[0].startswith("the recorder answered 503")

    asyncio.run(scenario())


def test_a_recorder_that_hangs_up_ends_the_call() -> None:
    """The recorder's BYE stops the speech; the result says who ended it."""

    async def scenario() -> None:
        async with recorder() as (media, shell, targets):
            call = asyncio.create_task(test_call.place(targets["udp"], "udp", sides(500)))
            await media.began.wait()
            await shell.drain()
            result = await call
            assert result.ended_by == "recorder"
            assert result.duration_ms < 9_000

    asyncio.run(scenario())


def test_nobody_listening_on_tcp_is_said_plainly() -> None:
    """A refused connection is one sentence."""
    with pytest.raises(CallFailed, match=r"no TCP connection to 127\.0\.0\.1:1: connection refused"):
        asyncio.run(test_call.place(Endpoint("127.0.0.1", 1), "tcp", sides()))


def test_a_name_that_does_not_exist_is_said_plainly() -> None:
    """So is an unknown host."""
    with pytest.raises(CallFailed, match=r"nowhere\.invalid has no IPv4 address"):
        asyncio.run(test_call.place(Endpoint("nowhere.invalid", 5060), "udp", sides()))


class ScriptedPeer(asyncio.DatagramProtocol):
    """A UDP peer that answers each request with what the test says."""

    def __init__(self, answer: Callable[[str, list[str]], list[str]]) -> None:
        self._answer = answer
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        text = data.decode()
        method = text.split(" ", 1)[0]
        if method == "BYE":
            self.ended.set()
        kept = [line for line in text.split("\r\n") if line.split(":")[0] in {"Via", "From", "To", "Call-ID", "CSeq"}]
        for answer in self._answer(method, kept):
            self._transport.sendto(answer.encode(), addr)


_SESSION = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"


@pytest.mark.parametrize(
    ("sdp", "message"),
    [
        ("", "an answer that cannot be used"),
        (_SESSION + "m=audio 4000 RTP/AVP 8\r\n", "1 m-lines"),
        (_SESSION + "m=audio 0 RTP/AVP 8\r\n" * 2, "refused every stream"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_plainly(sdp: str, message: str) -> None:
    """No description, too few m-lines, every stream refused: each is told, and the session is ended by BYE."""

    def answer(method: str, kept: list[str]) -> list[str]:
        if method == "ACK":
            return []
        kind = ["Content-Type: application/sdp"] if sdp and method == "INVITE" else []
        content = sdp if method == "INVITE" else ""
        head = ["SIP/2.0 200 OK", *kept, *kind, f"Content-Length: {len(content)}"]
        return ["\r\n".join([*head, "", content])]

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(lambda: ScriptedPeer(answer), local_addr=("127.0.0.1", 0))
        target = Endpoint(*transport.get_extra_info("sockname"))
        with pytest.raises(CallFailed, match=message):
            await test_call.place(target, "udp", sides())
        await peer.ended.wait()
        transport.close()

    asyncio.run(scenario())


def test_one_stream_refused_leaves_the_other(tmp_path: Path) -> None:
    """A recorder that takes one side only gets that one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        media.bind(("127.0.0.1", 0))
        port = media.getsockname()[1]

        def answer(method: str, kept: list[str]) -> list[str]:
            lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
            lines += ["m=audio 0 RTP/AVP 8", f"m=audio {port} RTP/AVP 8", "a=label:2", ""]
            content = "\r\n".join(lines) if method == "INVITE" else ""
            kind = "Content-Type: application/sdp"
            head = ["SIP/2.0 200 OK", *kept, kind, f"Content-Length: {len(content)}", "", content]
            return [] if method == "ACK" else ["\r\n".join(head)]

        async def scenario() -> test_call.CallResult:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: ScriptedPeer(answer), local_addr=("127.0.0.1", 0)
            )
            result = await test_call.place(Endpoint(*transport.get_extra_info("sockname")), "udp", sides())
            transport.close()
            return result

        result = asyncio.run(scenario())
        assert result.packets == [0, 5]
        assert [struct.unpack("!H", media.recv(2_048)[2:4]) for _ in range(5)]


def test_the_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``dualtone-agent call --json`` prints what the demo and the canary read, and exits with 0."""
    caller = write_wav(tmp_path / "a.wav", np.arange(-320, 320))
    callee = write_wav(tmp_path / "b.wav", np.arange(0, 480))

    async def scenario() -> tuple[int, list[str]]:
        async with recorder() as (media, _, targets):
            command = ["call", "--target", str(targets["udp"]), "--json"]
            command += ["--caller-wav", str(caller), "--callee-wav", str(callee)]
            status = await asyncio.to_thread(cli.main, command)
            return status, media.ended

    status, ended = asyncio.run(scenario())
    printed = json.loads(capsys.readouterr().out)
    assert (status, ended) == (0, ["bye"])
    assert printed["ok"] is True
    assert printed["packets"] == [4, 4], "the shorter side is filled with silence"
    assert {"sip_call_id", "sip_session_id", "answered_ms", "started_at", "ended_at", "streams"} <= printed.keys()
    assert "+4420" not in json.dumps(printed)


def test_many_calls_print_a_summary(tmp_path: Path) -> None:
    """With several calls there is a line for each and one that sums up; a failure shows in the exit status."""
    wav = write_wav(tmp_path / "a.wav", np.zeros(160))

    async def scenario() -> tuple[bool, list[str]]:
        printed: list[str] = []
        async with recorder(streams=2) as (_, _, targets):
            plan = load_call.CallPlan(
                targets["udp"],
                "udp",
                wav,
                wav,
                "1",
                "2",
                "a",
                "b",
                duration_s=0.1,
                loop=True,
                calls=3,
                parallel=3,
                json=True,
            )
            return await load_call.run(plan, printed.append), printed

    ok, printed = asyncio.run(scenario())
    lines = [json.loads(line) for line in printed]
    assert not ok
    assert lines[-1] == {
        "summary": True,
        "calls": 3,
        "ok": 1,
        "failed": 2,
        "answered_ms_max": lines[-1]["answered_ms_max"],
    }
    assert [line["packets"] for line in lines[:-1] if line["ok"]] == [[5, 5]]
