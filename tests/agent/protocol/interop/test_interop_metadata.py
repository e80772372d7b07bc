"""INTEROP, "Metadata": who, what and when, as vendors spell it; read as a claim, never a reason to refuse a call."""

from collections.abc import Mapping
from typing import Any

import pytest

from dualtone.domain import call_match
from dualtone.domain.call_match import MatchKind, token
from sbc_agent.protocol import metadata
from sbc_agent.protocol.media_session import FLAG_SENDERS_UNRELIABLE
from sbc_agent.protocol.metadata import FLAG_METADATA_MALFORMED
from sbc_agent.protocol.xml_tree import MAX_XML_BYTES
from tests.agent.protocol.builders import METADATA, TWO_STREAMS, crlf, only, sample
from tests.agent.protocol.interop.lines import note, shows
from tests.agent.protocol.interop.vendors import (
    AUDIOCODES,
    BROADWORKS,
    BROADWORKS_METADATA,
    CUBE_BODY,
    METASWITCH_SDP,
    ORACLE,
    ORACLE_METADATA,
    RFC,
    Opened,
    opened,
    siprec,
    text_of,
    whole,
)

KEY = b"k" * 32
XML = ("Content-Type", "application/rs-metadata+xml")


def told(document: str, offer: str = TWO_STREAMS) -> Opened:
    """A session of this metadata."""
    return opened(siprec(ORACLE, offer, document))


def updated(found: Opened, document: str) -> dict[str, Any]:
    """The facts after an UPDATE with this metadata alone."""
    only(found.under.receive(found.src.request("UPDATE", XML, body=crlf(document))))
    return dict(found.under.updated[-1].facts)


def speakers(facts: Any) -> dict[str, str | None]:
    """Label to the address of who sends that stream."""
    people = {person["participant_id"]: person["aor"] for person in facts["participants"]}
    return {stream["label"]: people.get(stream["participant_id"]) for stream in facts["streams"]}


def document(content: str, root: str = "recording", namespace: str = "urn:ietf:params:xml:ns:recording:1") -> str:
    declared = f" xmlns='{namespace}'" if namespace else ""
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<{root}{declared}>{content}</{root}>"


PEOPLE = (
    "<participant participant_id='A'><nameID aor='sip:alice@example.com'/></participant>"
    "<participant participant_id='B'><nameID aor='sip:bob@example.com'/></participant>"
    "<stream stream_id='X'><label>1</label></stream><stream stream_id='Y'><label>2</label></stream>"
)
ASSOCIATED = (
    "<participantstreamassoc participant_id='A'><send>X</send><recv>Y</recv></participantstreamassoc>"
    "<participantstreamassoc participant_id='B'><send>Y</send><recv>X</recv></participantstreamassoc>"
)
BOTH: dict[str, str] = {"1": "sip:alice@example.com", "2": "sip:bob@example.com"}
NOBODY: dict[str, str | None] = {"1": None, "2": None}
ROOTS = {
    "RFC 7865": document(PEOPLE + ASSOCIATED),
    "a draft's namespace": document(PEOPLE + ASSOCIATED, namespace="urn:ietf:params:xml:ns:recording"),
    "an older draft's namespace": document(PEOPLE + ASSOCIATED, namespace="urn:ietf:params:xml:ns:siprec"),
    "no namespace": document(PEOPLE + ASSOCIATED, namespace=""),
    "recording_metadata": document(PEOPLE + ASSOCIATED, root="recording_metadata"),
    "recording inside recording_metadata": document(
        f"<recording>{PEOPLE}{ASSOCIATED}</recording>", root="recording_metadata"
    ),
    "a prefix": "<tns:recording xmlns:tns='urn:ietf:params:xml:ns:recording:1'>"
    + (PEOPLE + ASSOCIATED).replace("</", "<\0").replace("<", "<tns:").replace("<tns:\0", "</tns:")
    + "</tns:recording>",
}


