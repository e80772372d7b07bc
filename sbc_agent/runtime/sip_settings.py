"""What the SIP sockets are told, out of the agent's settings. Pure."""

from __future__ import annotations

from sbc_agent.protocol.limits import Rate, SipLimits
from sbc_agent.runtime.admission import Capacity
from sbc_agent.runtime.config import AgentConfig, Endpoint, SipSection
from sbc_agent.runtime.sip_certificate import TlsFiles
from sbc_agent.runtime.sip_shell import SipSettings
from sbc_agent.runtime.sip_streams import ConnectionLimits

_BURST_S = 2.0  # so many seconds' worth may come at once


def of(config: AgentConfig, product: str) -> SipSettings:
    """The settings of the SIP sockets.

    Args:
        config: The agent's settings.
        product: Our name in Server.
    """
    sip = config.sip
    return SipSettings(
        media_address=config.media.address,
        udp=_pair(sip.udp),
        tcp=_pair(sip.tcp),
        tls=_pair(sip.tls),
        tls_files=_files(sip),
        advertise=sip.advertise,
        peers=sip.peers,
        product=product,
        limits=SipLimits(
            known=_rate(sip.messages_per_s),
            stranger=_rate(sip.strangers_per_s / 2),
            strangers=_rate(sip.strangers_per_s),
            total=_rate(2 * sip.messages_per_s),
        ),
        connections=ConnectionLimits(sip.max_connections, sip.max_connections_per_peer),
        capacity=Capacity(sip.max_calls),
        srtp=sip.srtp,
        longest_session_s=sip.max_session_h * 3_600.0,
    )


def _rate(per_s: float) -> Rate:
    return Rate(per_s, max(_BURST_S * per_s, 1.0))


def _pair(endpoint: Endpoint | None) -> tuple[str, int] | None:
    return None if endpoint is None else (endpoint.host, endpoint.port)


def _files(sip: SipSection) -> TlsFiles | None:
    if sip.tls is None or sip.tls_certificate is None or sip.tls_key is None:
        return None
    return TlsFiles(sip.tls_certificate, sip.tls_key, sip.tls_clients)
