"""How a payment system finds a call that it knows by the switch's names, while no name is in any queue or table.

Agent and cloud share the tenant's live key, 32 bytes from KMS. What a call is known by becomes keyed hashes, its match
tokens; a webhook that names a call becomes the same token. What an officer may see of a live call travels sealed under
another key from the same root. Pure: nonces are arguments.

| kind          | what it names                                                                                  |
|---------------|------------------------------------------------------------------------------------------------|
| `call_id`     | Call-ID or session id of the *communication* session: RFC 7865 section 6.3, RFC 7989, vendors  |
| `ucid`        | Avaya's universal call id, in hexadecimal, as User-to-User or as twenty decimal digits          |
| `extension`   | number or user part of a party                                                                 |
| `external_id` | any vendor's value of call or party that is not its number, and group ids                      |
| `dialog`      | Call-ID of our own recording dialog: for the SBC's people, never for webhooks                  |
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dualtone.domain import call_session, canonical
from dualtone.domain.call_session import CallSession
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import CallId, TenantId
from dualtone.domain.numbers import normalise

LIVE_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MOST_TOKENS: Final = 64
LONGEST_VALUE: Final = 1024
TOKEN: Final = re.compile(r"[a-z2-7]{32}")

_MOST_PARTIES: Final = 16
_LONGEST_SHOWN: Final = 256
# Names under which vendors give the Call-ID of the recorded call, without case and punctuation.
_CALL_ID_NAMES: Final = frozenset({"callid", "xaudccallid", "sessionid", "sipsessionid", "headercallid"})
_UCID_NAMES: Final = frozenset({"ucid", "avayaucid", "usertouser", "headerusertouser"})
# Names under which vendors give other ids that all dialogs of one call have: Cisco's gateways, Cisco's telephones (both
# legs of a call, told by both ends), BroadWorks, Ribbon. Not BroadWorks' groupID, which names an enterprise's group,
# nor NetSapiens' groupSeq, which counts within a group.
_CALL_NAMES: Final = frozenset(
    {"ciscoguid", "headerciscoguid", "xrefci", "xfarendrefci", "exttrackingid", "gcid", "xgcid"}
)
_PARTY_NAMES: Final = frozenset(
    {"callingpartynumber", "calledpartynumber", "xciscorecordingparticipant", "recordedparty", "masfrom", "masto"}
)
_HEXADECIMAL: Final = re.compile(r"[0-9A-Fa-f-]{8,}")
# A User-to-User value of Avaya's: protocol discriminator 00, then elements; FA 08 is a UCID of eight bytes.
_USER_TO_USER_UCID: Final = re.compile(r"(?:00|04)?FA08([0-9A-F]{16})")
_PLAIN_UCID: Final = re.compile(r"[0-9A-F]{16}")
# Node, sequence and Unix time, as switches print it: five, five and ten decimal digits.
_DECIMAL_UCID: Final = re.compile(r"([0-9]{5})([0-9]{5})([0-9]{10})")


class MatchKind(StrEnum):
    """What a call can be named by."""

    CALL_ID = "call_id"
    UCID = "ucid"
    EXTENSION = "extension"
    EXTERNAL_ID = "external_id"
    DIALOG = "dialog"


WEBHOOK_KINDS: Final = frozenset(MatchKind) - {MatchKind.DIALOG}
"""What a payment system may name a call by: the dialog between SBC and recorder is none of its business."""


def token(live_key: bytes, kind: MatchKind | str, value: str) -> str:
    """The match token of a name.

    Args:
        live_key: The tenant's, 32 bytes.
        kind: What the value is.
        value: As the switch, the metadata or a payment system spells it.

    Returns:
        32 lower-case base-32 characters: 160 bits.

    Raises:
        MalformedInput: For an unknown kind, or a value that names nothing.
    """
    try:
        known = MatchKind(kind)
    except ValueError:
        raise MalformedInput("a call is named by call_id, ucid, extension or external_id", http_status=422) from None
    normal = _normal(known, value)
    if normal is None:
        raise MalformedInput(f"the value of {known} names no call", http_status=422)
    mac = hmac.digest(_key(live_key, b"match"), canonical.encode([known.value, normal]), hashlib.sha256)
    return base64.b32encode(mac).decode("ascii").lower()[:32]


def of_session(live_key: bytes, facts: Mapping[str, Any]) -> frozenset[str]:
    """All match tokens of a call.

    Args:
        live_key: The tenant's, 32 bytes.
        facts: The facts of its SESSION record.

    Returns:
        At most 64 tokens; of more, Call-IDs and UCIDs stay before parties, and parties before other values.
    """
    found: dict[str, None] = {}
    for kind, value in _names(call_session.from_facts(facts)):
        if _normal(kind, value) is not None:
            found[token(live_key, kind, value)] = None
            if len(found) == MOST_TOKENS:
                break
    return frozenset(found)


def links(live_key: bytes, session: CallSession) -> tuple[str, ...]:
    """The tokens that dialogs of one call share: two SBCs' copies of it, its two ends, what follows a transfer.

    No party's number is among them: many calls share one.

    Args:
        live_key: The tenant's, 32 bytes.
        session: What the signalling says of a dialog.

    Returns:
        At most 64 tokens, those that most dialogs of a call share first: UCIDs, groups, vendors' ids of the call, then
        Call-IDs and session ids.
    """
    found = {
        token(live_key, kind, value): None for kind, value in _link_names(session) if _normal(kind, value) is not None
    }
    return tuple(found)[:MOST_TOKENS]


def seal(live_key: bytes, tenant: TenantId, call: CallId, facts: Mapping[str, Any], nonce: bytes) -> bytes:
    """Seals what officers see of a live call: its parties' roles, addresses and names.

    Args:
        live_key: The tenant's.
        tenant: Owner of the call.
        call: Whose parties these are.
        facts: The facts of its SESSION record.
        nonce: 12 random bytes.

    Returns:
        The nonce, AES-256-GCM ciphertext of canonical JSON, and its tag.
    """
    parties = [
        {"role": person.role, "aor": _shown(person.aor), "name": _shown(person.name or "")}
        for person in call_session.from_facts(facts).participants[:_MOST_PARTIES]
    ]
    plaintext = canonical.encode({"parties": parties})
    return nonce + AESGCM(_key(live_key, b"seal")).encrypt(nonce, plaintext, _associated(tenant, call))


def unseal(live_key: bytes, tenant: TenantId, call: CallId, sealed: bytes) -> list[dict[str, str]]:
    """Opens what ``seal`` sealed.

    Returns:
        The parties: ``role``, ``aor`` and ``name`` of each.

    Raises:
        IntegrityError: If it was sealed for another call or tenant, or altered.
    """
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        plaintext = AESGCM(_key(live_key, b"seal")).decrypt(nonce, ciphertext, _associated(tenant, call))
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("the parties of a live call do not open") from error
    parties: list[dict[str, str]] = canonical.decode(plaintext)["parties"]
    return parties


def _names(session: CallSession) -> Iterator[tuple[MatchKind, str]]:
    """Everything that a session is known by, the most telling first."""
    values = list(vendor_values(session))
    yield MatchKind.DIALOG, session.sip_call_id
    for sip_session_id in session.sip_session_ids:
        yield from _session_id(sip_session_id)
    for session_id in session.session_ids:
        yield MatchKind.CALL_ID, session_id
    for name, value in values:
        if name in _CALL_ID_NAMES:
            yield from _session_id(value)
    yield from ((MatchKind.UCID, value) for name, value in values if name in _UCID_NAMES)
    yield from ((MatchKind.EXTENSION, person.aor) for person in session.participants)
    yield from ((MatchKind.EXTENSION, value) for name, value in values if name in _PARTY_NAMES)
    yield from ((MatchKind.EXTERNAL_ID, value) for value in session.groups)
    yield from ((MatchKind.EXTERNAL_ID, value) for name, value in values if name not in _PARTY_NAMES)


def _link_names(session: CallSession) -> Iterator[tuple[MatchKind, str]]:
    """What a call is known by, whoever takes part in it."""
    yield from ((kind, value) for kind, value in _names(session) if kind is MatchKind.UCID)
    yield from ((MatchKind.EXTERNAL_ID, value) for value in session.groups)
    values = list(vendor_values(session))
    yield from ((MatchKind.EXTERNAL_ID, value) for name, value in values if name in _CALL_NAMES)
    # REQ: RFC 3891 section 3: a dialog that replaces another names it by its Call-ID.
    yield MatchKind.EXTERNAL_ID, session.sip_call_id
    yield from ((MatchKind.EXTERNAL_ID, value.partition(";")[0]) for name, value in values if name == "replaces")
    yield from ((kind, value) for kind, value in _names(session) if kind is MatchKind.CALL_ID)


def vendor_values(session: CallSession) -> Iterator[tuple[str, str]]:
    """Vendors' data of call and parties by bare name; equal names come joined by the agent and are parted again."""
    for extensions in (session.extensions, *(person.extensions for person in session.participants)):
        for name, joined in extensions.items():
            if isinstance(joined, str):
                bare = "".join(character for character in name.lower() if character.isalnum())
                for value in dict.fromkeys([joined, *joined.split(", ")]):
                    yield bare, value