@shows("D1")
@pytest.mark.parametrize("name", ROOTS)
def test_roots_and_namespaces(name: str) -> None:
    """Elements are known by their local names, wherever a vendor put them."""
    found = told(ROOTS[name])
    assert speakers(found.under.updated[-1].facts) == BOTH
    assert found.facts("flags") == []


ALICE, BOB = "sip:alice@atlanta.com", "sip:bob@biloxy.com"
IDS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "RFC 7865 section 8": (text_of(RFC), {"96": ALICE, "97": ALICE, "98": BOB, "99": BOB}, ("D2a",)),
    "BroadWorks: id and session": (
        text_of(BROADWORKS_METADATA),
        {"1": "sip:+15550100001@example.com", "2": "sip:+15550100002@example.com;user=phone"},
        ("D2a", "D3"),
    ),
    "mixed": (
        document(
            "<session id='S'/><participant participant_id='A' session='S'><nameID aor='sip:alice@example.com'/>"
            "<send>X</send></participant><participant id='B'><nameID aor='sip:bob@example.com'/><send>Y</send>"
            "</participant><stream id='X' session='S'><label>1</label></stream>"
            "<stream stream_id='Y'><label>2</label></stream>"
        ),
        BOTH,
        ("D2a", "D3"),
    ),
    "parties without an id": (
        document(
            "<participant><nameID aor='sip:alice@example.com'/><send>X</send></participant>"
            "<participant><nameID aor='sip:bob@example.com'/><send>Y</send></participant>"
            "<stream stream_id='X'><label>1</label></stream><stream stream_id='Y'><label>2</label></stream>"
        ),
        BOTH,
        ("D2b",),
    ),
}
SENT: dict[str, tuple[str, Mapping[str, str | None]]] = {
    "under participantstreamassoc": (ASSOCIATED, BOTH),
    "no recv": (
        "<participantstreamassoc participant_id='A'><send>X</send></participantstreamassoc>",
        BOTH | {"2": None},
    ),
    "empty": ("<participantstreamassoc participant_id='A'></participantstreamassoc>", NOBODY),
    "an empty send": (
        "<participantstreamassoc participant_id='A'><send/><recv>Y</recv></participantstreamassoc>",
        NOBODY,
    ),
    "nested ids": (
        (
            "<participantstreamassoc participant_id='A'><send><id>X</id></send></participantstreamassoc>"
            "<participantstreamassoc participant_id='B'><send><id>Y</id></send></participantstreamassoc>"
        ),
        BOTH,
    ),
    "both send one stream": (
        (
            "<participantstreamassoc participant_id='A'><send>X</send></participantstreamassoc>"
            "<participantstreamassoc participant_id='B'><send>X</send></participantstreamassoc>"
        ),
        NOBODY,
    ),
}
for _name, _case in IDS.items():
    note(_case[2], _name)


@pytest.mark.parametrize("name", IDS)
def test_ids(name: str) -> None:
    """Ids are found under each of their names, and made up where there is none."""
    text, expected, _ = IDS[name]
    assert speakers(told(text).under.updated[-1].facts) == expected


@shows("D3", "D12")
@pytest.mark.parametrize("name", SENT)
def test_who_sends(name: str) -> None:
    """Only `send` makes a speaker; where it says nothing, or names two, nobody is one."""
    associations, expected = SENT[name]
    assert speakers(told(document(PEOPLE + associations)).under.updated[-1].facts) == expected


@shows("D3", "C1e", "S5")
def test_one_mixed_stream() -> None:
    """Metaswitch says that each party sends and hears the same stream: a mixed one, which is nobody's voice alone."""
    text = document(
        "<participant participant_id='A'><nameID aor='sip:alice@example.com'/>"
        "<send>X</send><recv>X</recv></participant>"
        "<participant participant_id='B'><nameID aor='sip:bob@example.com'/></participant>"
        "<stream stream_id='X'><label>1</label></stream>"
    )
    found = opened(siprec(BROADWORKS, text_of(METASWITCH_SDP), text))
    assert speakers(found.under.updated[-1].facts) == {"1": None}
    assert found.active == [True]


