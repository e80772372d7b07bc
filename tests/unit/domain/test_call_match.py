"""Match tokens: what a call is known by, and that it is known by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain import call_match, call_session
from dualtone.domain.call_match import MOST_TOKENS, MatchKind, links, of_session, seal, token, unseal
from dualtone.domain.call_session import CallSession
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import CallId, TenantId
from tests.call_samples import CALL, CALLER, SIP_CALL_ID, TENANT, session

KEY = bytes(range(32))
NONCE = b"n" * 12


def facts(**extensions: str) -> dict[str, Any]:
    return session() | {"extensions": extensions}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("dialog", SIP_CALL_ID),
        ("call_id", "cs-1@pbx.invalid"),
        ("extension", CALLER),
        ("extension", "tel:+44 (20) 7946-0123"),
        ("extension", f"sip:{CALLER}@elsewhere.invalid;user=phone"),
    ],
)
def test_a_call_is_found_by_what_metadata_says(kind: str, value: str) -> None:
    """Whatever the spelling, the token is one of the session's."""
    assert token(KEY, kind, value) in of_session(KEY, facts())


@pytest.mark.parametrize(
    ("name", "vendor", "kind", "value"),
    [
        ("Oracle's UCID", {"ucid": "00FA080018803B69810C6D;encoding=hex"}, "ucid", "0018803B69810C6D"),
        ("the same, lower case", {"ucid": "00FA080018803B69810C6D"}, "ucid", "0018803b69810c6d"),
        ("the same as a switch prints it", {"ucid": "0018803B69810C6D"}, "ucid", "00024328271770065005"),
        ("Avaya's UUI", {"User-to-User": "04FA080018803B69810C6D;encoding=hex"}, "ucid", "0018803B69810C6D"),
        ("AudioCodes", {"X-audc-call-id": "4dbdf6d80000"}, "call_id", "4DBDF6D80000"),
        ("a header that the SBC copies", {"header:Call-ID": "a@b, c@d"}, "call_id", "c@d"),
        ("BroadWorks", {"callID": "callhalf-828525:0"}, "call_id", "callhalf-828525:0"),
        ("Session-ID, ours", {"Session-ID": "ab30317f1a784dc4;remote=47755a9de7794ba3"}, "call_id", "ab30317f1a784dc4"),
        (
            "Session-ID, theirs",
            {"Session-ID": "ab30317f1a784dc4;remote=47755a9de7794ba3"},
            "call_id",
            "47755A9DE7794BA3",
        ),
        ("Cisco NBR", {"X-Cisco-Recording-Participant": "sip:2001@cucm.invalid;mediaindex=0"}, "extension", "2001"),
        ("any vendor's value", {"extTrackingID": "B7/x="}, "external_id", "B7/x="),
    ],
)
def test_vendors_names(name: str, vendor: dict[str, str], kind: str, value: str) -> None:
    """Names that real switches give a call."""
    assert token(KEY, kind, value) in of_session(KEY, facts(**vendor)), name


def test_a_vendors_value_of_a_party_counts() -> None:
    """Values under a participant are found too."""
    said = session()
    said["participants"][0]["extensions"] = {"agentId": "agent-77"}
    assert token(KEY, "external_id", "agent-77") in of_session(KEY, said)


@pytest.mark.parametrize("name", ["callingPartyNumber", "X-Cisco-Recording-Participant", "RecordedParty"])
def test_a_partys_number_is_no_name_of_a_call(name: str) -> None:
    """What is for one call alone, such as a choice, cannot name a line in the guise of a vendor's value."""
    said = facts(**{name: "sip:2001@cucm.invalid"})
    assert token(KEY, "extension", "2001") in of_session(KEY, said)
    assert not {token(KEY, "external_id", value) for value in ("2001", "sip:2001@cucm.invalid")} & of_session(KEY, said)


def test_tokens_tell_nothing() -> None:
    """Another tenant, another kind, another value: another token, of the one form."""
    mine = token(KEY, MatchKind.CALL_ID, "x@y")
    assert call_match.TOKEN.fullmatch(mine)
    assert mine != token(bytes(32), MatchKind.CALL_ID, "x@y")
    assert mine != token(KEY, MatchKind.EXTERNAL_ID, "x@y")
    assert mine != token(KEY, MatchKind.CALL_ID, "X@y")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("call_id", " "),
        ("call_id", "a\nb"),
        ("extension", "anonymous"),
        ("ucid", "12"),
        ("number", "1"),
        ("ucid", "x" * 2000),
    ],
)
def test_what_names_no_call_is_refused(kind: str, value: str) -> None:
    """The message never repeats the value."""
    with pytest.raises(MalformedInput) as refusal:
        token(KEY, kind, value)
    assert refusal.value.http_status == 422
    assert value.strip()[:40] not in str(refusal.value) or len(value.strip()) < 3


