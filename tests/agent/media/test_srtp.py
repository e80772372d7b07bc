"""SRTP on its way into the ring: what is authentic is kept as plain RTP would be; nothing else does anything."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc_agent.media import srtp
from sbc_agent.media.messages import KEY_BYTES, CryptoSuite
from sbc_agent.media.srtp import LONGEST_REST_US, OLD_KEYS, SEARCH_EVERY_US, SEARCHES, SEARCHES_OF_ALL
from sbc_agent.media.srtp_context import CryptoContext
from tests.agent.media.feed import OTHER, PEER, Arrival, Line, received
from tests.agent.media.packets import packet, speech
from tests.agent.media.srtp_sender import Sender

SUITES: tuple[CryptoSuite, ...] = tuple(KEY_BYTES)  # type: ignore[arg-type]
EVER = 1 << 60
MS = 1_000
START_US = 10_000_000
every_suite = pytest.mark.parametrize("suite", SUITES)


def sender(suite: CryptoSuite = "AES_CM_128_HMAC_SHA1_80", *, mki: bytes = b"", seed: int = 0) -> Sender:
    return Sender(suite, bytes((seed + 7 * index) & 0xFF for index in range(KEY_BYTES[suite])), mki)


def line(*senders: Sender) -> Line:
    one = Line()
    one.intake.srtp.set_keys(one.row, [each.spec for each in senders])
    return one


def plain(number: int, *, ssrc: int = 0x1234, payload_type: int = 8) -> bytes:
    """A packet by its extended sequence number."""
    return packet(number, speech(0, number), ssrc=ssrc, payload_type=payload_type)


def sealed(by: Sender, number: int, *, ssrc: int = 0x1234, payload_type: int = 8) -> bytes:
    return by.protect(plain(number, ssrc=ssrc, payload_type=payload_type), number >> 16)


def take(to: Line, *packets: bytes, at_us: int = START_US, source: int = PEER) -> None:
    """Takes packets of one drain, 20 ms apart."""
    to.take([Arrival(0, data, at_us + 20 * MS * index, source) for index, data in enumerate(packets)])


def left(of: Line) -> list[tuple[int, bytes]]:
    return of.leave(EVER)


def expected(*numbers: int) -> list[tuple[int, bytes]]:
    return [(number & 0xFFFF, speech(0, number)) for number in numbers]


@every_suite
def test_what_is_kept_is_what_was_protected(suite: CryptoSuite) -> None:
    by = sender(suite)
    to = line(by)
    take(to, *(sealed(by, number) for number in range(100, 140)))
    assert left(to) == expected(*range(100, 140))
    assert to.counted("stored") == 40


@settings(max_examples=60)
@given(
    suite=st.sampled_from(SUITES),
    mki=st.sampled_from([b"", b"\x05"]),
    first=st.one_of(st.integers(0, 5 << 16), st.integers(65_500, 65_535), st.integers(131_000, 131_071)),
    seed=st.integers(0, 1 << 30),
)
def test_loss_disorder_copies_and_wraps_do_to_srtp_what_they_do_to_rtp(
    suite: CryptoSuite, mki: bytes, first: int, seed: int
) -> None:
    """Two lines get the same packets, one of them protected: the same leaves both rings."""
    dice, by = random.Random(seed), sender(suite, mki=mki)
    numbers = [number for number in range(first, first + 120) if dice.random() > 0.2]
    order = sorted(numbers[1:], key=lambda number: number + dice.randrange(6))
    order.insert(0, numbers[0])
    for place in range(len(order) - 1, 0, -9):  # a network's copies follow within a second
        order.insert(place + dice.randrange(30), order[place])
    clear, protected = Line(), line(by)
    at_us = START_US
    while order:
        batch, order = order[:16], order[16:]
        take(clear, *(plain(number) for number in batch), at_us=at_us)
        take(protected, *(sealed(by, number) for number in batch), at_us=at_us)
        at_us += 20 * MS * len(batch)
    assert left(protected) == left(clear)
    assert protected.counted("stored") == clear.counted("stored")
    assert protected.counted("replayed") == clear.counted("duplicates") > 0
    assert protected.counted("reordered") == clear.counted("reordered")
    assert protected.counted("unauthentic") == 0


@every_suite
def test_what_is_forged_is_counted_and_neither_kept_nor_believed(suite: CryptoSuite) -> None:
    """An attacker who comes first, or floods, locks no source and delays nobody; plain RTP is a forgery too."""
    by, attacker = sender(suite), sender(suite, seed=77)
    to = line(by)
    take(to, plain(1), sealed(attacker, 2), b"\x80" + bytes(171), source=OTHER)
    take(to, *(sealed(by, number) for number in range(3, 8)))
    forged = [sealed(attacker, number) for number in range(8, 200)]
    take(to, *forged, source=OTHER)
    take(to, *(sealed(by, number) for number in range(8, 12)), at_us=START_US + 200 * MS)
    assert left(to) == expected(*range(3, 12))
    assert to.counted("unauthentic") == 3 + len(forged)
    assert to.counted("foreign_source") == to.counted("malformed") == 0


@every_suite
def test_what_is_forged_leaves_nothing_in_the_receivers_buffer(suite: CryptoSuite) -> None:
    """A true packet with another tag is decrypted before it is refused: what it says is not left lying about."""
    by = sender(suite)
    to = line(by)
    data = sealed(by, 1)
    batch, buffer = received([Arrival(0, data[:-1] + bytes([data[-1] ^ 1]), START_US)])
    to.intake.take(np.array([to.row]), batch, batch.stamp_us, buffer)
    assert to.counted("unauthentic") == 1
    assert not buffer[int(batch.offset[0]) :][: len(data)].any()


@every_suite
def test_what_was_heard_is_counted_and_dropped_when_it_is_sent_again(suite: CryptoSuite) -> None:
    by = sender(suite)
    to = line(by)
    packets = [sealed(by, number) for number in range(10)]
    take(to, *packets)
    take(to, *packets, at_us=START_US + 5_000 * MS, source=OTHER)
    assert left(to) == expected(*range(10))
    assert (to.counted("replayed"), to.counted("duplicates"), to.counted("foreign_source")) == (10, 0, 0)


@every_suite
def test_who_has_the_key_may_send_from_anywhere(suite: CryptoSuite) -> None:
    by = sender(suite)
    to = line(by)
    for number in range(20):
        take(to, sealed(by, number), at_us=START_US + 20 * MS * number, source=PEER if number % 3 else OTHER)
    assert left(to) == expected(*range(20))


@every_suite
@pytest.mark.parametrize("is_one_drain", [True, False])
def test_packets_under_the_old_key_that_come_after_its_change_are_kept(
    suite: CryptoSuite, *, is_one_drain: bool
) -> None:
    old, new = sender(suite), sender(suite, seed=5)
    to = line(old)
    take(to, *(sealed(old, number) for number in range(10)))
    to.intake.srtp.set_keys(to.row, [new.spec])
    packets = [sealed(new if number >= 13 else old, number) for number in (10, 13, 11, 12, 14)]
    for drain in [packets] if is_one_drain else [[one] for one in packets]:
        take(to, *drain, at_us=START_US + 200 * MS)
    assert left(to) == expected(*range(15))


@every_suite
def test_a_description_with_the_same_key_changes_nothing(suite: CryptoSuite) -> None:
    """The roll-over counter goes on over a hold that names the same key, and over a change to another and back."""
    by, between = sender(suite), sender(suite, seed=5)
    to = line(by)
    take(to, sealed(by, 65_535), sealed(by, 65_536))
    to.intake.srtp.set_keys(to.row, [by.spec])
    take(to, sealed(by, 65_537), at_us=START_US + 40 * MS)
    to.intake.srtp.set_keys(to.row, [between.spec])
    to.intake.srtp.set_keys(to.row, [by.spec])
    take(to, sealed(by, 65_538), sealed(by, 65_537), at_us=START_US + 60 * MS)
    assert left(to) == expected(*range(65_535, 65_539))
    assert to.counted("replayed") == 1


def test_only_so_many_old_keys_are_remembered() -> None:
    keys = [sender(seed=seed) for seed in range(OLD_KEYS + 2)]
    to = line(keys[0])
    for key in keys[1:]:
        to.intake.srtp.set_keys(to.row, [key.spec])
    take(to, *(sealed(key, number) for number, key in enumerate(keys)))
    assert left(to) == expected(*range(1, OLD_KEYS + 2))
    assert to.counted("unauthentic") == 1


@every_suite
def test_a_master_key_identifier_chooses_the_key_and_is_taken_off(suite: CryptoSuite) -> None:
    """REQ: RFC 3711 section 3.1: the MKI stands before the tag; RFC 7714 section 8.2: behind it."""
    keys = [sender(suite, mki=bytes([0, number]), seed=number) for number in range(4)]
    stranger = sender(suite, mki=b"\0\x09", seed=1)
    to = line(*keys[:3])
    take(to, *(sealed(keys[number % 3], number) for number in range(12)), sealed(stranger, 12), sealed(keys[3], 12))
    assert left(to) == expected(*range(12))
    assert to.counted("unauthentic") == 2


@every_suite
def test_several_senders_share_a_line(suite: CryptoSuite) -> None:
    """Telephone events of another SSRC are opened under a counter of their own, and suppressed like plain ones."""
    by = sender(suite)
    to = line(by)
    take(
        to,
        *(sealed(by, number) for number in range(65_530, 65_540)),
        *(by.protect(packet(number, b"\x05\x0a\x01\x40", ssrc=9, payload_type=101)) for number in range(3)),
        *(sealed(by, number) for number in range(65_540, 65_550)),
    )
    assert left(to) == expected(*range(65_530, 65_550))
    assert to.counted("events_suppressed") == 3
    assert to.counted("unauthentic") == 0


@pytest.mark.parametrize("kind", range(192, 224))
def test_rtcp_is_told_from_srtp_and_left_alone(kind: int) -> None:
    """REQ: RFC 5761 section 4: a second byte of 192 to 223 is RTCP's; SRTCP does not hide it."""
    by = sender()
    to = line(by)
    report = bytes([0x81, kind, 0, 7]) + bytes(range(40))
    take(to, sealed(by, 1), report, sealed(by, 2), report[:8])
    assert left(to) == expected(1, 2)
    assert (to.counted("rtcp"), to.counted("unauthentic"), to.counted("malformed")) == (2, 0, 0)


