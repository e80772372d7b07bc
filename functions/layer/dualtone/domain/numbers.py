"""Phone numbers and addresses of record in the one form that is indexed and compared.

Everything that writes or looks up a number goes through `normalise`, so that a number found in rs-metadata, typed into
a search box or written in a tenant's line list becomes the same string. Not here: national dialling plans. Whether
`020...` and `+4420...` are one number depends on where it was dialled, which a recorder does not know.
"""

import re
import unicodedata
from urllib.parse import unquote

# REQ: RFC 3966 section 3: visual-separator = "-" / "." / "(" / ")"; people also type spaces and slashes.
_SEPARATORS = str.maketrans("", "", "-.()/ \u2010\u2011\u2012\u2013\u2014")
# REQ: RFC 3966 section 3: global-number-digits and local-number-digits; "*" and "#" are dialled digits.
_NUMBER = re.compile(r"\+?[0-9*#]{1,40}")
_SCHEME = re.compile(r"(sips?|tels?):", re.IGNORECASE)
_LONGEST_USER = 256


def normalise(address: str) -> str | None:
    """Reduce an address of record or a number to the string under which it is indexed.

    Pure. Display names, the scheme, the host, passwords and parameters are dropped. A user part that is a telephone
    number loses its visual separators (RFC 3966 section 5.1.1: they do not take part in a comparison); any other user
    part is lower-cased, since SBCs disagree about its case.

    Args:
        address: `"Bob" <sip:+44-20-7946-0123;npdi@host;user=phone>`, `tel:+44(20)79460123`, `2001@pbx`, `+44 20 ...`.

    Returns:
        `+` and digits, digits alone, or a lower-case user name; None if nobody is named (`sip:@host`, a host alone,
        RFC 3323's `anonymous`, an overlong or empty text).
    """
    text = _printable(address)
    if "<" in text:
        text = text.rpartition("<")[2].partition(">")[0].strip()
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    before, at, _host = rest.rpartition("@")
    user = unquote((before if at else rest).partition(";")[0].partition("?")[0].partition(":")[0]).strip()
    if at or scheme is None or scheme[0].lower().startswith("tel"):
        return _canonical_user(user)
    # A SIP URI without "@" names a host (RFC 3261 section 19.1.1), though some SBCs put a bare number there.
    return user if _NUMBER.fullmatch(user) else None


def _canonical_user(user: str) -> str | None:
    number = user.translate(_SEPARATORS)
    if _NUMBER.fullmatch(number):
        return number
    name = user.lower().removeprefix('"').removesuffix('"')
    if not number or not name or len(name) > _LONGEST_USER or name == "anonymous":
        return None
    return name


def _printable(text: str) -> str:
    """Full-width digits become ASCII, exotic spaces become spaces, unprintable characters and lone surrogates go."""
    composed = unicodedata.normalize("NFKC", text)
    return "".join(character for character in composed if character.isprintable()).strip()
