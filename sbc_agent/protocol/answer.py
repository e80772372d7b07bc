"""What we answer to an offer, and what we offer when asked to. Pure; standard: RFC 3264, RFC 7866 section 7.2.

Every m-line is answered in its place with its own profile and label; what cannot be recorded gets port 0. Of the audio
formats, G.711 is taken in both its kinds if it is offered, comfort noise with it; else the first that can be decoded;
else the first, which is kept raw. telephone-event only if offered. SBCs fork what the call uses, so the record knows
all codecs of the offer, accepted or not. SRTP is answered by one `a=crypto` (`sdes.py`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dualtone.domain.audio.codecs import codec_of
from sbc_agent.protocol import sdes
from sbc_agent.protocol.sdes import CryptoLine, SrtpTerms
from sbc_agent.protocol.sdp import MAX_MEDIA, Codec, Direction, Media, SessionDescription

FLAG_VIDEO_REFUSED: Final = "video-refused"
FLAG_MEDIA_REFUSED: Final = "media-refused"
FLAG_CODEC_RAW: Final = "codec-not-decodable"

_G711: Final = frozenset({("PCMA", 8000, 1), ("PCMU", 8000, 1)})
_COMFORT_NOISE: Final = "CN"
_EVENTS: Final = "telephone-event"
_OFFERED: Final = (
    Codec(8, "PCMA", 8000),
    Codec(0, "PCMU", 8000),
    Codec(9, "G722", 8000),
    Codec(18, "G729", 8000),
    Codec(111, "OPUS", 48000, 2),
    Codec(13, _COMFORT_NOISE, 8000),
    Codec(101, _EVENTS, 8000),
)

# REQ: RFC 4574 section 4: a label is a token (RFC 8866 section 9).
_LABEL: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-~]+")

# We only listen (RFC 7866 section 7.2): what may come is recvonly; an offerer that sends nothing is inactive.
_ANSWERED: Final = {
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.SENDRECV: Direction.RECVONLY,
    Direction.RECVONLY: Direction.INACTIVE,
    Direction.INACTIVE: Direction.INACTIVE,
}


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What an m-line becomes.

    Attributes:
        index: place of the m-line, from 0.
        label: the label, or `mline-N` where the offer has none.
        wanted: whether it is recorded and needs a port.
        active: whether what arrives is kept; False on hold.
        direction: as answered.
        formats: payload types as answered, as texts.
        codecs: every codec that the offer explains, accepted or not.
        flag: why it is refused, or what is odd about it.
        profile: the transport, as offered.
        kind: audio, or what else it is.
        crypto: of SRTP, the line of the offer that is answered; without its keys, or None, nothing can be opened.
    """

    index: int
    label: str
    wanted: bool
    active: bool
    direction: Direction
    formats: tuple[str, ...]
    codecs: tuple[Codec, ...]
    flag: str | None = None
    profile: str = "RTP/AVP"
    kind: str = "audio"
    crypto: CryptoLine | None = None

    @property
    def lacks_keys(self) -> bool:
        """Whether it is recorded and what comes cannot be opened: SRTP whose keys are not known (any more)."""
        return self.wanted and "SAVP" in self.profile and not (self.crypto and self.crypto.keys)


def plan(
    offer: SessionDescription, terms: SrtpTerms | None = None, known: Mapping[int, CryptoLine] | None = None
) -> tuple[StreamPlan, ...]:
    """Decide what every m-line becomes.

    Args:
        offer: what is offered.
        terms: what of SRTP is accepted; None for all that can be opened.
        known: what was answered before, by the place of the m-line: a refresh may leave out all keys, which then stay.
    """
    agreed, before = terms or SrtpTerms(), known or {}
    return tuple(_plan_media(index, media, agreed, before.get(index)) for index, media in enumerate(offer.media))


