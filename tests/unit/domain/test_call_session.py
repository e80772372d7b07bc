"""SESSION records: lenient in everything but being JSON objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import call_session, canonical
from dualtone.domain.call_session import CallSession, SessionMedia
from dualtone.domain.errors import MalformedInput
from tests.call_samples import CALLER, SIP_CALL_ID, session


def parse(value: object) -> CallSession:
    return call_session.parse(canonical.encode(value))


def test_who_speaks_on_which_stream() -> None:
    """Label, sender and role, as the metadata ties them together."""
    told = parse(session(labels=("10", "20")))
    assert told.sip_call_id == SIP_CALL_ID
    assert told.sip_session_ids == ("cs-1@pbx.invalid",)
    assert [told.sender(label) for label in ("10", "20", "30", "")] == [0, 1, None, None]
    assert [told.role(label) for label in ("10", "20", "30")] == ["caller", "callee", "unknown"]
    assert told.participants[0].aor == f"sip:{CALLER}@pbx.invalid"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"participants": None, "streams": "none", "sessions": 7, "groups": [{"group_id": "g"}, "h", 3, None]},
        {"participants": [{}, {"role": "boss"}, 5], "streams": [{}, {"label": 1}]},
        {"sip_call_id": None, "user_agent": 5, "flags": ["a", 7], "extensions": []},
    ],
)
def test_what_is_missing_or_odd_is_empty(value: dict[str, Any]) -> None:
    """Nothing is refused for its metadata."""
    told = parse(value)
    assert told.sip_call_id == ""
    assert told.role("1") == "unknown"
    assert {participant.role for participant in told.participants} <= {"unknown"}


def test_a_stream_sent_by_nobody_known_is_unknown() -> None:
    """Two streams and a sender id that no participant has."""
    told = parse(session() | {"participants": []})
    assert (told.sender("1"), told.role("1")) == (None, "unknown")


def test_nothing_of_it_shows_in_a_representation() -> None:
    """A log line or a traceback that prints it tells no number, no name and no Call-ID."""
    said = repr(parse(session()))
    for secret in (CALLER, "Alice", SIP_CALL_ID, "cs-1@"):
        assert secret not in said


@given(st.binary(max_size=200))
def test_only_malformed_input_gets_out(data: bytes) -> None:
    """Any bytes at all."""
    try:
        call_session.parse(data)
    except MalformedInput:
        return


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"a":1.5}', b'{"a":1,"a":2}'])
def test_no_object(data: bytes) -> None:
    """Other JSON, and what is none."""
    with pytest.raises(MalformedInput):
        call_session.parse(data)


def test_the_streams_as_negotiated() -> None:
    """What cannot be a stream or a format of one is left out: the record is a claim of the agent's, not a promise."""
    alaw = {"payload_type": 8, "codec": "PCMA", "clock_hz": 8000, "channels": 1}
    told = {
        "media": [
            {
                "stream": 0,
                "label": "1",
                "formats": [alaw, {**alaw, "payload_type": 300}, {**alaw, "clock_hz": True}, 7],
            },
            {"stream": -1, "label": "2", "formats": []},
            {"stream": 1},
            "nothing",
        ]
    }
    found = call_session.parse(canonical.encode(told)).media
    assert found == (SessionMedia(0, "1", ((8, "PCMA", 8000, 1),)), SessionMedia(1, "", ()))


def test_what_runs_of_an_agent_were_told_is_one_call() -> None:
    """A later run knows the Call-ID at first, then what changed: nothing that was told before is lost."""
    first = parse(session(labels=("10", "20")) | {"user_agent": "SBC", "groups": ["g"], "flags": ["odd"]})
    blank = parse({"sip_call_id": SIP_CALL_ID, "flags": ["odd"]})
    assert call_session.merged([first, blank]) == first
    corrected = parse(
        {
            "sip_call_id": SIP_CALL_ID,
            "flags": ["odd", "late"],
            "sessions": [{"session_id": "session-2", "sip_session_id": "cs-2@pbx.invalid"}],
            "groups": ["g", "h"],
            "participants": [
                {"participant_id": first.participants[1].participant_id, "aor": "sip:carol@pbx.invalid", "name": ""},
                {"participant_id": "third", "aor": "sip:dave@pbx.invalid"},
            ],
            "streams": [{"label": "20", "stream_id": None, "participant_id": None}, {"label": "30"}],
            "extensions": {"ucid": "7"},
            "media": [{"stream": 0, "label": "10", "formats": []}],
        }
    )
    told = call_session.merged([first, blank, corrected])
    assert told.user_agent == "SBC"
    assert told.flags == ("odd", "late")
    assert told.session_ids == ("session-1", "session-2")
    assert told.sip_session_ids == ("cs-1@pbx.invalid", "cs-2@pbx.invalid")
    assert told.groups == ("g", "h")
    assert [party.aor for party in told.participants] == [
        f"sip:{CALLER}@pbx.invalid",
        "sip:carol@pbx.invalid",
        "sip:dave@pbx.invalid",
    ]
    assert told.participants[1].name == first.participants[1].name
    assert [told.role(label) for label in ("10", "20", "30")] == ["caller", "callee", "unknown"]
    assert told.extensions == first.extensions | {"ucid": "7"}
    assert told.media == (SessionMedia(0, "10", ()),)


def test_what_was_chosen_is_kept_over_a_restart() -> None:
    """Choices of all runs are together, each once; the policy is the last that was told."""
    yes, no = ({"choice": choice, "how": "dtmf", "at_us": 1, "by": ""} for choice in ("accept", "decline"))
    rule = {"version": 3, "rule": "hotline"}
    before = parse({"policy": rule, "consents": [yes]})
    told = call_session.merged([before, parse({}), parse({"consents": [yes, no]})])
    assert told.policy == rule
    assert told.consents == (yes, no)
    assert call_session.merged([before, parse({"policy": {"rule": "default"}})]).policy == {"rule": "default"}


def test_parties_without_an_id_are_told_apart_by_their_address() -> None:
    """SBCs leave ids out: two such parties are not one."""
    parties = [{"aor": "sip:a@pbx.invalid"}, {"aor": "sip:b@pbx.invalid"}]
    told = parse({"participants": parties})
    assert call_session.merged([told, told]).participants == told.participants


_STREAM = st.fixed_dictionaries({}, optional={"label": st.sampled_from(["1", "2", ""]), "participant_id": st.just("A")})
_PARTY = st.fixed_dictionaries({}, optional={"participant_id": st.sampled_from(["A", "B"]), "aor": st.just("sip:a@h")})
_RECORD = st.fixed_dictionaries(
    {},
    optional={
        "groups": st.lists(st.text(max_size=2)),
        "streams": st.lists(_STREAM, max_size=3),
        "participants": st.lists(_PARTY, max_size=3),
    },
)


@given(st.lists(_RECORD, min_size=1, max_size=4))
def test_one_record_is_itself_and_a_word_twice_is_one_word(records: list[dict[str, Any]]) -> None:
    """A call without a restart is as it was told; the last word again changes nothing."""
    told = [parse(record) for record in records]
    assert call_session.merged(told[:1]) == told[0]
    twice = call_session.merged([*told, told[-1]])
    assert call_session.merged([*told, told[-1], told[-1]]) == twice
