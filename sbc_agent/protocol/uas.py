"""What every answer of ours shares: who we say we are, and the refusals that no session is needed for. Sans-IO.

Standard: RFC 3261 sections 8.2.2, 8.2.3 and 8.2.6, RFC 7866 section 6.1.2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dualtone.domain.errors import MalformedInput
from sbc_agent.protocol import address as addresses
from sbc_agent.protocol import recognition, responses, sdes
from sbc_agent.protocol.events import Event, OfferRefused
from sbc_agent.protocol.flow import Flow
from sbc_agent.protocol.limits import SipLimits
from sbc_agent.protocol.message import Response
from sbc_agent.protocol.sdes import SrtpPolicy, SrtpTerms
from sbc_agent.protocol.transaction_layer import Incoming, Patience, TransactionLayer

SUPPORTED: Final = ("Supported", "siprec, timer, replaces")

LONGEST_SESSION_SECONDS: Final = 7 * 86_400.0  # lines between dealers are open for a week

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server must know.

    Attributes:
        media_address: our IP address for RTP, in `c=`.
        advertise: host in our Contact; None takes the address that the peer reached.
        peers: IP addresses whose INVITEs are recording sessions without any mark.
        product: our name in Server.
        limits: how much peers may say.
        patience: how long and how much is waited for.
        srtp: whether SRTP is accepted, whose keys stand in the session description.
        longest_session_s: after so long a session is ended by BYE, in seconds.
    """

    media_address: str
    advertise: str | None = None
    peers: frozenset[str] = frozenset()
    product: str = "Dualtone"
    limits: SipLimits = field(default_factory=SipLimits)
    patience: Patience = field(default_factory=Patience)
    srtp: SrtpPolicy = "allow"
    longest_session_s: float = LONGEST_SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class Uas:
    """The user agent server: settings, the layer below, where events go, sources of unguessable tokens and octets."""

    settings: ServerSettings
    layer: TransactionLayer
    emit: Callable[[Event], None]
    fresh: Callable[[], str]
    randomness: Callable[[int], bytes]

    def srtp_terms(self, flow: Flow) -> SrtpTerms:
        """What of SRTP is accepted of a peer on this flow."""
        return sdes.terms(self.settings.srtp, over_tls=flow.transport == "tls")

    def build(
        self, incoming: Incoming, status: int, headers: Iterable[Header] = (), body: bytes = b"", to_tag: str = ""
    ) -> Response:
        """A response; without a To tag of its own it gets a fresh one."""
        return responses.build(
            incoming.request,
            status,
            to_tag=to_tag or self.fresh(),
            headers=(*headers, ("Server", self.settings.product)),
            body=body,
            flow=incoming.flow,
        )

    def respond(
        self, incoming: Incoming, status: int, now: float, headers: Iterable[Header] = (), to_tag: str = ""
    ) -> bytes:
        """Answer a request without a body; returns the octets of the answer."""
        return self.layer.respond(incoming, self.build(incoming, status, headers, b"", to_tag), now)

    def refuse(self, incoming: Incoming, status: int, reason: str, now: float, headers: Iterable[Header] = ()) -> None:
        """Refuse an INVITE outside a dialog, and tell the shell why."""
        self.respond(incoming, status, now, headers)
        self.emit(OfferRefused(incoming.request.required("call-id"), status, reason))

    def refusal(self, incoming: Incoming) -> tuple[int, tuple[Header, ...]] | None:
        """Why a request must be refused for an extension or an encoding that we do not know: status and headers."""
        if options := recognition.unsupported(incoming.request):
            return 420, (("Unsupported", ", ".join(options)),)
        encoding = (incoming.request.header("content-encoding") or "identity").strip().lower()
        if encoding != "identity":
            return 415, (responses.ACCEPT, ("Accept-Encoding", "identity"))
        return None

    def abilities(self, incoming: Incoming) -> tuple[Header, ...]:
        """What an OPTIONS asks for (RFC 3261 section 11.2)."""
        return responses.ALLOW, responses.ACCEPT, SUPPORTED, self.answering_contact(incoming)

    def answering_contact(self, incoming: Incoming) -> Header:
        """REQ: RFC 3261 section 12.1.1: a SIPS URI in the request line, or in the top Record-Route, else in Contact."""
        asked = incoming.request
        origin = asked.listed("record-route") or asked.listed("contact")
        return self.contact(incoming.flow, asked.uri, *origin[:1])

    def contact(self, flow: Flow, *addressed: str) -> Header:
        """REQ: RFC 7866 section 6.1.2: the SRS names itself by `+sip.srs`.

        The URI leads back to where the peer reached us, over the leg's transport.

        Args:
            flow: where the peer is heard.
            addressed: URIs or addresses of which one by SIPS makes ours one too, on a leg of TLS (section 8.1.1.8).
        """
        if flow.transport == "tls" and any(map(_is_sips, addressed)):
            return "Contact", f"<sips:recorder@{self.sent_by(flow)}>;+sip.srs"
        transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
        return "Contact", f"<sip:recorder@{self.sent_by(flow)}{transport}>;+sip.srs"

    def sent_by(self, flow: Flow) -> str:
        """Our host and port as a peer on this flow should see them."""
        host = self.settings.advertise or flow.local[0]
        return f"[{host}]:{flow.local[1]}" if ":" in host else f"{host}:{flow.local[1]}"


def _is_sips(text: str) -> bool:
    try:
        return addresses.parse(text).uri[:5].lower() == "sips:"
    except MalformedInput:
        return False


def warning(text: str) -> Header:
    """A reason for people (RFC 3261 section 20.43)."""
    return "Warning", f'399 dualtone "{text}"'
