"""Changes to messages as networks, vendors and attackers make them. Deterministic by the random given."""

import random
import re
from collections.abc import Callable
from typing import Final

MAX_BYTES: Final = 70_000

_OCTETS: Final = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b'"',
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"=",
    b"&",
    b"\xff",
    b"\xc3\xbc",
)
_WORDS: Final = (
    b"-1",
    b"0",
    b"65536",
    b"4294967296",
    b"99999999999999999999",
    b"1e9",
    b"\xd9\xa1",
    b"",
    b"A" * 300,
    b"%s%n",
    b"../..",
    b"--",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"<![CDATA[",
    b"]]>",
    b"v=0",
    b"m=audio 0 RTP/AVP",
    b"SIP/2.0",
    b"multipart/mixed;boundary=",
)

Mutator = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, draw: random.Random) -> bytes:
    """Change one bit."""
    position = draw.randrange(len(data))
    return data[:position] + bytes([data[position] ^ (1 << draw.randrange(8))]) + data[position + 1 :]


def insert_octets(data: bytes, draw: random.Random) -> bytes:
    """Put octets that mean something to a grammar anywhere."""
    position = draw.randrange(len(data) + 1)
    return data[:position] + draw.choice(_OCTETS) * draw.choice((1, 1, 1, 2, 50)) + data[position:]


def remove_octets(data: bytes, draw: random.Random) -> bytes:
    """Take a few octets away."""
    position = draw.randrange(len(data))
    return data[:position] + data[position + draw.randint(1, 8) :]


def replace_word(data: bytes, draw: random.Random) -> bytes:
    """Replace a run of letters and digits by something unwelcome."""
    start = draw.randrange(len(data))
    end = start
    while end < len(data) and (data[end : end + 1].isalnum() or data[end] in b"-._"):
        end += 1
    return data[:start] + draw.choice(_WORDS) + data[end:]


def truncate(data: bytes, draw: random.Random) -> bytes:
    """Cut the end off."""
    return data[: draw.randrange(len(data) + 1)]


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True) or [b""]


def drop_line(data: bytes, draw: random.Random) -> bytes:
    """Leave a line out."""
    lines = _lines(data)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def repeat_line(data: bytes, draw: random.Random) -> bytes:
    """Write a line several times."""
    lines = _lines(data)
    position = draw.randrange(len(lines))
    lines[position:position] = [lines[position]] * draw.choice((1, 2, 40))
    return b"".join(lines)


def swap_lines(data: bytes, draw: random.Random) -> bytes:
    """Exchange two lines."""
    lines = _lines(data)
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def fold_line(data: bytes, draw: random.Random) -> bytes:
    """Break a line as folding does."""
    position = draw.randrange(len(data) + 1)
    return data[:position] + draw.choice((b"\r\n ", b"\n\t", b"\r\n")) + data[position:]


def change_case(data: bytes, draw: random.Random) -> bytes:
    """Spell a stretch in other letters."""
    start = draw.randrange(len(data))
    end = start + draw.randint(1, 30)
    return data[:start] + data[start:end].swapcase() + data[end:]


def bare_line_feeds(data: bytes, _draw: random.Random) -> bytes:
    """Use bare LF line ends."""
    return data.replace(b"\r\n", b"\n")


def splice(data: bytes, draw: random.Random) -> bytes:
    """Copy a stretch to another place."""
    start = draw.randrange(len(data))
    piece = data[start : start + draw.randint(1, 200)]
    position = draw.randrange(len(data) + 1)
    return data[:position] + piece + data[position:]


_ELEMENT: Final = re.compile(rb"<([\w:.-]+)[^<>]*>[^<>]*</\1>")
_TEXT: Final = re.compile(rb">[^<>]+<")
_XML_TEXTS: Final = (b"", b" ", b"&amp;", b"&#x41;", b"<![CDATA[a<b]]>", b"<x/>", b"\xc3\xbc", b"sip:a@b", b"y" * 2_000)


def _spans(pattern: re.Pattern[bytes], data: bytes) -> list[tuple[int, int]]:
    return [found.span() for found in pattern.finditer(data)]


def drop_element(data: bytes, draw: random.Random) -> bytes:
    """Leave a whole leaf of XML out."""
    start, end = draw.choice(_spans(_ELEMENT, data) or [(0, 0)])
    return data[:start] + data[end:]


def move_element(data: bytes, draw: random.Random) -> bytes:
    """Copy a leaf of XML beside another."""
    spans = _spans(_ELEMENT, data) or [(0, 0)]
    (start, end), (position, _) = draw.choice(spans), draw.choice(spans)
    return data[:position] + data[start:end] * draw.choice((1, 1, 30)) + data[position:]


def replace_text(data: bytes, draw: random.Random) -> bytes:
    """Write another text into an element of XML."""
    start, end = draw.choice(_spans(_TEXT, data) or [(0, 0)])
    return data[: start + 1] + draw.choice(_XML_TEXTS) + data[end - 1 :] if end else data


ALL: Final[tuple[Mutator, ...]] = (
    flip,
    insert_octets,
    remove_octets,
    replace_word,
    truncate,
    drop_line,
    repeat_line,
    swap_lines,
    fold_line,
    change_case,
    bare_line_feeds,
    splice,
)


# XML breaks at the first odd octet: half of its changes respect its tags.
XML: Final[tuple[Mutator, ...]] = (*ALL, *(drop_element, move_element, replace_text) * 4)


def mutate(data: bytes, draw: random.Random, mutators: tuple[Mutator, ...] = ALL) -> bytes:
    """A message changed once, sometimes twice or three times."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        data = draw.choice(mutators)(data, draw)[:MAX_BYTES]
    return data
