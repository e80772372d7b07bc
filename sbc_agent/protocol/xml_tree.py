"""XML of recording metadata as a small tree of local names. Pure; standard: XML 1.0, without DTD and entities.

Two readers yield the same tree. `parse` takes well-formed XML through defusedxml. `recover` reads what real SBCs send
instead (a bare `&` in a caller's name, unquoted attributes, end tags that match nothing): it never fails, its result is
a claim to be flagged. Prefixes and namespaces are dropped: vendors disagree on them (INTEROP).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from dualtone.domain.errors import MalformedInput

MAX_XML_BYTES: Final = 65_536
MAX_ELEMENTS: Final = 4_096
MAX_DEPTH: Final = 64

# A name is looked for where one begins alone: tried from each of its characters, a long one would take its square.
_ATTRIBUTE: Final = re.compile(r"""(?<![^\s=/<>"'])([^\s=/<>"']++)\s*+=\s*("[^"]*"|'[^']*'|[^\s"'>]*)""")
_TAG_NAME: Final = re.compile(r"[A-Za-z_][\w.:-]*")
_ENTITY: Final = re.compile(r"&(?:#(\d{1,7})|#x([0-9A-Fa-f]{1,6})|(amp|lt|gt|quot|apos));")
_ENTITIES: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_MAX_CODE_POINT: Final = 0x10FFFF


@dataclass(slots=True)
class Element:
    """An element by its local name; `text` is what stands directly in it, not in its children."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def named(self, *names: str) -> Iterator["Element"]:
        """The children with one of these names, compared without case."""
        wanted = {name.lower() for name in names}
        return (child for child in self.children if child.name.lower() in wanted)

    def attribute(self, *names: str) -> str:
        """The first of these attributes that is there, stripped, or ""."""
        for name in names:
            if value := self.attributes.get(name, "").strip():
                return value
        return ""

    def child_text(self, *names: str) -> str:
        """The stripped text of the first child with one of these names that has any, or ""."""
        return next((text for child in self.named(*names) if (text := child.text.strip())), "")


def parse(data: bytes) -> Element:
    """Read well-formed XML.

    Args:
        data: the document, at most `MAX_XML_BYTES`; a byte order mark and white space in front are skipped.

    Returns:
        The root.

    Raises:
        MalformedInput: it is not well-formed, declares a DTD or an entity, or passes a limit.
    """
    _limit(data)
    try:
        root = fromstring(_trimmed(data), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, UnicodeError) as error:
        # The parser's own text may quote the document: it is not passed on.
        raise MalformedInput("the metadata is not well-formed XML") from error
    top = Element("")
    waiting = [(root, top, 1)]
    count = 0
    while waiting:
        source, parent, depth = waiting.pop()
        count += 1
        if count > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise MalformedInput("the metadata has too many elements or is too deep")
        attributes = {_local(name): value for name, value in source.attrib.items()}
        text = (source.text or "") + "".join(child.tail or "" for child in source)
        element = Element(_local(source.tag), attributes, [], text)
        parent.children.append(element)
        # Last in, first out: the children are pushed backwards so that they come out in their order.
        waiting.extend((child, element, depth + 1) for child in reversed(source))
    return top.children[0]


def recover(data: bytes, vocabulary: frozenset[str] = frozenset()) -> Element:
    """Read what can be read of broken XML, in one pass over the text.

    A "<" that begins no tag is text; an attribute may lack its quotes; an end tag closes the innermost element of its
    name and all inside it; one that matches nothing names the innermost element anew if its name is of the vocabulary
    and the element's is not; what is still open at the end is closed.

    Args:
        data: the document; what passes `MAX_XML_BYTES`, `MAX_ELEMENTS` or `MAX_DEPTH` is left out.
        vocabulary: the names that the document should use, in lower case.

    Returns:
        A root named "" that holds what was found.
    """
    text = _trimmed(data[:MAX_XML_BYTES]).decode("utf-8", "replace")
    top = Element("")
    said: list[str] = []  # text of the innermost element, put together once: piece by piece it would cost its square
    stack, count, position, closing = [top], 0, 0, -1
    while position < len(text):
        opening = text.find("<", position)
        if opening < 0:
            opening = len(text)
        said.append(_unescape(text[position:opening]))
        if opening == len(text):
            break
        if skipped := _skip(text, opening):
            position, literal = skipped
            said.append(literal)
            continue
        closing = closing if closing > opening else text.find(">", opening)
        if closing < 0:
            break
        following = text.find("<", opening + 1, closing)
        inner = text[opening + 1 : closing if following < 0 else following]
        name = _TAG_NAME.match(inner.lstrip("/"))
        if name is None or (following >= 0 and not inner.startswith("/")):
            said.append("<")
            position = opening + 1
            continue
        position = closing + 1 if following < 0 else following
        _say(stack[-1], said)
        if inner.startswith("/"):
            _close(stack, _local(name[0]), vocabulary)
        elif count < MAX_ELEMENTS:
            count += 1
            attributes = {_local(m[1]): _unescape(m[2].strip("\"'")) for m in _ATTRIBUTE.finditer(inner, name.end())}
            element = Element(_local(name[0]), attributes)
            stack[-1].children.append(element)
            if not inner.endswith("/") and len(stack) < MAX_DEPTH:
                stack.append(element)
    _say(stack[-1], said)
    return top


def _say(element: Element, said: list[str]) -> None:
    element.text += "".join(said)
    said.clear()


def _skip(text: str, opening: int) -> tuple[int, str] | None:
    """Past a comment, a declaration or CDATA: where it ends, and its text; None if it is none of them."""
    for begin, end in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")):
        if text.startswith(begin, opening):
            found = text.find(end, opening + len(begin))
            found = len(text) if found < 0 else found
            literal = text[opening + len(begin) : found] if begin == "<![CDATA[" else ""
            return min(found + len(end), len(text)), literal
    return None


def _close(stack: list[Element], name: str, vocabulary: frozenset[str]) -> None:
    for depth in range(len(stack) - 1, 0, -1):
        if stack[depth].name == name:
            del stack[depth:]
            return
    innermost = stack[-1]
    if len(stack) > 1 and name.lower() in vocabulary and innermost.name.lower() not in vocabulary:
        innermost.name = name
        stack.pop()


def _limit(data: bytes) -> None:
    if len(data) > MAX_XML_BYTES:
        raise MalformedInput("the metadata is larger than 65536 octets")


def _trimmed(data: bytes) -> bytes:
    return data.lstrip(b"\xef\xbb\xbf \t\r\n").rstrip(b"\0 \t\r\n")


def _local(name: object) -> str:
    return str(name).rpartition("}")[2].rpartition(":")[2]


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        if found[3]:
            return _ENTITIES[found[3]]
        code = int(found[1]) if found[1] else int(found[2], 16)
        return chr(code) if 0 < code <= _MAX_CODE_POINT and not 0xD800 <= code <= 0xDFFF else "\ufffd"  # noqa: PLR2004 - surrogates

    return _ENTITY.sub(character, text) if "&" in text else text
