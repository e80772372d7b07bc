"""The key that takes two custodians: how a recording's node set is sealed, and what its item holds.

::

    info  = canonical JSON of [tenant, recording, v]
    KEK_v = HKDF-SHA256(share_A || share_B, no salt, info, 32 bytes)             RFC 5869
    nodes = nonce[12] || AES-256-GCM(KEK_v, nonce, node set, AAD = info)

Both shares are 32 bytes, drawn independently; whoever has one of them knows nothing of the KEK, because 256 unknown
bits remain in the input of HKDF. PCI DSS 4.0 requirement 3.7.6 speaks of manual key handling; its idea of split
knowledge is met here by the machines: a share is never a half of the key. Since tenant, recording and version are part
of both the derivation and the AAD, an item moved elsewhere does not open (requirement 3.7.7). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dualtone.domain import canonical, keytree
from dualtone.domain.errors import IntegrityError, MalformedInput
from dualtone.domain.ids import RecordingId, TenantId
from dualtone.domain.keytree import NodeSet

SHARE_BYTES: Final = 32
NONCE_BYTES: Final = 12
FIRST_VERSION: Final = 1

Custodian = Literal["A", "B"]


@dataclass(frozen=True, slots=True)
class KeyScope:
    """Whose keys: everything that the KEK is bound to.

    Attributes:
        tenant: The tenant.
        recording: The recording.
        version: The version v of the key item, from 1; every puncture or rewrap raises it.
    """

    tenant: TenantId
    recording: RecordingId
    version: int = FIRST_VERSION

    @property
    def info(self) -> bytes:
        """The bytes that bind derivation and sealing to this scope."""
        return canonical.encode([self.tenant, self.recording, self.version])

    def context(self, custodian: Custodian) -> dict[str, str]:
        """The KMS EncryptionContext of a custodian's share. CloudTrail shows it: it holds no personal data."""
        return {
            "tenant": self.tenant,
            "recording": self.recording,
            "custodian": custodian,
            "version": str(self.version),
        }


@dataclass(frozen=True, slots=True)
class KeyItem:
    """What the keys table holds for a recording. Nothing in it is of use without both custodians.

    Attributes:
        version: v, from 1.
        nodes: The sealed node set.
        share_a: Custodian A's share, wrapped by KMS.
        share_b: Custodian B's share, wrapped by KMS.
        key_a_arn: The KMS key that wrapped ``share_a``.
        key_b_arn: The KMS key that wrapped ``share_b``.
        created_at_ms: When this version was made, Unix time.
    """

    version: int
    nodes: bytes = field(repr=False)
    share_a: bytes = field(repr=False)
    share_b: bytes = field(repr=False)
    key_a_arn: str
    key_b_arn: str
    created_at_ms: int


def derive_kek(share_a: bytes, share_b: bytes, scope: KeyScope) -> bytes:
    """Derives KEK_v from both shares.

    Args:
        share_a: Custodian A's share, 32 bytes.
        share_b: Custodian B's share, 32 bytes.
        scope: What the key is bound to.

    Returns:
        32 bytes.

    Raises:
        IntegrityError: If a share is not of full length, or both are the same one.
    """
    if len(share_a) != SHARE_BYTES or len(share_b) != SHARE_BYTES:
        raise IntegrityError("a custodian's share is not of full length")
    if share_a == share_b:
        raise IntegrityError("both custodians gave the same share")
    return HKDF(SHA256(), 32, salt=None, info=scope.info).derive(share_a + share_b)


def seal_nodes(nodes: NodeSet, share_a: bytes, share_b: bytes, scope: KeyScope, nonce: bytes) -> bytes:
    """Seals a node set under both shares.

    Args:
        nodes: The node set.
        share_a: Custodian A's share, 32 fresh random bytes.
        share_b: Custodian B's share, 32 fresh random bytes.
        scope: What the result is bound to.
        nonce: 12 random bytes.

    Returns:
        Nonce, ciphertext and tag.

    Raises:
        IntegrityError: If a share is unfit.
        ValueError: If the nonce is not 12 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError("the nonce is 12 bytes")
    kek = derive_kek(share_a, share_b, scope)
    return nonce + AESGCM(kek).encrypt(nonce, keytree.encode(nodes), scope.info)


def open_nodes(sealed: bytes, share_a: bytes, share_b: bytes, scope: KeyScope) -> NodeSet:
    """Opens a node set with both shares.

    Raises:
        IntegrityError: If a share, the scope or the sealed bytes are not those of one sealing.
    """
    kek = derive_kek(share_a, share_b, scope)
    try:
        return keytree.decode(AESGCM(kek).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], scope.info))
    except (InvalidTag, MalformedInput, ValueError) as error:
        raise IntegrityError("the node set does not open: other shares, another recording, or altered") from error
