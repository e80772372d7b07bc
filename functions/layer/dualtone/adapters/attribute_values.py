"""DynamoDB's typed attribute values and plain Python values, both ways.

boto3's own deserialiser wraps binary values and turns every number into a Decimal; here an integer stays an int and
bytes stay bytes. Absent is absent: None is left out when writing, so that sparse indexes stay sparse.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

AttributeValue = dict[str, Any]
Item = dict[str, AttributeValue]


def to_item(values: Mapping[str, object]) -> Item:
    """Writes a plain mapping as an item; None values are left out.

    Raises:
        TypeError: For a type that has no attribute value here; floats among them, since their decimal value is a guess.
    """
    return {name: to_value(value) for name, value in values.items() if value is not None}


def from_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Reads an item: S as str, N as int or Decimal, B as bytes, BOOL as bool, L as list, M as dict."""
    return {name: from_value(value) for name, value in item.items()}


def to_value(value: object) -> AttributeValue:  # noqa: PLR0911 - one return per type is the table
    """Writes one value; raises TypeError as ``to_item`` does."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | Decimal():
            return {"N": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case list() | tuple():
            return {"L": [to_value(item) for item in value]}
        case Mapping():
            return {"M": {str(name): to_value(item) for name, item in value.items() if item is not None}}
        case None:
            return {"NULL": True}
        case _:
            raise TypeError(f"{type(value).__name__} has no attribute value")


def from_value(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an attribute's type is known only to its reader
    """Reads one attribute value.

    Raises:
        TypeError: For a set or an unknown type, which no table of ours holds.
    """
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "N":
            number = Decimal(content)
            return int(number) if number == number.to_integral_value() else number
        case "B":
            return bytes(content)
        case "L":
            return [from_value(item) for item in content]
        case "M":
            return from_item(content)
        case "NULL":
            return None
        case _:
            raise TypeError(f"attribute values of type {kind} are not used")
