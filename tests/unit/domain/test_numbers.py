"""One number, one spelling: what vendors send and what people type meet in the index."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtone.domain.numbers import normalise

CASES: list[tuple[str, str, str | None]] = [
    ("plain E.164", "+442079460123", "+442079460123"),
    ("visual separators", "+44 (20) 7946-0123", "+442079460123"),
    ("dots and slashes", "030/1234.567", "0301234567"),
    ("tel URI", "tel:+44-20-7946-0123", "+442079460123"),
    ("tel URI with context", "tel:7042;phone-context=example.com", "7042"),
    ("SIP URI", "sip:+442079460123@sbc.example.com", "+442079460123"),
    ("SIPS URI, port, parameters", "sips:2001@10.0.0.1:5061;transport=tls?x=y", "2001"),
    ("user parameters", "sip:+442079460123;npdi;rn=1@host;user=phone", "+442079460123"),
    ("password", "sip:2001:secret@host", "2001"),
    ("display name", '"Müller, Bob" <sip:+442079460123@host>;tag=1', "+442079460123"),
    ("display name holding a bracket", '"a<b" <sip:2001@host>', "2001"),
    ("no scheme", "2001@pbx.example.com", "2001"),
    ("scheme in capitals", "SIP:2001@host", "2001"),
    ("escaped plus", "sip:%2B442079460123@host", "+442079460123"),
    ("a name", "sip:Alice.Smith@example.com", "alice.smith"),
    ("feature code", "*72", "*72"),
    ("full-width digits", "+44\uff12\uff107946", "+44207946"),
    ("non-breaking spaces", "+44\u00a020\u202f7946", "+44207946"),
    ("a bare number as URI", "sip:2001", "2001"),
    ("a host alone", "sip:sbc.example.com", None),
    ("an address alone", "sip:10.0.0.1", None),
    ("no user", "sip:@host", None),
    ("withheld", "sip:anonymous@anonymous.invalid", None),
    ("nothing", "", None),
    ("only separators", " - ", None),
    ("overlong name", "sip:" + "a" * 300 + "@host", None),
]


@pytest.mark.parametrize(("given_address", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_spellings_meet_in_one_form(given_address: str, expected: str | None) -> None:
    """Each spelling reduces to the string under which the party is found."""
    assert normalise(given_address) == expected


@given(st.text(max_size=80))
def test_any_text_is_answered_and_the_answer_is_stable(text: str) -> None:
    """No text raises, and what comes out is encodable and normalises to itself unless it reads as another address."""
    number = normalise(text)
    if number is not None:
        assert number
        number.encode("utf-8")
        if number.lstrip("+").isdigit():
            assert normalise(number) == number
            assert normalise(f"sip:{number}@host") == number
            assert normalise(f"tel:{number}") == number