def nothing_recordable(offer: SessionDescription, plans: Sequence[StreamPlan]) -> bool:
    """Whether something is offered and nothing of it can be recorded."""
    return any(media.port for media in offer.media) and not any(item.wanted for item in plans)


def write_answer(
    offer: SessionDescription,
    plans: Sequence[StreamPlan],
    ports: Mapping[int, int],
    address: str,
    keys: Mapping[int, bytes],
) -> list[str]:
    """The lines of the answer after `o=`.

    Args:
        offer: what is answered.
        plans: what `plan` decided.
        ports: our RTP port for each m-line that has one; a wanted m-line without one is refused after all.
        address: our IP address for media.
        keys: our own master key and salt for each m-line of SRTP.

    Returns:
        Lines without their ends, from `s=` on.
    """
    lines = _session_lines(address)
    for media, item in zip(offer.media, plans, strict=True):
        port = ports.get(item.index, 0) if item.wanted else 0
        formats = item.formats or media.formats or ("0",)
        lines.append(f"m={media.kind} {port} {media.protocol} {' '.join(formats)}")
        if port:
            lines += _media_lines(media.codecs(), formats, item.direction)
            lines += _crypto_lines(item, keys)
        if media.label is not None:
            lines.append(f"a=label:{media.label}")
    return lines


def own_offer(labels: Iterable[str], streams: int = 1) -> tuple[StreamPlan, ...]:
    """What we offer to an INVITE without a session description (delayed offer): all that we can store, receiving only.

    Cisco's telephones fork what the call uses and cannot transcode: what is not offered would not be recorded.

    Args:
        labels: the labels that the metadata names; one m-line each. What no description may hold as a label is none.
        streams: how many m-lines without labels if it names none.

    Returns:
        The m-lines.
    """
    formats = tuple(str(codec.payload_type) for codec in _OFFERED)
    wished = list(labels)[:MAX_MEDIA] or [""] * streams
    names = [label if _LABEL.fullmatch(label) else f"mline-{index}" for index, label in enumerate(wished)]
    return tuple(
        StreamPlan(index, label, True, True, Direction.RECVONLY, formats, _OFFERED)  # noqa: FBT003 - wanted, active
        for index, label in enumerate(names)
    )


def write_offer(
    plans: Sequence[StreamPlan], ports: Mapping[int, int], address: str, keys: Mapping[int, bytes]
) -> list[str]:
    """The lines of our own offer after `o=`, with the session's streams in their order."""
    lines = _session_lines(address)
    for item in plans:
        port = ports.get(item.index, 0) if item.wanted else 0
        lines.append(f"m={item.kind} {port} {item.profile} {' '.join(item.formats or ('0',))}")
        if port:
            lines += _media_lines(item.codecs, item.formats, Direction.RECVONLY)
            lines += _crypto_lines(item, keys)
        if not item.label.startswith("mline-"):
            lines.append(f"a=label:{item.label}")
    return lines


def apply_answer(plans: Sequence[StreamPlan], answer: SessionDescription) -> tuple[StreamPlan, ...]:
    """Our own offer as the peer's answer leaves it: what it refuses or does not send is kept inactive."""
    applied = []
    for item in plans:
        media = answer.media[item.index] if item.index < len(answer.media) else None
        if media is None:
            applied.append(item)
            continue
        sends = media.port != 0 and not media.on_hold
        direction = Direction.RECVONLY if sends else Direction.INACTIVE
        codecs = tuple(media.codecs()) or item.codecs
        label = media.label or item.label
        crypto = item.crypto and sdes.choose(media.crypto, (item.crypto.suite,))
        applied.append(
            replace(
                item,
                label=label,
                active=sends,
                direction=direction,
                formats=media.formats,
                codecs=codecs,
                # An answer without a key, as to a description that it has seen before, leaves the key as it was.
                crypto=crypto or item.crypto,
            )
        )
    return tuple(applied)


