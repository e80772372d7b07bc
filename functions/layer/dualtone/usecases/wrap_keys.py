"""Wrap a recording's keys between two custodians, and unwrap them again."""

from __future__ import annotations

from typing import Protocol

from dualtone.domain import kek
from dualtone.domain.errors import PolicyViolation
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.domain.keytree import NodeSet


class Custody(Protocol):
    """The custodians' keys, as one tenant's session may use them: KMS under the vault-access role."""

    def generate_data_key(self, key: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        """Draws 32 random bytes; returns them and the same wrapped under the key, bound to the context."""

    def decrypt(self, key: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        """Unwraps what the named key wrapped under this context; raises IntegrityError for anything else."""


def wrap(
    custody: Custody, *, nodes: NodeSet, scope: KeyScope, key_a: str, key_b: str, nonce: bytes, created_at_ms: int
) -> KeyItem:
    """Draws a share from each custodian and seals a node set under both.

    Args:
        custody: The custodians' keys.
        nodes: The node set.
        scope: Tenant, recording and version of the item.
        key_a: ARN of custodian A's key.
        key_b: ARN of custodian B's key.
        nonce: 12 random bytes.
        created_at_ms: Now, Unix time.

    Returns:
        The item for the keys table.

    Raises:
        PolicyViolation: If both custodians are one, or a key refuses.
        Unavailable: If a key does not answer.
    """
    if key_a == key_b:
        raise PolicyViolation("custodians A and B must hold two different keys")
    share_a, wrapped_a = custody.generate_data_key(key_a, scope.context("A"))
    share_b, wrapped_b = custody.generate_data_key(key_b, scope.context("B"))
    return KeyItem(
        version=scope.version,
        nodes=kek.seal_nodes(nodes, share_a, share_b, scope, nonce),
        share_a=wrapped_a,
        share_b=wrapped_b,
        key_a_arn=key_a,
        key_b_arn=key_b,
        created_at_ms=created_at_ms,
    )


def unwrap(custody: Custody, item: KeyItem, scope: KeyScope) -> NodeSet:
    """Asks both custodians for their shares and opens the node set.

    Args:
        custody: The custodians' keys.
        item: What the keys table holds.
        scope: Whose keys they must be; an item of another tenant, recording or version does not open.

    Returns:
        The node set.

    Raises:
        IntegrityError: If the item is not the one that was made for this scope.
        PolicyViolation: If a key refuses.
        Unavailable: If a key does not answer.
    """
    share_a = custody.decrypt(item.key_a_arn, item.share_a, scope.context("A"))
    share_b = custody.decrypt(item.key_b_arn, item.share_b, scope.context("B"))
    return kek.open_nodes(item.nodes, share_a, share_b, scope)
