"""The lines of INTEROP, and which test shows each.

A case is a test, or an entry of a table, that names the lines which it shows. Lines of what is not SIP are shown by the
tests of the process that does it: `ELSEWHERE` names them.
"""

import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

_ROOT: Final = Path(__file__).parents[4]
_TABLE: Final = _ROOT / "tests" / "vectors" / "interop" / "lines.toml"

LINES: Final[dict[str, str]] = {
    line: text for chapter in tomllib.loads(_TABLE.read_text("utf-8")).values() for line, text in chapter.items()
}
SHOWN: Final[defaultdict[str, set[str]]] = defaultdict(set)

_MEDIA: Final = "tests/agent/media"
_AUDIO: Final = "tests/unit/domain/audio"
# Line to tests, for what the media process, the runtime and the cloud do.
ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "K1d": (
        f"{_MEDIA}/test_srtp.py::test_a_master_key_identifier_chooses_the_key_and_is_taken_off",
        f"{_MEDIA}/test_srtp_calls.py::test_what_is_sealed_of_srtp_is_what_is_sealed_of_rtp",
    ),
    "K2b": (
        f"{_MEDIA}/test_srtp.py::test_packets_under_the_old_key_that_come_after_its_change_are_kept",
        f"{_MEDIA}/test_srtp_calls.py::test_a_key_that_changes_in_mid_call_costs_no_packet",
    ),
    "K2c": (
        f"{_MEDIA}/test_srtp.py::test_a_hold_of_any_length_loses_no_packet",
        f"{_MEDIA}/test_srtp_context.py::test_a_sender_that_rolled_over_while_it_was_not_heard_is_found",
    ),
    "M1a": ("tests/agent/runtime/test_recorder.py::test_a_call_is_told_from_begin_to_end",),
    "M1b": (
        f"{_MEDIA}/test_intake.py::test_another_source_is_foreign_while_the_first_is_heard",
        f"{_MEDIA}/test_intake.py::test_probation_needs_packets_of_one_source_in_a_row",
        f"{_MEDIA}/test_srtp.py::test_who_has_the_key_may_send_from_anywhere",
    ),
    "M2a": (
        f"{_AUDIO}/test_placement.py::test_a_late_first_packet_does_not_shift_the_stream",
        f"{_AUDIO}/test_timeline.py::test_legs_stay_in_time_when_one_clock_is_off",
    ),
    "M2b": (
        f"{_AUDIO}/test_placement.py::test_silence_suppression_keeps_its_length",
        f"{_AUDIO}/test_placement.py::test_a_hold_with_standing_timestamps_keeps_its_length",
        f"{_AUDIO}/test_timeline.py::test_comfort_noise_and_events_are_silence",
        f"{_AUDIO}/test_timeline.py::test_an_hour_of_nothing_is_an_hour_of_silence",
    ),
    "M2c": (
        f"{_MEDIA}/test_intake.py::test_an_ssrc_change_of_the_locked_source_is_taken_at_once",
        f"{_AUDIO}/test_placement.py::test_a_restarted_clock_is_followed",
    ),
    "M2d": (
        f"{_MEDIA}/test_ring.py::test_the_packet_time_may_change_in_mid_call",
        f"{_AUDIO}/test_timeline.py::test_packet_times",
    ),
    "M2e": (f"{_AUDIO}/test_reception.py::test_sources_count_by_themselves",),
    "M3a": ("tests/agent/runtime/test_port_pool.py::test_a_port_rests_for_32_s_and_until_the_media_process_lets_go",),
    "M3c": (f"{_MEDIA}/test_engine.py::test_a_call_without_media_still_leaves_a_record_and_an_alarm",),
    "C3a": (f"{_MEDIA}/test_engine.py::test_drain_ends_calls_and_waits_for_the_hold_back",),
    "X2b": (f"{_MEDIA}/test_intake.py::test_a_source_is_believed_at_once_after_a_re_invite",),
    "X4b": (f"{_MEDIA}/test_engine.py::test_an_inactive_stream_keeps_nothing_and_says_so",),
    "X5b": (f"{_MEDIA}/test_engine.py::test_packets_before_the_answer_and_after_the_end_are_dropped",),
    "X7a": (
        f"{_MEDIA}/test_intake.py::test_two_ssrcs_that_take_turns_are_both_kept",
        f"{_MEDIA}/test_engine.py::test_telephone_events_never_reach_the_files",
    ),
    "X7b": (f"{_AUDIO}/test_timeline.py::test_captured_streams_are_laid_out_sample_for_sample",),
}

_T = TypeVar("_T")


def shows(*lines: str) -> Callable[[_T], _T]:
    """Says of a test which lines it shows."""

    def noted(test: _T) -> _T:
        note(lines, getattr(test, "__name__", ""))
        return test

    return noted


def note(lines: Iterable[str], case: str) -> None:
    """Says of a case by which name it shows these lines."""
    for line in lines:
        assert line in LINES, f"INTEROP has no line {line}"
        SHOWN[line].add(case)


def exists(test: str) -> bool:
    """Whether `path::name` is a test of this repository."""
    path, _, name = test.partition("::")
    file = _ROOT / path
    return file.is_file() and f"def {name}(" in file.read_text("utf-8")
