"""Every sample of a vendor's SIPREC is read, or flagged where it is broken; and every INVITE gets a full answer."""

import pytest

from sbc_agent.protocol import body, message, metadata, sdp
from sbc_agent.protocol.body import FLAG_MULTIPART_MALFORMED
from sbc_agent.protocol.message import Request, Response
from sbc_agent.protocol.metadata import FLAG_METADATA_MALFORMED
from tests.agent.protocol.builders import SAMPLE_MESSAGES, SAMPLES, Under, crlf, sample, sample_message

MALFORMED_METADATA = {
    "rfc7865_section8_example_as_in_aws_docs_MALFORMED.xml",
    "shape_cisco_cube_2026_unescaped_ampersand.txt",
    "shape_oracle_spl_extension_malformed.xml",
}
# What each sample's session description offers: labels in their order.
LABELS = {
    "shape_audiocodes_7.20A_manual_invite_sdp.txt": ["1", "2"],
    "shape_audiocodes_7.40A.500_invite_full.txt": ["1", "2"],
    "shape_audiocodes_reinvite_inactive.txt": ["1", "2"],
    "shape_avaya_sbce_two_mline.sdp": ["10", "20"],
    "shape_cisco_cube_2026_unescaped_ampersand.txt": ["1", "2"],
    "shape_mas_nana_attrs.sdp": ["1", "2"],
    "shape_metaswitch_single_mline.sdp": ["1"],
    "shape_opensips_ims_3gOoBTC_invite.txt": ["0", "1"],
    "shape_oracle_ecz810_note1_multipart_body.txt": ["1"],
}


def bodies(name: str) -> body.MessageBody:
    """The body of a sample: of its message, or of one made for it."""
    data = sample(name)
    if name.endswith(".xml"):
        return body.MessageBody(None, data)
    if name.endswith(".sdp"):
        return body.MessageBody(data, None)
    if name in SAMPLE_MESSAGES:
        return body.read(message.parse(sample_message(name)))
    kind = ("Content-Type", "multipart/mixed;boundary=any")
    return body.read(message.request("INVITE", "sip:a", [kind], crlf(data.decode())))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_read_or_flagged(name: str) -> None:
    """Messages parse, descriptions give their labels, metadata parses exactly where it is well-formed."""
    if name == "shape_srtp_sdes_crypto_lines.txt":
        return  # lines of a description, not a description: see below
    found = bodies(name)
    assert (FLAG_MULTIPART_MALFORMED in found.flags) == (name == "shape_oracle_ecz810_note1_multipart_body.txt")
    if name in LABELS:
        assert found.sdp is not None
        assert [media.label for media in sdp.parse(found.sdp).media] == LABELS[name]
    if found.metadata is not None:
        document = metadata.read(found.metadata)
        assert (FLAG_METADATA_MALFORMED in document.flags) == (name in MALFORMED_METADATA)
        assert document.participants or document.sends


def test_crypto_lines_pass() -> None:
    """Every spelling of a=crypto passes the reader as an attribute."""
    lines = [line for line in sample("shape_srtp_sdes_crypto_lines.txt").decode().splitlines() if line.startswith("a=")]
    found = sdp.parse("\n".join(["v=0", "m=audio 6000 RTP/SAVP 8", *lines]).encode())
    assert sum(name == "crypto" for name, _ in found.media[0].attributes) == len(lines) > 5


@pytest.mark.parametrize("name", [name for name in SAMPLE_MESSAGES if sample(name).startswith(b"INVITE")])
def test_every_invite_of_a_vendor_is_accepted(name: str) -> None:
    """Each vendor's INVITE is recognised by one mark or another and gets a 200; 100rel is no obstacle."""
    data = sample_message(name)
    if b"tag=SRSTAG" in data:
        data = data.replace(b";tag=SRSTAG", b"")  # a re-INVITE: here it begins its dialog
    lines = data.split(b"\r\n")
    if not any(line.lower().startswith(b"via:") for line in lines):
        lines.insert(1, b"Via: SIP/2.0/UDP 198.51.100.44:5060;branch=z9hG4bKv")
    if not any(line.lower().startswith(b"cseq:") for line in lines):
        lines.insert(1, b"CSeq: 1 INVITE")
    data = b"\r\n".join(lines)
    under = Under(settings=None)
    asked = message.parse(data)
    assert isinstance(asked, Request)
    answers = under.receive(data)
    answer = answers[0]
    assert isinstance(answer, Response)
    if name == "shape_twilio_headers.txt":
        # Its sample has neither body nor Contact: nothing tells a recording session.
        assert answer.status == 488
        return
    assert answer.status == 200
    assert answer.header("content-type") == "application/sdp"
    offered, answered = body.read(asked).sdp, sdp.parse(answer.body)
    if offered is not None:
        assert [media.label for media in answered.media] == [media.label for media in sdp.parse(offered).media]
        assert all(media.port for media in answered.media)