def test_too_many_names_lose_the_least_telling() -> None:
    """64 tokens at most, the Call-ID among them."""
    found = of_session(KEY, facts(**{f"value{index}": f"v-{index}" for index in range(200)}))
    assert len(found) == MOST_TOKENS
    assert token(KEY, "call_id", "cs-1@pbx.invalid") in found


@given(st.dictionaries(st.text(), st.none() | st.text() | st.lists(st.dictionaries(st.text(), st.text()))))
def test_odd_facts_are_no_error(odd: dict[str, Any]) -> None:
    """A call is never refused for its metadata, half a surrogate included."""
    assert len(of_session(KEY, {**odd, "sip_call_id": "\ud800", "extensions": {"a": "\udfff"}})) <= MOST_TOKENS


def test_parties_open_for_their_call_only() -> None:
    """Tenant and call are part of the seal."""
    sealed = seal(KEY, TENANT, CALL, facts(), NONCE)
    assert CALLER.encode() not in sealed
    assert unseal(KEY, TENANT, CALL, sealed)[0] == {
        "role": "caller",
        "aor": f"sip:{CALLER}@pbx.invalid",
        "name": "Alice Example",
    }
    for tenant, call, data in [
        (TenantId("other"), CALL, sealed),
        (TENANT, CallId("01JD00000000000000000CA111"), sealed),
        (TENANT, CALL, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (TENANT, CALL, b""),
    ]:
        with pytest.raises(IntegrityError):
            unseal(KEY, tenant, call, data)


def test_a_key_of_another_size_is_a_fault_of_ours() -> None:
    """Not of the caller."""
    with pytest.raises(ValueError, match="32 bytes"):
        token(b"short", "call_id", "a")


def dialog(name: str, **extensions: str) -> CallSession:
    """A dialog whose metadata names call and group as no other does."""
    ids = {
        "sip_call_id": f"{name}@sbc.invalid",
        "sessions": [{"session_id": f"session {name}", "sip_session_id": f"{name}@pbx.invalid"}],
        "groups": [name],
    }
    return call_session.from_facts(session() | ids | {"extensions": extensions})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"ucid": "00FA080018803B69810C6D"}, {"ucid": "0018803B69810C6D"}, id="UCID"),
        pytest.param({"Cisco-Guid": "0123456789-0012345678"}, {"Cisco-Guid": "0123456789-0012345678"}, id="Cisco"),
        pytest.param({"extTrackingID": "B7/x="}, {"extTrackingID": "B7/x="}, id="BroadWorks"),
        pytest.param({"x-refci": "27298698"}, {"x-refci": "27298698"}, id="Cisco's telephone: near and far end"),
        pytest.param(
            {"x-refci": "27298698", "x-farendrefci": "27298699"},
            {"x-refci": "27298699", "x-farendrefci": "27298698"},
            id="Cisco's telephones at both ends",
        ),
        pytest.param({"gcid": "4711.0815"}, {"gcid": "4711.0815"}, id="Ribbon"),
        pytest.param({"Session-ID": "aa11;remote=bb22"}, {"Session-ID": "bb22;remote=aa11"}, id="Session-ID"),
    ],
)
def test_dialogs_of_one_call_share_a_link(one: dict[str, str], other: dict[str, str]) -> None:
    """Whatever ids else a dialog has."""
    assert set(links(KEY, dialog("one", **one))) & set(links(KEY, dialog("two", **other)))


def test_two_sbcs_that_name_one_communication_session_share_a_link() -> None:
    """As a session that is forked to two recorders does."""
    assert set(links(KEY, dialog("one", ucid="0018803B69810C6D"))) & set(links(KEY, dialog("one")))


def test_a_dialog_that_replaces_another_shares_a_link() -> None:
    """As Ribbon's does when a call is transferred."""
    before = call_session.from_facts({"sip_call_id": "old@sbc"})
    after = call_session.from_facts(
        {"sip_call_id": "new@sbc", "extensions": {"Replaces": "old@sbc;to-tag=a;from-tag=b"}}
    )
    assert set(links(KEY, before)) & set(links(KEY, after))


@pytest.mark.parametrize("extensions", [{"groupID": "G1"}, {"groupSeq": "2"}], ids=["BroadWorks", "NetSapiens"])
def test_what_unrelated_calls_share_links_nothing(extensions: dict[str, str]) -> None:
    """An enterprise's group, a number within a group."""
    assert not set(links(KEY, dialog("one", **extensions))) & set(links(KEY, dialog("two", **extensions)))


def test_a_partys_number_links_nothing() -> None:
    """Two calls of one telephone, alike in all but their ids, are two calls."""
    assert not set(links(KEY, dialog("one"))) & set(links(KEY, dialog("two")))


def test_a_side_that_is_not_known_yet_links_nothing() -> None:
    """RFC 7989 section 5: half of all calls that begin have the nil UUID as their other side."""
    one, two = (dialog(name, **{"Session-ID": f"{name};remote={'0' * 32}"}) for name in ("aa11", "bb22"))
    assert not set(links(KEY, one)) & set(links(KEY, two))