@shows("D3", "D12")
def test_senders_the_wrong_way_round() -> None:
    """Sonus' metadata names senders against the labels: its word on them is not taken, and the session says so."""
    offer = TWO_STREAMS.replace("o=SBC 1 1", "o=Sonus_UAC 10131 18263")
    found = told(METADATA, offer)
    facts = found.under.updated[-1].facts
    assert speakers(facts) == NOBODY
    assert facts["flags"] == [FLAG_SENDERS_UNRELIABLE]
    assert len(facts["participants"]) == 2


@shows("D4")
@pytest.mark.parametrize("spelling", ["datamode", "dataMode"])
def test_partial_metadata_is_merged(spelling: str) -> None:
    """A hold and a resume name what changed; what they leave out stays, and who sent a stream still sent it."""
    found = told(text_of(RFC))
    before = speakers(found.under.updated[-1].facts)
    for name in ("rfc_style_hold_partial_metadata.xml", "rfc_style_resume_partial_metadata.xml"):
        after = updated(found, text_of(name).replace("datamode", spelling))
        assert speakers(after) == before
        assert len(after["participants"]) == 2
        assert after["sessions"] == [
            {
                "session_id": "hVpd7YQgRW2nD22h7q60JQ==",
                "sip_session_id": "ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2",
            }
        ]
    read = metadata.read(sample("rfc_style_hold_partial_metadata.xml"))
    assert read.partial
    assert read.sends["srfBElmCRp2QB23b7Mpk0w=="] == (), "who only receives has stopped sending"


@shows("D4")
def test_a_partial_document_names_a_new_sender() -> None:
    """A bare UPDATE that gives a stream to another party takes it from the first (RFC 7865 section 6.9)."""
    found = told(document(PEOPLE + ASSOCIATED))
    after = updated(
        found,
        document(
            "<datamode>partial</datamode><participant participant_id='C'><nameID aor='sip:carol@example.com'/>"
            "</participant><participantstreamassoc participant_id='C'><send>Y</send></participantstreamassoc>"
        ),
    )
    assert speakers(after) == {"1": "sip:alice@example.com", "2": "sip:carol@example.com"}
    assert [person["aor"] for person in after["participants"]] == [
        "sip:alice@example.com",
        "sip:bob@example.com",
        "sip:carol@example.com",
    ], "a party that left was recorded all the same"


@shows("D5")
@pytest.mark.parametrize(
    "time",
    ["2023-12-27T03:45:17", "2025-11-09T10:00:00+0000", "2026-09-27T16:39:57.024Z", "1970-01-01T00:00:00", "soon"],
)
def test_times_are_claims(time: str) -> None:
    """Whatever the metadata says of times, the session is recorded from when we answered, by our clock."""
    claims = f"<start-time>{time}</start-time><associate-time>{time}</associate-time>"
    text = METADATA.replace("</session>", f"{claims}</session>")
    found = told(text)
    assert found.under.updated[0].at == 1000.0
    assert found.facts("flags") == []
    assert time not in str(dict(found.under.updated[-1].facts))


AORS = {
    "no scheme (AudioCodes)": ('<nameID aor="+15550100001@pstn.example.com"/>', "+15550100001@pstn.example.com", ""),
    "tel": ('<nameID aor="tel:+15550100001"/>', "tel:+15550100001", ""),
    "no user": ('<nameID aor="sip:@198.51.100.9"/>', "sip:@198.51.100.9", ""),
    "parameters": ('<nameID aor="sip:1@example.com;user=phone;noa=4"/>', "sip:1@example.com;user=phone;noa=4", ""),
    "stray characters": ('<nameID aor=" &lt;sip:1@example.com&gt; "/>', "sip:1@example.com", ""),
    "an element": ("<aor>sip:sipp@198.51.100.40</aor><name>sipp </name>", "sip:sipp@198.51.100.40", "sipp"),
    "quotes in the name": (
        '<nameID aor="sip:1@example.com"><name>"WIRELESS CALLER"</name></nameID>',
        "sip:1@example.com",
        "WIRELESS CALLER",
    ),
}


