"""Who is asking: from an access token to a principal with a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain.errors import NotFound
from dualtone.domain.ids import TenantId
from dualtone.domain.tenancy import Principal, Role, Unauthenticated

_ROLES: Final = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a verified access token says.

    Attributes:
        subject: The user pool's id of the person.
        client_id: The app client that the token was issued to.
        groups: The person's groups, known to us or not.
    """

    subject: str
    client_id: str
    groups: tuple[str, ...]


class AccessTokens(Protocol):
    """Verifies access tokens."""

    def claims(self, token: str, now_s: int) -> AccessClaims:
        """Returns what a token says; raises Unauthenticated unless everything about it is right."""


class Bindings(Protocol):
    """What was bound to what when a tenant was taken on."""

    def tenant_of_client(self, client_id: str) -> TenantId:
        """Tells whose app client that is; raises NotFound."""


class Authenticate:
    """Turns a token into a principal. There is no other way to a tenant id for a person's request."""

    def __init__(self, tokens: AccessTokens, bindings: Bindings) -> None:
        """Takes the verifier of tokens and the bindings of app clients."""
        self._tokens = tokens
        self._bindings = bindings

    def principal_of(self, token: str, now_s: int) -> Principal:
        """Verifies a token and looks up whose it is.

        The tenant is never read from the token: a claim that a client or a tenant's identity provider can write proves
        nothing about the tenant.

        Args:
            token: An access token in compact form.
            now_s: Unix time in seconds.

        Raises:
            Unauthenticated: If the token is not valid, or its app client is bound to no tenant.
            Unavailable: If keys or directory do not answer.
        """
        claims = self._tokens.claims(token, now_s)
        try:
            tenant = self._bindings.tenant_of_client(claims.client_id)
        except NotFound as error:
            raise Unauthenticated("this app client belongs to no tenant") from error
        roles = frozenset(_ROLES[group] for group in claims.groups if group in _ROLES)
        return Principal(tenant, claims.subject, claims.client_id, roles)
