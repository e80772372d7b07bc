"""The certificate of a gap: that a span of a recording is silent, since when, and by whose word. Pure.

It is signed with the certificate key as a message of the kind ``gap-certificate``
(``infra/formats/gap-certificate.md``) and can be checked with openssl, by itself, years later. It holds no number, name
or audio: people stand in it by the opaque id that the user pool gave them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from dualtone.domain import canonical
from dualtone.domain.agent_events import SilentFrom
from dualtone.domain.call_files import Sha256Hex
from dualtone.domain.errors import MalformedInput
from dualtone.domain.ids import CallId, RecordingId, TenantId
from dualtone.domain.pause import How, Pause
from dualtone.domain.signing import Envelope, Signer

KIND: Final = "gap-certificate"
FORMAT: Final = 1

_Number = Annotated[int, Field(ge=0, le=canonical.MAX_SAFE_INTEGER)]


@checked(config=ConfigDict(strict=True, extra="forbid"), frozen=True, slots=True)
class GapCertificate:
    """What is certified.

    Attributes:
        tenant: Owner of the recording.
        recording: The recording.
        call: The agent's id of the call.
        generation: Which version of the recording is silent there.
        cause: Why: ``payment``, ``manual``, ``hold``, ``consent`` or ``dtmf``.
        from_us: Where the silence begins, microseconds of Unix time by the agent's clock.
        to_us: Where it ends.
        effective_at_ms: The moment that was asked for, Unix time.
        by: Who asked: ``person:<subject>``, ``endpoint:<payment endpoint>`` and the like.
        command: Id of the command.
        number: Its number within its origin.
        origin: By which way it came: ``cloud``, ``lan``, or ``agent`` for one of the agent's own.
        silent_from: RTP timestamp of the first silent packet of each stream, None if there was none.
        how: ``withheld``, ``removed`` or ``destroyed``.
        segments: First and last second whose keys were destroyed; None if none were.
        agent_manifest_sha256: Of the manifest file from which the recording was made.
        signed_at_ms: When this was signed, Unix time.
    """

    tenant: str
    recording: str
    call: str
    generation: _Number
    cause: str
    from_us: _Number
    to_us: _Number
    effective_at_ms: _Number
    by: str
    command: str
    number: _Number
    origin: str
    silent_from: list[SilentFrom]
    how: How
    segments: tuple[_Number, _Number] | None
    agent_manifest_sha256: Sha256Hex
    signed_at_ms: _Number
    format: int = FORMAT

    def encode(self) -> bytes:
        """The payload that is signed: canonical JSON of all fields."""
        return canonical.encode(asdict(self))

    def sealed_by(self, signer: Signer) -> Envelope:
        """Signs it."""
        return Envelope.sealed_by(signer, KIND, self.encode())

    @property
    def pause(self) -> Pause:
        """The pause that it certifies."""
        return Pause(
            cause=self.cause,
            from_us=self.from_us,
            to_us=self.to_us,
            origin=self.origin,
            number=self.number,
            command=self.command,
            by=self.by,
            effective_at_ms=self.effective_at_ms,
            silent_from=tuple(self.silent_from),
            how=self.how,
        )


def of_pause(
    pause: Pause,
    *,
    tenant: TenantId,
    recording: RecordingId,
    call: CallId,
    generation: int,
    agent_manifest_sha256: str,
    signed_at_ms: int,
    segments: tuple[int, int] | None = None,
) -> GapCertificate:
    """What is to be certified of a pause; see ``GapCertificate`` for the arguments."""
    return GapCertificate(
        tenant=tenant,
        recording=recording,
        call=call,
        generation=generation,
        cause=pause.cause,
        from_us=max(0, pause.from_us),
        to_us=max(0, pause.to_us),
        effective_at_ms=pause.effective_at_ms,
        by=pause.by,
        command=pause.command,
        number=pause.number,
        origin=pause.origin,
        silent_from=list(pause.silent_from),
        how=pause.how,
        segments=segments,
        agent_manifest_sha256=agent_manifest_sha256,
        signed_at_ms=signed_at_ms,
    )


def parse(payload: bytes) -> GapCertificate:
    """Reads a payload; its signature is checked by ``signing.verify``.

    Raises:
        MalformedInput: If it is no certificate of format 1 in canonical form.
    """
    canonical.decode(payload)  # repeated keys and floating point are refused before the form is looked at
    try:
        certificate = _FORM.validate_json(payload)
    except ValidationError:
        # The validator's own text quotes the input: it is not passed on.
        raise MalformedInput("not a well-formed gap certificate") from None
    if certificate.format != FORMAT or certificate.encode() != payload:
        raise MalformedInput("not a gap certificate of format 1 in canonical form")
    return certificate


_FORM: Final = TypeAdapter(GapCertificate)