@shows("D6")
@pytest.mark.parametrize("name", AORS)
def test_addresses_and_names(name: str) -> None:
    """A party's address and name are kept as claimed, without what stands round them."""
    party, aor, display = AORS[name]
    found = told(document(f"<participant participant_id='A'>{party}</participant>"))
    people = found.facts("participants")
    assert isinstance(people, list)
    assert [(person["aor"], person["name"]) for person in people] == [(aor, display)]


MALFORMED = {
    "a bare ampersand (CUBE)": (METADATA.replace("Alice", "A&B Telecom"), "A&B Telecom"),
    "an unescaped name (OpenSIPS)": (METADATA.replace("Alice", "Alice <Sales>"), "Alice"),
    "unquoted attributes (Oracle)": (METADATA.replace('participant_id="A">', "participant_id=A>", 1), "Alice"),
    "an end tag that matches nothing (AWS)": (METADATA.replace("<name>Alice", "<naSRCme>Alice"), "Alice"),
    "cut off": (METADATA[: METADATA.index("<stream")], "Alice"),
}


@shows("D7")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_metadata(name: str) -> None:
    """Recorded, flagged, kept raw; what can be read is read."""
    text, display = MALFORMED[name]
    found = told(text)
    assert found.facts("flags") == [FLAG_METADATA_MALFORMED]
    people = found.facts("participants")
    assert isinstance(people, list)
    assert people[0]["aor"] == "sip:alice@example.com"
    assert people[0]["name"].startswith(display)
    assert crlf(text).strip() in found.under.recorded[0].raw
    assert found.active == [True, True]


@shows("D7")
@pytest.mark.parametrize("garbage", ["", "<", "&" * 1000, "<recording", "\0\1\2", "<a>" * 10_000])
def test_metadata_that_is_none(garbage: str) -> None:
    """No metadata is bad enough to refuse a call."""
    assert told(garbage).active == [True, True]


@shows("D8")
def test_a_placeholder_is_corrected_by_update() -> None:
    """Avaya names the party `ASBCE` first; the UPDATE that corrects it leaves no trace of the placeholder."""
    first = METADATA.replace("sip:bob@example.com", "sip:ASBCE@198.51.100.111").replace("+xml", "")
    found = told(first)
    assert speakers(found.under.updated[-1].facts)["2"] == "sip:ASBCE@198.51.100.111"
    after = updated(found, METADATA)
    assert speakers(after) == {"1": "sip:alice@example.com", "2": "sip:bob@example.com"}
    assert "ASBCE" not in str(after)


@shows("D8", "D9")
def test_oracle_invites_before_b_answers() -> None:
    """One stream and half of the truth first; the re-INVITE brings the callee and the second stream."""
    half = text_of(ORACLE_METADATA).replace("5550100002", "unknown")
    one = TWO_STREAMS[: TWO_STREAMS.index("m=audio 6002")].replace("label:1", "label:771757897")
    found = opened(siprec(ORACLE, one, half))
    assert len(found.under.updated[-1].streams) == 1
    full = text_of(ORACLE_METADATA).replace(
        "</recording>", "<stream id='zfbJ3As/TeNcB0931nNCeA=='><label>771757898</label></stream></recording>"
    )
    two = TWO_STREAMS.replace("label:1", "label:771757897").replace("label:2", "label:771757898")
    answer = only(found.under.receive(found.src.invite(sdp=two, metadata=full)))
    assert b"m=audio 20000 RTP/AVP 8 101\r\n" in answer.body
    assert b"m=audio 20002 RTP/AVP 8 101\r\n" in answer.body
    facts = found.under.updated[-1].facts
    assert speakers(facts) == {
        "771757897": "sip:5550100001@198.51.100.15",
        "771757898": "sip:5550100002@198.51.100.2",
    }
    assert [person["role"] for person in facts["participants"]] == ["caller", "callee"]


