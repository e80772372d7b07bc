"""Recording metadata: RFC 7865 and what SRCs make of it."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import metadata, xml_tree
from sbc_agent.protocol.metadata import FLAG_METADATA_MALFORMED, Metadata
from sbc_agent.protocol.recording_session import MAX_REMEMBERED, RecordingSession
from tests.agent.protocol.builders import METADATA, sample


def facts(*documents: bytes | str) -> dict[str, list[dict[str, object]]]:
    """What is known after these documents."""
    state = RecordingSession()
    for document in documents:
        state = state.merged(metadata.read(document.encode() if isinstance(document, str) else document))
    found: dict[str, list[dict[str, object]]] = state.facts()
    return found


def speakers(found: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    """Label to the AOR of who sends that stream."""
    people = {person["participant_id"]: person["aor"] for person in found["participants"]}
    return {stream["label"]: people.get(stream["participant_id"]) for stream in found["streams"]}


def recording(
    inner: str, root: str = "recording", attributes: str = "xmlns='urn:ietf:params:xml:ns:recording:1'"
) -> str:
    return f"<{root} {attributes}>{inner}</{root}>"


PEOPLE = (
    "<participant participant_id='A'><nameID aor='sip:a@h'/></participant>"
    "<participant participant_id='B'><nameID aor='sip:b@h'/></participant>"
)
STREAMS = "<stream stream_id='X'><label>1</label></stream><stream stream_id='Y'><label>2</label></stream>"
OLD_STREAMS = "<stream id='X'><label>1</label></stream><stream id='Y'><label>2</label></stream>"
ASSOCIATIONS = (
    "<participantstreamassoc participant_id='A'><send>X</send><recv>Y</recv></participantstreamassoc>"
    "<participantstreamassoc participant_id='B'><send>Y</send><recv>X</recv></participantstreamassoc>"
)
WHO_SPEAKS = {
    "associations of their own": recording(PEOPLE + STREAMS + ASSOCIATIONS),
    "metadata in another order": recording(ASSOCIATIONS + STREAMS + PEOPLE),
    "namespace without number": recording(
        PEOPLE + STREAMS + ASSOCIATIONS, attributes="xmlns='urn:ietf:params:xml:ns:recording'"
    ),
    "namespace siprec": recording(PEOPLE + STREAMS + ASSOCIATIONS, attributes="xmlns='urn:ietf:params:xml:ns:siprec'"),
    "no namespace": recording(PEOPLE + STREAMS + ASSOCIATIONS, attributes=""),
    "a recording inside recording_metadata (Webex)": recording(
        recording(PEOPLE + STREAMS + ASSOCIATIONS), root="recording_metadata", attributes=""
    ),
    "a prefix": recording(PEOPLE + STREAMS + ASSOCIATIONS, attributes="xmlns:tns='urn:x'")
    .replace("<", "<tns:")
    .replace("<tns:/", "</tns:"),
    "send inside participant (Oracle, AudioCodes)": recording(
        "<participant id='A'><nameID aor='sip:a@h'/><send>X</send></participant>"
        "<participant id='B'><nameID aor='sip:b@h'/><send>Y</send><recv>X</recv></participant>" + OLD_STREAMS
    ),
    "nested send id (BroadWorks)": recording(
        "<participant id='A'><aor>sip:a@h</aor><send><id>X</id></send></participant>"
        "<participant id='B'><aor>sip:b@h</aor><send><id>Y</id></send></participant>" + OLD_STREAMS
    ),
    "ids with line ends in them": recording(
        PEOPLE + STREAMS + ASSOCIATIONS.replace("<send>X", "<send>\n   X\n").replace("'B'><send>", "' B '><send>")
    ),
    "byte order mark and space in front": "\ufeff \r\n<?xml version='1.0'?>"
    + recording(PEOPLE + STREAMS + ASSOCIATIONS),
}


@pytest.mark.parametrize("name", WHO_SPEAKS)
def test_who_speaks(name: str) -> None:
    """The same call told in any vendor's words gives the same speakers (requirement Q2)."""
    document = metadata.parse(WHO_SPEAKS[name].encode())
    found: dict[str, list[dict[str, object]]] = RecordingSession().merged(document).facts()
    assert speakers(found) == {"1": "sip:a@h", "2": "sip:b@h"}


