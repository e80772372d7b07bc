"""Canonical JSON: one value, one spelling, so that what is signed can be written again byte for byte.

The subset of RFC 8785 that needs no number formatting: objects, arrays, strings, integers within 53 bits, booleans and
null; keys sorted by UTF-16 code units, no white space, UTF-8. Floating point is refused. Pure.
"""

from __future__ import annotations

import json
from typing import Any, Final

from dualtone.domain.errors import MalformedInput

MAX_SAFE_INTEGER: Final = 2**53 - 1


def encode(value: object) -> bytes:
    """Spells a value.

    Args:
        value: dicts with string keys, lists, tuples, str, int, bool and None, nested at will.

    Returns:
        The one canonical spelling, UTF-8.

    Raises:
        ValueError: For a type or a number outside the subset.
    """
    return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - a JSON value has no narrower type
    """Reads JSON that came from outside.

    Args:
        data: UTF-8 JSON, canonical or not; the caller caps its size.

    Returns:
        The value, made of dict, list, str, int, bool and None.

    Raises:
        MalformedInput: If it is no JSON, repeats a key, or uses floating point.
    """
    try:
        return json.loads(
            bytes(data), object_pairs_hook=_unique, parse_float=_refuse_number, parse_constant=_refuse_number
        )
    except (ValueError, RecursionError) as error:
        raise MalformedInput("not well-formed JSON") from error


def _ordered(value: object) -> object:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError("an integer beyond 53 bits has no canonical spelling")
        return value
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the keys of a canonical object are strings")
        # RFC 8785 section 3.2.3: keys are compared as arrays of UTF-16 code units; of ASCII that is Python's own order.
        is_plain = all(map(str.isascii, value))
        keys = sorted(value) if is_plain else sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _ordered(value[key]) for key in keys}
    raise ValueError(f"{type(value).__name__} has no canonical spelling")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _refuse_number(text: str) -> object:
    raise ValueError(f"number outside the subset: {text[:8]}")