def _plan_media(index: int, media: Media, terms: SrtpTerms, known: CryptoLine | None) -> StreamPlan:
    codecs = tuple(media.codecs())
    label = media.label or f"mline-{index}"
    crypto = None
    if media.is_srtp:
        crypto = sdes.choose(media.crypto, terms.suites)
        if not media.crypto and known is not None and known.suite in terms.suites:
            crypto = known
    refusal = _refusal(media, terms, crypto)
    if refusal is not None or media.port == 0:
        return StreamPlan(
            index=index,
            label=label,
            wanted=False,
            active=False,
            direction=Direction.INACTIVE,
            formats=(),
            codecs=codecs,
            flag=refusal,
            profile=media.protocol,
            kind=media.kind,
        )
    formats, decodable = _formats(media, codecs)
    return StreamPlan(
        index=index,
        label=label,
        wanted=True,
        active=not media.on_hold,
        direction=_ANSWERED[media.direction],
        formats=formats,
        codecs=codecs,
        flag=None if decodable else FLAG_CODEC_RAW,
        profile=media.protocol,
        crypto=crypto,
    )


def _refusal(media: Media, terms: SrtpTerms, crypto: CryptoLine | None) -> str | None:
    """Why an m-line that is offered with a port cannot be recorded, or None."""
    if media.port == 0:
        return None
    if media.kind != "audio":
        return FLAG_VIDEO_REFUSED if media.kind == "video" else FLAG_MEDIA_REFUSED
    if "SAVP" in media.protocol and crypto is None:
        return terms.refused
    return None if (media.is_rtp or media.is_srtp) and media.formats else FLAG_MEDIA_REFUSED


def _formats(media: Media, codecs: Sequence[Codec]) -> tuple[tuple[str, ...], bool]:
    """The payload types that we accept, in the offer's order, and whether we can decode them."""
    g711 = {codec.payload_type for codec in codecs if _shape(codec) in _G711}
    decodable = g711 or {codec.payload_type for codec in codecs if _is_decodable(codec)}
    besides = {codec.payload_type for codec in codecs if codec.name == _EVENTS}
    if decodable:
        besides |= {codec.payload_type for codec in codecs if codec.name == _COMFORT_NOISE}
        chosen = g711 or {next(codec.payload_type for codec in codecs if codec.payload_type in decodable)}
    else:
        aside = {codec.payload_type for codec in codecs if codec.name in {_EVENTS, _COMFORT_NOISE}}
        numbers = [int(text) for text in media.formats if text.isascii() and text.isdigit()]
        chosen = set([number for number in numbers if number not in aside][:1])
    accepted = {str(number) for number in chosen | besides}
    formats = tuple(dict.fromkeys(text for text in media.formats if text in accepted)) or media.formats[:1]
    return formats, bool(decodable)


def _shape(codec: Codec) -> tuple[str, int, int]:
    return codec.name, codec.clock_hz, codec.channels


def _is_decodable(codec: Codec) -> bool:
    return codec_of(*_shape(codec)) is not None


def _crypto_lines(item: StreamPlan, keys: Mapping[int, bytes]) -> list[str]:
    """REQ: RFC 4568 section 5.1.2: exactly one line, for what is answered; none for plain RTP."""
    if item.crypto is None or item.index not in keys:
        return []
    return [f"a=crypto:{item.crypto.written(keys[item.index])}"]


def _session_lines(address: str) -> list[str]:
    family = "IP6" if ":" in address else "IP4"
    return ["s=-", f"c=IN {family} {address}", "t=0 0"]


def _media_lines(codecs: Iterable[Codec], formats: Sequence[str], direction: Direction) -> list[str]:
    lines = []
    for codec in codecs:
        if str(codec.payload_type) not in formats:
            continue
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        lines.append(f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_hz}{channels}")
        if codec.name == _EVENTS:
            lines.append(f"a=fmtp:{codec.payload_type} 0-15")
    lines.append(f"a={direction.value}")
    return lines