@every_suite
@pytest.mark.parametrize("first", [1 << 16, (1 << 16) + 65_530, (40 << 16) - 3, (64 << 16) + 5])
def test_a_stream_that_is_joined_late_loses_no_packet(suite: CryptoSuite, first: int) -> None:
    """Its roll-over counter is found with the first packet, and goes on from there."""
    by = sender(suite)
    to = line(by)
    for start in range(first, first + 45, 15):
        take(to, *(sealed(by, number) for number in range(start, start + 15)), at_us=START_US + start - first)
    assert left(to) == expected(*range(first, first + 45))
    assert to.counted("unauthentic") == 0


@every_suite
@pytest.mark.parametrize("later", [5_000, 40_000, 70_000, 200_000, 65_536 * 30 + 9_000])
def test_a_hold_of_any_length_loses_no_packet(suite: CryptoSuite, later: int) -> None:
    by = sender(suite)
    to = line(by)
    take(to, *(sealed(by, number) for number in range(60_000, 60_010)))
    before = left(to)
    after = range(60_000 + later, 60_000 + later + 10)
    take(to, *(sealed(by, number) for number in after), at_us=START_US + later * 20 * MS)
    assert before + left(to) == expected(*range(60_000, 60_010), *after)


def test_searching_has_a_bound_and_goes_on_after_it() -> None:
    """Who floods a line keeps a sender that rolled over from being found, but only for as long as they flood."""
    by, attacker = sender(), sender(seed=9)
    to = line(by)
    take(to, *(sealed(attacker, number) for number in range(SEARCHES)))
    take(to, sealed(by, (1 << 16) + 1))
    take(to, sealed(by, (1 << 16) + 2), at_us=START_US + SEARCH_EVERY_US)
    take(to, sealed(by, (1 << 16) + 3), at_us=START_US + SEARCH_EVERY_US)
    assert left(to) == expected((1 << 16) + 2, (1 << 16) + 3)
    assert to.counted("unauthentic") == SEARCHES + 1


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time in microseconds of each search: what is counted is the work, the search itself is the real one."""
    done: list[int] = []
    search = CryptoContext.open_at_any_roc

    def counted(context: CryptoContext, data: bytes, address: int) -> tuple[int, int]:
        done.append(len(done))
        return search(context, data, address)

    monkeypatch.setattr(CryptoContext, "open_at_any_roc", counted)
    return done


def test_a_stream_under_unknown_keys_is_searched_less_and_less(searches: list[int]) -> None:
    """Ten minutes of it cost no more than some tens of searches; a sender that is found makes up for all that."""
    by, stranger = sender(), sender(seed=9)
    to = line(by)
    for second in range(600):
        take(
            to, *(sealed(stranger, 50 * second + number) for number in range(10)), at_us=START_US + 1_000 * MS * second
        )
    assert SEARCHES < len(searches) <= SEARCHES * 16
    at_us = START_US + 600_000 * MS + LONGEST_REST_US
    take(to, sealed(by, (1 << 16) + 1), at_us=at_us)
    assert left(to) == expected((1 << 16) + 1)
    searches.clear()
    take(to, *(sealed(stranger, number) for number in range(10)), at_us=at_us + 40 * MS)
    assert len(searches) == SEARCHES


def test_another_key_is_searched_for_at_once() -> None:
    """Whatever was refused under the one before it."""
    by, stranger = sender(seed=1), sender(seed=9)
    to = line(sender())
    for second in range(100):
        take(to, *(sealed(stranger, number) for number in range(10)), at_us=START_US + 1_000 * MS * second)
    to.intake.srtp.set_keys(to.row, [by.spec])
    take(to, sealed(by, (1 << 16) + 1), at_us=START_US + 100_000 * MS)
    assert left(to) == expected((1 << 16) + 1)


def test_all_streams_together_are_searched_within_a_bound(searches: list[int]) -> None:
    """An SBC that protects every stream under keys which it never told keeps nobody else from being heard."""
    rows, stranger = 200, sender(seed=9)
    unprotector = srtp.Unprotector(rows)
    for row in range(rows):
        unprotector.set_keys(row, [sender().spec])
    batch, buffer = received(
        [Arrival(row, sealed(stranger, number), START_US) for row in range(rows) for number in (1, 2)]
    )
    for second in range(3):
        searches.clear()
        at_us = np.full(batch.offset.size, START_US + second * SEARCH_EVERY_US)
        verdict, _ = unprotector.open(batch.member, batch.offset, batch.length, at_us, buffer)
        assert (verdict == srtp.FORGED).all()
        assert 0 < len(searches) <= SEARCHES_OF_ALL


def test_copies_of_what_was_opened_are_not_searched_for(searches: list[int]) -> None:
    """A network that doubles every packet costs no search."""
    by = sender()
    to = line(by)
    take(to, *(sealed(by, number) for number in range(20)), *(sealed(by, number) for number in range(20)))
    assert to.counted("replayed") == 20
    assert searches == []


def test_a_stream_without_keys_any_more_is_plain_again() -> None:
    by = sender()
    to = line(by)
    take(to, sealed(by, 1))
    to.intake.srtp.set_keys(to.row, [])
    to.intake.expect_change(to.row, START_US)
    take(to, plain(2), at_us=START_US + 20 * MS)
    assert left(to) == expected(1, 2)


def test_protected_and_plain_streams_share_a_drain() -> None:
    """Lengths and order of the neighbours stay what they are."""
    by = sender("AEAD_AES_128_GCM")
    to = line(by)
    neighbour = 2
    to.intake.open_row(neighbour)
    to.intake.explain(neighbour, [(8, "PCMA")])
    to.intake.keep_from_us[neighbour], to.intake.keep_until_us[neighbour] = 0, EVER
    take_both(to, [sealed(by, 1), sealed(by, 2), b"\x80"], [plain(7), plain(8)], neighbour)
    assert left(to) == expected(1, 2)
    assert to.intake.counters.of(neighbour)["stored"] == 2
    assert to.counted("malformed") == 1


def take_both(to: Line, mine: Sequence[bytes], others: Sequence[bytes], neighbour: int) -> None:
    arrivals = [Arrival(0, data, START_US) for data in mine] + [Arrival(1, data, START_US) for data in others]
    batch, buffer = received(arrivals)
    rows = np.array([to.row, neighbour])[batch.member]
    to.intake.take(rows, batch, batch.stamp_us, buffer)


def test_keys_of_a_line_are_gone_when_it_is_closed() -> None:
    by = sender()
    to = line(by)
    contexts = [context for keys in to.intake.srtp._keys.values() for context in keys.current]
    to.intake.close_row(to.row)
    assert len(contexts) == 1
    assert not contexts[0].is_of(by.spec)
    assert not to.intake.srtp.is_used
