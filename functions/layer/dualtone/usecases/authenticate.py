"""Who is asking: from an access token to a principal with a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from dualtone.domain.errors import NotFound
from dualtone.domain.ids import TenantId
from dualtone.domain.tenancy import Principal, Role, Unauthenticated

_ROLES: Final = {role.value: role for role in Role}
_NOT_HERE: Final = "this app client is no way into a tenant of yours"


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
        nothing about the tenant. It is that of the app client. But app clients are public and tenants share the pool:
        anyone in it can sign in through any of them. So the person must be in the tenant's group too, and only who runs
        the pool puts people into groups.

        Args:
            token: An access token in compact form.
            now_s: Unix time in seconds.

        Raises:
            Unauthenticated: If the token is not valid, its app client is bound to no tenant, or to another than the
                person's.
            Unavailable: If keys or directory do not answer.
        """
        claims = self._tokens.claims(token, now_s)
        try:
            tenant = self._bindings.tenant_of_client(claims.client_id)
        except NotFound as error:
            raise Unauthenticated(_NOT_HERE) from error
        if members_of(tenant) not in claims.groups:
            raise Unauthenticated(_NOT_HERE)
        roles = frozenset(_ROLES[group] for group in claims.groups if group in _ROLES)
        return Principal(tenant, claims.subject, claims.client_id, roles)


def members_of(tenant: TenantId) -> str:
    """The name of the group of a tenant's people in the user pool."""
    return f"tenant:{tenant}"