@shows("D9", "S1a")
@pytest.mark.parametrize("labels", [("0", "1"), ("10", "20"), ("771757897", "65804"), ("a_leg", "b_leg"), ("1", "")])
def test_labels_and_numbers_of_streams(labels: tuple[str, str]) -> None:
    """Labels are texts, echoed as they came; there may be more m-lines than streams in the metadata, or fewer."""
    offer = TWO_STREAMS.replace("label:1", f"label:{labels[0]}")
    offer = offer.replace("label:2", f"label:{labels[1]}") if labels[1] else offer.replace("a=label:2\n", "")
    text = document(
        f"<participant participant_id='A'><nameID aor='sip:alice@example.com'/><send>X</send></participant>"
        f"<stream stream_id='X'><label>{labels[0]}</label></stream>"
        "<stream stream_id='Z'><label>nowhere</label></stream>"
    )
    found = told(text, offer)
    assert [media.label for media in found.description.media] == [labels[0], labels[1] or None]
    assert speakers(found.under.updated[-1].facts) == {labels[0]: "sip:alice@example.com", "nowhere": None}
    assert found.active == [True, True]


def vendor_document(extension: str) -> str:
    return document(f"<session session_id='S'/>{extension}{PEOPLE}")


EXTENSIONS: dict[str, tuple[bytes, str, str, str]] = {
    "Oracle's UCID": (
        siprec(ORACLE, TWO_STREAMS, text_of(ORACLE_METADATA)),
        "ucid",
        "00FA080018803B69810C6D;encoding=hex",
        "ucid",
    ),
    "BroadWorks extTrackingID": (
        siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)),
        "extTrackingID",
        "00000000-0000-4000-8000-000000000007",
        "external_id",
    ),
    "BroadWorks userID": (
        siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)),
        "userID",
        "user1@example.com",
        "external_id",
    ),
    "BroadWorks callType": (
        siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)),
        "calledPartyNumber",
        "sip:+15550100002@example.com;user=phone",
        "extension",
    ),
    "Sonus callData": (
        siprec(
            ORACLE,
            TWO_STREAMS,
            vendor_document(
                "<extensiondata xmlns:s='http://www.sonusnet.com/siprec'><s:callData><s:gcid>4711815</s:gcid>"
                "</s:callData></extensiondata>"
            ),
        ),
        "gcid",
        "4711815",
        "external_id",
    ),
    "AudioCodes ac:": (
        siprec(
            ORACLE,
            TWO_STREAMS,
            vendor_document("<ac:AvayaUCID xmlns:ac='http://AudioCodes'>FA080019001038F725B3</ac:AvayaUCID>"),
        ),
        "AvayaUCID",
        "FA080019001038F725B3",
        "ucid",
    ),
    "NetSapiens groupSeq": (
        siprec(ORACLE, TWO_STREAMS, vendor_document("<group group_id='G'><groupSeq>2</groupSeq></group>")),
        "groupSeq",
        "2",
        "external_id",
    ),
    "Metaswitch's attributes in the description": (
        siprec(ORACLE, text_of("shape_mas_nana_attrs.sdp"), vendor_document("")),
        "recordedparty",
        "+15550100001",
        "extension",
    ),
    "User-to-User": (
        whole(AUDIOCODES, add=("User-to-User: 00FA080018803B69810C6D;encoding=hex",)),
        "User-to-User",
        "00FA080018803B69810C6D;encoding=hex",
        "ucid",
    ),
    "Cisco-Guid": (
        whole(AUDIOCODES, add=("Cisco-Guid: 0427911521-3331789291-3179475176-3642700001",)),
        "Cisco-Guid",
        "0427911521-3331789291-3179475176-3642700001",
        "external_id",
    ),
    "AudioCodes' call id": (whole(AUDIOCODES), "X-audc-call-id", "4dbdf6d8000000000000000000000001", "call_id"),
    "Session-ID, folded": (
        whole(
            AUDIOCODES,
            add=("Session-ID: ab30317f1a784dc48ff824d0d3715d86\r\n ;remote=f81d4fae7dec11d0a76500a0c91e6bf6",),
        ),
        "Session-ID",
        "ab30317f1a784dc48ff824d0d3715d86 ;remote=f81d4fae7dec11d0a76500a0c91e6bf6",
        "call_id",
    ),
}


