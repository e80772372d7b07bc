"""From signalling and audio to the index: parties, channels, figures; and nothing personal outside the metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dualtone.domain import call_session, canonical
from dualtone.domain.audio.reception import Reception
from dualtone.domain.call_files import Manifest, StreamStatistics
from dualtone.domain.direction import Direction
from dualtone.usecases import describe_recording
from dualtone.usecases.plan_silence import GapOnTimeline
from dualtone.usecases.render_audio import Rendering
from tests.call_samples import AGENT, ANSWERED_US, CALL, CALLEE, CALLER, TENANT, session, stream_entry


def told(**changes: Any) -> call_session.CallSession:
    return call_session.parse(canonical.encode(session() | changes))


def manifest(*statistics: StreamStatistics, streams: int = 2) -> Manifest:
    return Manifest(
        tenant=TENANT,
        agent=AGENT,
        call=CALL,
        generation=1,
        epochs=[],
        parts=[],
        streams=[stream_entry(stream, str(stream)) for stream in range(streams)],
        answered_at_us=ANSWERED_US,
        ended_at_us=ANSWERED_US + 10_000_000,
        end_reason="bye",
        gaps=[],
        statistics=list(statistics),
        flags=[],
        version="test",
    )


def received(numbers: list[int]) -> Reception:
    reception = Reception()
    reception.sequence(1, np.array(numbers, np.uint16), np.array(numbers) * 160)
    return reception


def rendering(channel_of: dict[int, int], reception: dict[int, Reception]) -> Rendering:
    return Rendering(
        header_pages=b"",
        pages=(),
        started_at_us=ANSWERED_US,
        duration_ms=10_000,
        channel_of=channel_of,
        reception=reception,
        silence_ratio=(0.25, 1 / 3),
        one_sided=(False, False),
        gaps=(
            GapOnTimeline(0, 1000, 2000, "inactive"),
            GapOnTimeline(1, 1000, 2000, "damaged"),
            GapOnTimeline(2, 1000, 2000, "inactive"),
        ),
        pauses=(),
        flags=frozenset(),
    )


@pytest.mark.parametrize(
    ("lines", "direction"),
    [
        ([CALLER], Direction.OUTBOUND),
        ([CALLEE], Direction.INBOUND),
        ([CALLER, "+1415555????"], Direction.INTERNAL),
        ([], Direction.UNKNOWN),
    ],
)
def test_direction(lines: list[str], direction: Direction) -> None:
    """Seen from the tenant's lines."""
    assert describe_recording.direction(told(), lines) is direction


def test_numbers_are_indexed_once_each() -> None:
    """A party without a number is not."""
    parties = [{"aor": f"sip:{CALLER}@a"}, {"aor": f"tel:{CALLER}"}, {"aor": "sip:anonymous@b"}, {}]
    assert describe_recording.numbers(told(participants=parties)) == [CALLER]


def test_the_metadata_holds_who_took_part() -> None:
    """As the API opens it for whoever may know."""
    metadata = describe_recording.metadata(told(), [])
    assert [party["number"] for party in metadata["participants"]] == [CALLER, CALLEE]
    assert metadata["groups"] == ["group-1"]
    assert canonical.decode(canonical.encode(metadata)) == metadata


def test_suppressed_events_and_duplicates_of_the_ring_are_counted_as_what_they_are() -> None:
    """Five numbers missing, three of which were telephone events that the agent never kept."""
    statistics = StreamStatistics(0, 95, 4, 0, 0, 0, 3)
    made = rendering({0: 0, 1: 1}, {0: received([*range(50), *range(55, 100)]), 1: Reception()})
    first, second = describe_recording.quality(manifest(statistics, StreamStatistics(1, 1, 0, 0, 0, 0, 0)), made)
    assert (first.packets, first.lost, first.duplicates, first.silence_ratio) == (95, 2, 4, 0.25)
    assert (second.packets, second.lost, second.silence_ratio) == (0, 0, 0.3333)


