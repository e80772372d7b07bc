"""Messages between the two processes: a round trip, and nothing but MalformedInput for the rest."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.media import messages
from tests.agent.media.sealed_call import CALL

COMMANDS = [
    messages.Begin(
        call=CALL,
        at_us=1,
        streams=(
            messages.StreamSpec(
                stream=0,
                label="a",
                port=20_000,
                formats=(messages.FormatSpec(payload_type=8, codec="PCMA", clock_hz=8_000),),
            ),
        ),
    ),
    messages.Streams(
        call=CALL,
        at_us=1,
        streams=(
            messages.StreamSpec(
                stream=0,
                label="a",
                port=20_000,
                crypto=(
                    messages.CryptoSpec(
                        tag=1, suite="AEAD_AES_128_GCM", key=bytes(range(28)), mki=b"\x01", unencrypted_rtcp=True
                    ),
                ),
            ),
        ),
    ),
    messages.Signalling(call=CALL, at_us=1, direction=0, raw=bytes(range(256))),
    messages.Session(call=CALL, session={"flags": ["x"], "extensions": {"a": [1, None, True]}}),
    messages.End(call=CALL, at_us=1, reason="bye", flags=("one",)),
    messages.Adopt(call=CALL, at_us=1, streams=()),
    messages.Recover(),
    messages.Pause(
        call=CALL,
        at_us=9,
        from_us=1,
        cause="payment",
        origin="cloud",
        number=7,
        command=CALL,
        by="someone",
        effective_at_us=2,
        until_us=None,
        lease_us=5,
        on_expiry="resume",
    ),
    messages.Resume(call=CALL, at_us=1, cause="manual", origin="lan", number=8, command=CALL, by="someone"),
    messages.Begin(call=CALL, at_us=1, streams=(), waits=True, silent=True),
    messages.Decide(call=CALL, at_us=2, keep=True),
    messages.UseIngestKey(key_arn="arn", public_key_der=bytes(range(256))),
    messages.AskStats(),
    messages.Drain(flush=True),
]
EVENTS = [
    messages.Ready(ports=(20_000, 20_002)),
    messages.PartClosed(call=CALL, path="/x", digest="0" * 64, size_bytes=1),
    messages.Finished(call=CALL, path="/x"),
    messages.PortFree(port=20_000),
    messages.Alarm(kind="no_media", call=CALL),
    messages.Adopted(call=CALL, epoch=1),
    messages.Decided(call=CALL, keep=False, outcome="discarded"),
    messages.PauseApplied(
        call=CALL,
        command=CALL,
        origin="cloud",
        number=7,
        action="pause",
        cause="payment",
        outcome="too_late",
        from_us=1,
        at_us=9,
        left_until_us=3,
        silent_from=(messages.SilentFrom(stream=0, rtp_timestamp=None, at_us=1),),
        causes=("hold", "payment"),
    ),
    messages.CutDone(call=CALL, command=CALL, from_us=1, to_us=3, parts=("part-00-000000.dtp",)),
    messages.LeaseExpired(call=CALL, cause="payment", on_expiry="silent", at_us=9),
    messages.SpoolRecovered(call=CALL),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_commands_come_back(command: messages.Command) -> None:
    assert messages.parse_command(command.encode()) == command


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_come_back(event: messages.Event) -> None:
    assert messages.parse_event(event.encode()) == event


@given(st.one_of(st.binary(max_size=60), st.sampled_from(COMMANDS + EVENTS).map(lambda one: one.encode()[:-3] + b"}")))
def test_only_malformed_input_escapes(data: bytes) -> None:
    for parse in (messages.parse_command, messages.parse_event, messages.parse_settings):
        with suppress(MalformedInput):
            parse(data)


def test_an_error_does_not_quote_what_it_refuses() -> None:
    with pytest.raises(MalformedInput) as refused:
        messages.parse_command(b'{"cmd":"session","call":"+442079460000"}')
    assert "442079460000" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("suite", messages.KEY_BYTES)
def test_a_key_of_another_length_than_its_suites_is_no_key(suite: messages.CryptoSuite) -> None:
    right = messages.KEY_BYTES[suite]
    for length in {0, right - 1, min(right + 1, 45)}:
        with pytest.raises(ValueError, match="another length") as refused:
            messages.CryptoSpec(tag=1, suite=suite, key=b"k" * length)
        assert "kkk" not in str(refused.value)


def test_no_representation_shows_a_key() -> None:
    crypto = messages.CryptoSpec(tag=1, suite="AES_CM_128_HMAC_SHA1_80", key=b"k" * 30)
    stream = messages.StreamSpec(stream=0, label="a", port=20_000, crypto=(crypto,))
    for one in (crypto, stream, messages.Begin(call=CALL, at_us=1, streams=(stream,))):
        assert "kkk" not in f"{one!r} {one!s}"