@shows("D10", "C1a")
@pytest.mark.parametrize("name", EXTENSIONS)
def test_extensions_are_kept_and_indexed(name: str) -> None:
    """What a vendor adds is in the record under its own name, and finds the call."""
    data, key, value, kind = EXTENSIONS[name]
    found = opened(data)
    extensions = found.facts("extensions")
    assert isinstance(extensions, dict)
    assert extensions[key] == value
    assert token(KEY, MatchKind(kind), value) in call_match.of_session(KEY, found.under.updated[-1].facts)


@shows("D10", "D12")
def test_vendors_marks_say_who_called() -> None:
    """`apkt:callingParty` and BroadWorks' numbers are the only words on who called whom."""
    for data in (
        siprec(ORACLE, TWO_STREAMS, text_of(ORACLE_METADATA)),
        siprec(BROADWORKS, TWO_STREAMS, text_of(BROADWORKS_METADATA)),
    ):
        people = opened(data).facts("participants")
        assert isinstance(people, list)
        assert [person["role"] for person in people] == ["caller", "callee"]
    unmarked = opened(whole(AUDIOCODES)).facts("participants")
    assert isinstance(unmarked, list)
    assert [person["role"] for person in unmarked] == ["unknown", "unknown"]


@shows("D11")
@pytest.mark.parametrize(
    "declared",
    [
        "<!DOCTYPE recording [<!ENTITY a 'alice'>]>",
        "<!DOCTYPE recording SYSTEM 'http://198.51.100.66/x.dtd'>",
        "<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]>",
    ],
)
def test_entities_are_off(declared: str) -> None:
    """A DTD is malformed metadata: nothing is fetched, nothing grows, the call is recorded."""
    text = METADATA.replace("?>\n", f"?>\n{declared}\n", 1).replace("Alice", "&c;&a;")
    found = told(text)
    assert found.facts("flags") == [FLAG_METADATA_MALFORMED]
    assert "aaaaaaaaaa" not in str(found.facts("participants"))
    assert found.active == [True, True]


@shows("D11")
def test_metadata_has_a_largest_size() -> None:
    """What lies beyond 64 KiB is not read; what lies before it is."""
    inside = METADATA.replace("</recording>", "")
    read = metadata.read(f"{inside}<!--{'x' * MAX_XML_BYTES}--><participant participant_id='Z'/>".encode())
    assert read.flags == (FLAG_METADATA_MALFORMED,)
    assert [person.participant_id for person in read.participants] == ["A", "B"]


@shows("D7", "D2a")
def test_the_body_of_cube_is_flagged_and_read() -> None:
    """A real name with a bare ampersand: both parties and both speakers are known all the same."""
    text = text_of(CUBE_BODY)
    read = metadata.read(text[text.index("<?xml") : text.rindex("--uniqueBoundary")].encode())
    assert read.flags == (FLAG_METADATA_MALFORMED,)
    assert [person.name for person in read.participants] == ["", "EXAMPLE CITY&CNT"]
    assert [len(sent) for sent in read.sends.values()] == [1, 1]