UNKNOWN_SPEAKERS = {
    "two send the same stream (Metaswitch)": (
        "<participantstreamassoc participant_id='A'><send>X</send><recv>X</recv></participantstreamassoc>"
        "<participantstreamassoc participant_id='B'><send>X</send><recv>X</recv></participantstreamassoc>"
    ),
    "empty associations (OpenSIPS)": "<participantstreamassoc participant_id='A'></participantstreamassoc>",
    "only recv": "<participantstreamassoc participant_id='A'><recv>X</recv></participantstreamassoc>",
    "no associations": "",
}


@pytest.mark.parametrize("name", UNKNOWN_SPEAKERS)
def test_speakers_that_nobody_names_stay_unknown(name: str) -> None:
    """REQ: INTEROP: never by position or label number: what metadata does not say is not guessed."""
    assert speakers(facts(recording(PEOPLE + STREAMS + UNKNOWN_SPEAKERS[name])))["1"] is None


ADDRESSES = {
    "attribute": "<nameID aor='sip:a@h'/>",
    "element in nameID": "<nameID><aor>sip:a@h</aor></nameID>",
    "element in participant (Oracle)": "<aor>sip:a@h</aor>",
    "white space": "<nameID aor='  sip:a@h&#10;'/>",
    "brackets": "<nameID aor='&lt;sip:a@h&gt;'/>",
    "quotation marks": '<aor>"sip:a@h"</aor>',
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses(name: str) -> None:
    """An address is found wherever it stands, without what a sloppy writer put round it."""
    found = metadata.parse(recording(f"<participant participant_id='A'>{ADDRESSES[name]}</participant>").encode())
    assert found.participants[0].aor == "sip:a@h"


@pytest.mark.parametrize(
    "aor", ["tel:+15550100001", "+15550100001@pstn", "sip:@h", "sip:a@h;user=phone;noa=international", "1234"]
)
def test_odd_addresses_are_kept_as_claimed(aor: str) -> None:
    """An address that is no URI, or has parameters, is kept: normalising it is the index's work."""
    found = metadata.parse(recording(f"<participant participant_id='A'><nameID aor='{aor}'/></participant>").encode())
    assert found.participants[0].aor == aor


def test_participants_without_ids() -> None:
    """Several participants may lack an id; they stay apart."""
    found = metadata.parse(
        recording("<participant><aor>x</aor></participant><participant><aor>y</aor></participant>").encode()
    )
    assert [(person.participant_id, person.aor) for person in found.participants] == [
        ("participant-1", "x"),
        ("participant-2", "y"),
    ]


def roles(document: str | bytes) -> list[object]:
    return [person["role"] for person in facts(document)["participants"]]


def test_roles_come_from_vendor_marks_alone() -> None:
    """REQ: INTEROP: Oracle's and BroadWorks' marks tell caller from callee; without a mark the role is unknown."""
    assert roles(METADATA) == ["unknown", "unknown"]
    assert roles(sample("shape_oracle_2026_ucid_metadata.xml")) == ["caller", "callee"]
    assert roles(sample("shape_broadworks_dual_stream_metadata.xml")) == ["caller", "callee"]
    called_himself = sample("shape_broadworks_dual_stream_metadata.xml").replace(b"+15550100002", b"+15550100001")
    assert roles(called_himself.replace(b";user=phone", b"")) == ["unknown", "unknown"]


def test_extensions_are_gathered_by_local_name() -> None:
    """Vendors' marks are kept, those of a participant with the participant."""
    found = metadata.parse(sample("shape_oracle_2026_ucid_metadata.xml"))
    assert found.extensions == {"ucid": "00FA080018803B69810C6D;encoding=hex", "callerOrig": "true"}
    assert [person.extensions for person in found.participants] == [{"callingParty": "true"}, {"callingParty": "false"}]
    broadworks = metadata.parse(sample("shape_broadworks_dual_stream_metadata.xml")).extensions
    assert broadworks["extTrackingID"] == "00000000-0000-4000-8000-000000000007"
    assert broadworks["userID"] == "user1@example.com"


REFUSED = {
    "a bare ampersand (CUBE)": "<recording><a>B&C</a></recording>",
    "an unquoted attribute": "<recording a=b/>",
    "a tag that never closes": "<recording><stream>",
    "another root": "<html/>",
    "nothing": "",
    "a DTD": "<!DOCTYPE recording><recording/>",
    "an entity (billion laughs)": '<!DOCTYPE r [<!ENTITY a "b">]><recording>&a;</recording>',
    "an external entity": '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><recording>&a;</recording>',
    "an encoding that nobody knows": "<?xml version='1.0' encoding='nonsense'?><recording/>",
    "more than 64 KiB": "<recording>" + "x" * 65_536 + "</recording>",
    "too deep": "<recording>" + "<a>" * 100 + "</a>" * 100 + "</recording>",
    "too many elements": "<recording>" + "<a/>" * 5_000 + "</recording>",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_recovered_and_flagged(name: str) -> None:
    """Metadata that is not well-formed is malformed to the parser, and flagged, never refused, by the reader."""
    data = REFUSED[name].encode()
    with pytest.raises(MalformedInput):
        metadata.parse(data)
    assert metadata.read(data).flags == (FLAG_METADATA_MALFORMED,)


RECOVERED = {
    "shape_cisco_cube_2026_unescaped_ampersand.txt": (
        {"1": "sip:15550100001@ingress-internal", "2": "sip:+15550100002@198.51.100.122"},
        "EXAMPLE CITY&CNT",
    ),
    "rfc7865_section8_example_as_in_aws_docs_MALFORMED.xml": (
        {
            "96": "sip:alice@atlanta.com",
            "97": "sip:alice@atlanta.com",
            "98": "sip:bob@biloxy.com",
            "99": "sip:bob@biloxy.com",
        },
        "Alice",
    ),
    "shape_oracle_spl_extension_malformed.xml": ({"65804": "sip:sipp@198.51.100.1"}, "sipp"),
}


@pytest.mark.parametrize("name", RECOVERED)
def test_recovery_of_real_damage(name: str) -> None:
    """The damage that real SBCs do loses nobody: speakers and names are as the SBC meant them."""
    data = sample(name)
    data = data[data.index(b"<?xml") :].partition(b"\n--")[0]
    found = facts(data)
    assert speakers(found) == RECOVERED[name][0]
    assert RECOVERED[name][1] in {person["name"] for person in found["participants"]}


def test_well_formed_xml_is_recovered_to_the_same_facts() -> None:
    """The tolerant reader gives of a sound document what the strict one gives."""
    for document in (
        METADATA.encode(),
        sample("rfc7865_section8_example_wellformed.xml"),
        sample("shape_broadworks_dual_stream_metadata.xml"),
    ):
        strict, tolerant = metadata.parse(document), metadata.recover(document)
        assert (tolerant.participants, tolerant.streams, tolerant.sends) == (
            strict.participants,
            strict.streams,
            strict.sends,
        )
        assert (tolerant.sessions, tolerant.groups, tolerant.extensions) == (
            strict.sessions,
            strict.groups,
            strict.extensions,
        )


_DAMAGE = st.lists(
    st.tuples(
        st.integers(0, 2_000),
        st.sampled_from(["<", ">", "&", '"', "'", "</a>", "<a ", "<![CDATA[", "]]>", "<!--", "\0"]),
    ),
    max_size=8,
)


@given(_DAMAGE)
def test_recovery_never_fails(damage: list[tuple[int, str]]) -> None:
    """Whatever is inserted wherever, something is read."""
    text = METADATA
    for position, inserted in damage:
        text = text[:position] + inserted + text[position:]
    assert isinstance(metadata.read(text.encode()), Metadata)


LONG = {unit: unit for unit in ("<", "<a ", "<a '", "&", "<a>", "</a", "<!--", "<a b=", '<a "')} | {
    "one name": "b",
    "names and spaces": "b ",
    "names and slashes": "b/",
    "spaces": " ",
    "values that do not end": "b='c\"",
}


@pytest.mark.parametrize("name", LONG)
def test_recovery_takes_time_in_proportion(name: str) -> None:
    """No text of 64 KiB takes the reader longer than a moment, be it between tags or in one."""
    text = LONG[name] if name == LONG[name] else f"<a {LONG[name] * 65_500}"[:65_500] + ">&"
    data = (text * 65_536)[:65_536].encode()
    started = time.process_time()
    xml_tree.recover(data)
    assert time.process_time() - started < 1.0


def test_partial_merges_and_a_hold_forgets_nobody() -> None:
    """REQ: RFC 7865 section 6.1: partial changes what it names; who spoke before a hold stays the speaker."""
    hold = sample("rfc_style_hold_partial_metadata.xml")
    resume = sample("rfc_style_resume_partial_metadata.xml")
    start = sample("rfc7865_section8_example_wellformed.xml")
    expected = {
        "96": "sip:alice@atlanta.com",
        "97": "sip:alice@atlanta.com",
        "98": "sip:bob@biloxy.com",
        "99": "sip:bob@biloxy.com",
    }
    assert metadata.parse(hold).partial
    assert metadata.parse(hold).sends["srfBElmCRp2QB23b7Mpk0w=="] == ()
    assert speakers(facts(start, hold)) == expected
    assert speakers(facts(start, hold, resume)) == expected


def test_a_later_document_corrects_an_earlier_one() -> None:
    """Placeholders first, truth later (Avaya, Oracle): the same id takes the new name, keeps the rest."""
    first = recording("<participant participant_id='A'><nameID aor='sip:ASBCE@h'/></participant>" + STREAMS)
    later = recording(
        "<datamode>partial</datamode>"
        "<participant participant_id='A'><nameID aor='sip:+1555@h'><name>Ann</name></nameID></participant>"
    )
    found = facts(first, later)
    assert [(person["aor"], person["name"]) for person in found["participants"]] == [("sip:+1555@h", "Ann")]
    assert [stream["label"] for stream in found["streams"]] == ["1", "2"]
    again = facts(first, later, recording("<participant participant_id='A'/>"))
    assert [(person["aor"], person["name"]) for person in again["participants"]] == [("sip:+1555@h", "Ann")]


def test_a_transfer_keeps_who_left_and_moves_the_stream() -> None:
    """Who left a transferred call was recorded; a stream's speaker is who sends it now."""
    before = recording(PEOPLE + STREAMS + ASSOCIATIONS)
    after = recording(
        "<participant participant_id='C'><nameID aor='sip:c@h'/></participant>"
        "<participantstreamassoc participant_id='C'><send>Y</send></participantstreamassoc>"
    )
    found = facts(before, after)
    assert [person["aor"] for person in found["participants"]] == ["sip:a@h", "sip:b@h", "sip:c@h"]
    assert speakers(found) == {"1": "sip:a@h", "2": "sip:c@h"}


def test_a_label_names_one_stream() -> None:
    """A new stream under an old label takes its place; a stream without an id is known by its label."""
    found = facts(
        recording("<stream stream_id='X'><label>1</label></stream>"),
        recording("<stream stream_id='Z'><label>1</label></stream><stream><label>2</label></stream>"),
    )
    assert [(stream["label"], stream["stream_id"]) for stream in found["streams"]] == [("1", "Z"), ("2", None)]


def test_what_a_session_remembers_is_bounded() -> None:
    """A peer that names new parties in every request fills no memory; the latest stay known."""
    known = RecordingSession()
    for first in range(0, 3_000, 500):
        people = "".join(
            f'<participant participant_id="P{n}"><nameID aor="sip:{n}@x"/></participant>'
            for n in range(first, first + 500)
        )
        known = known.merged(metadata.parse(f"<recording>{people}<v><x{first}>1</x{first}></v></recording>".encode()))
    assert len(known.participants) == MAX_REMEMBERED
    assert "P2999" in known.participants


def test_what_a_session_remembers_fits_into_one_record() -> None:
    """A peer that names others in every request, all of them at full length, is still told of: the latest stay."""
    known = RecordingSession()
    for number in range(80):
        extensions = "".join(f"<x{name}>{'v' * 900}</x{name}>" for name in range(40))
        people = f"<participant participant_id='P{number}'><nameID aor='sip:{number}@{'h' * 900}'/>{extensions}"
        session = f"<session session_id='S{number}'><sipSessionID>{'q' * 9_000}</sipSessionID></session>"
        stream = f"<stream stream_id='{'i' * 900}{number}'><label>{number}</label></stream>"
        stream += f"<y{number}>{'v' * 900}</y{number}>"
        text = f"<group group_id='{'g' * 900}{number}'/>{session}{people}</participant>{stream}"
        known = known.merged(metadata.parse(f"<recording>{text}</recording>".encode()))
    told = known.facts()
    assert len(json.dumps(told)) < 160_000
    assert told["participants"][-1]["participant_id"] == "P79"
    assert 0 < len(told["participants"][-1]["extensions"]) < 10
    assert told["sessions"][-1]["session_id"] == "S79"
    assert told["streams"][-1]["label"] == "79"
    assert "y79" in told["extensions"]