def test_streams_that_share_a_channel_are_listed_and_added_up() -> None:
    """Three streams on two channels: three entries, one figure a channel, one gap of a kind."""
    statistics = [StreamStatistics(stream, 10, 0, 0, 0, 0, 0) for stream in range(3)]
    made = rendering({0: 0, 1: 1, 2: 0}, {stream: received(list(range(10))) for stream in range(3)})
    call = manifest(*statistics, streams=3)
    listed = describe_recording.channel_list(call, told(), made)
    assert [(channel.channel, channel.label) for channel in listed] == [(0, "0"), (0, "2"), (1, "1")]
    assert [channel.packets for channel in describe_recording.quality(call, made)] == [20, 10]
    assert [(gap.channel, gap.cause) for gap in describe_recording.gaps(made, ())] == [(0, "inactive"), (1, "damaged")]


def test_streams_that_never_sent_are_not_heard() -> None:
    """Of three m-lines, the one that stayed silent takes no channel; of two, both are shown whatever they sent."""
    statistics = [StreamStatistics(stream, 7 * (stream != 1), 0, 0, 0, 0, 0) for stream in range(3)]
    listed = describe_recording.channel_list(manifest(*statistics, streams=3), told(), rendering({0: 0, 2: 1}, {}))
    assert [channel.label for channel in listed] == ["0", "2"]
    both = describe_recording.channel_list(manifest(statistics[0]), told(), rendering({0: 0, 1: 1}, {}))
    assert [channel.label for channel in both] == ["0", "1"]


def test_flags_are_a_sorted_set() -> None:
    """From whoever noticed something."""
    assert describe_recording.flags(["b"], ("a", "b"), {"c"}) == ("a", "b", "c")


@pytest.mark.parametrize("apart_ms", [1, 5000], ids=["close", "far apart"])
def test_more_gaps_than_the_index_can_hold_are_joined(apart_ms: int) -> None:
    """Every millisecond of a gap stays within one of its channel and cause; the item stays small enough to commit."""
    length = 200
    many = [
        GapOnTimeline(stream, at * (length + apart_ms), at * (length + apart_ms) + length, "damaged")
        for at in range(6000)
        for stream in (0, 1)
    ]
    base = rendering({0: 0, 1: 1}, {0: received([1]), 1: received([1])})
    joined = describe_recording.gaps(replace(base, gaps=tuple(many)), ())
    assert 0 < len(joined) <= describe_recording.MOST_GAPS
    for gap in (many[0], many[1], many[6001], many[-1]):
        held = [one for one in joined if one.channel == gap.stream and one.from_ms <= gap.from_ms <= one.to_ms]
        assert [one.to_ms >= gap.to_ms for one in held] == [True]
    few = replace(base, gaps=tuple(many[:100]))
    assert len(describe_recording.gaps(few, ())) == 100


KEPT = {
    "version": 3,
    "rule": "hotline",
    "record": "consent",
    "basis": "consent",
    "decision": "keep",
    "how": "dtmf",
    "at_us": ANSWERED_US,
    "by": "",
}
YES = {"choice": "accept", "how": "dtmf", "at_us": ANSWERED_US, "by": ""}
NO = {"choice": "decline", "how": "api", "at_us": ANSWERED_US + 5, "by": "person:b0b"}


def test_a_recording_names_its_line_and_why_it_is_kept() -> None:
    """The tenant's own numbers, the rule with its basis, and every choice in the order of time."""
    sealed = describe_recording.metadata(told(policy=KEPT, consents=[NO, YES]), [CALLER])
    assert sealed["lines"] == [CALLER]
    assert sealed["policy"] == KEPT
    assert sealed["consents"] == [YES, NO]
    kept = describe_recording.kept_by(told(policy=KEPT))
    assert kept is not None
    assert (kept.rule, kept.version) == ("hotline", 3)


@pytest.mark.parametrize(
    "policy", [{}, KEPT | {"rule": "+442079460123"}, KEPT | {"basis": "whim"}, KEPT | {"more": 1}, {"rule": "hotline"}]
)
def test_what_has_another_form_is_no_evidence(policy: dict[str, Any]) -> None:
    """A record that an agent did not write as it must costs what it said of the policy, never the recording."""
    spoilt = told(policy=policy, consents=[YES | {"choice": "perhaps"}, YES])
    assert describe_recording.kept_by(spoilt) is None
    assert describe_recording.metadata(spoilt, [])["policy"] == {}
    assert describe_recording.metadata(spoilt, [])["consents"] == [YES]