def _session_id(value: str) -> Iterator[tuple[MatchKind, str]]:
    """A Call-ID, or both halves of an RFC 7989 Session-ID: ``local;remote=other``."""
    yield MatchKind.CALL_ID, value
    local, parameter, rest = value.partition(";")
    if parameter:
        yield MatchKind.CALL_ID, local
        for item in rest.split(";"):
            if item.strip().lower().startswith("remote="):
                yield MatchKind.CALL_ID, item.partition("=")[2]


def _normal(kind: MatchKind, value: str) -> str | None:
    """The one spelling under which a value is hashed; None if it names nothing."""
    text = value.encode("utf-8", "replace").decode().strip()
    if not text or len(text) > LONGEST_VALUE or not text.isprintable():
        return None
    if kind is MatchKind.EXTENSION:
        return normalise(text)
    if kind is MatchKind.UCID:
        return _ucid(text)
    if not text.strip("0-"):  # RFC 7989 section 5: the nil UUID stands for a side that is not known yet
        return None
    # GUIDs and the like come in both cases. Anything else is compared as RFC 3261 section 8.1.1.4 says, byte by byte.
    return text.lower() if _HEXADECIMAL.fullmatch(text) else text


def _ucid(text: str) -> str | None:
    value = text.partition(";")[0].strip().upper().removeprefix("0X")
    if decimal := _DECIMAL_UCID.fullmatch(value):
        node, sequence, time_s = map(int, decimal.groups())
        return f"{node:04X}{sequence:04X}{time_s:08X}"
    if embedded := _USER_TO_USER_UCID.match(value):
        return embedded[1]
    return value if _PLAIN_UCID.fullmatch(value) else None


def _shown(text: str) -> str:
    return text[:_LONGEST_SHOWN].encode("utf-8", "replace").decode()


def _key(live_key: bytes, purpose: bytes) -> bytes:
    if len(live_key) != LIVE_KEY_BYTES:
        raise ValueError("a tenant's live key has 32 bytes")
    return hmac.digest(live_key, purpose, hashlib.sha256)


def _associated(tenant: TenantId, call: CallId) -> bytes:
    return canonical.encode([tenant, call])
