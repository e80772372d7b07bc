"""Streams as SIP negotiated them, in the terms of the media process. Pure."""

from __future__ import annotations

from sbc_agent.media.messages import CryptoSpec, FormatSpec, StreamSpec
from sbc_agent.protocol.events import StreamState
from sbc_agent.protocol.sdes import CryptoLine


def of(state: StreamState) -> StreamSpec:
    """What the media process is told of a stream."""
    return StreamSpec(
        stream=state.index,
        label=state.label,
        port=state.port,
        active=state.active,
        formats=tuple(
            FormatSpec(
                payload_type=codec.payload_type,
                codec=codec.name,
                clock_hz=codec.clock_hz,
                channels=min(codec.channels, 255),
            )
            for codec in state.codecs
        ),
        crypto=() if state.crypto is None else _keys(state.crypto),
    )


def _keys(line: CryptoLine) -> tuple[CryptoSpec, ...]:
    return tuple(
        CryptoSpec(tag=line.tag, suite=line.suite, key=key.key, mki=key.mki, unencrypted_rtcp=line.unencrypted_rtcp)
        for key in line.keys
    )
