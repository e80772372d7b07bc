"""The word that an agent is revoked: a signed envelope of kind ``revoked``, in its command queue. Pure.

It is for good: an agent that is to record again is enrolled anew, under another id and key. It never expires.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.call_command import Moment, Ulid
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import parse_agent_id, parse_tenant_id
from dualtone.domain.signing import Envelope, Signer

KIND: Final = "revoked"
FORMAT: Final = 1


@checked(config=ConfigDict(strict=True, extra="forbid"), frozen=True, slots=True)
class Revoked:
    """The word as it is signed.

    Attributes:
        id: ULID.
        tenant: Whose agent it was.
        agent: Who is told.
        issued_at_ms: When it was revoked, true Unix time in milliseconds.
    """

    id: Ulid
    tenant: str
    agent: str
    issued_at_ms: Moment
    format: Literal[1] = FORMAT

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs it."""
        return Envelope.sealed_by(signer, KIND, canonical.encode(asdict(self)))


def verified(envelope: Envelope, public_key_der: bytes) -> Revoked:
    """Verifies it against the cloud's pinned key.

    Raises:
        IntegrityError: If the signature is not the cloud's.
        MalformedInput: If it is not of the format.
    """
    payload = envelope.verified(public_key_der, KIND)
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        word = _REVOKED.validate_json(payload)
    except ValidationError:
        raise MalformedInput("not a well-formed revocation") from None
    parse_tenant_id(word.tenant)
    parse_agent_id(word.agent)
    return word


_REVOKED: Final = TypeAdapter(Revoked)
