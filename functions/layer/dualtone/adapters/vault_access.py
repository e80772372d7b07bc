"""Sessions at the custodians, one per tenant: what a session may decrypt is decided by its tag, not by our code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dualtone.adapters.aws_errors import translated
from dualtone.adapters.kms import Kms
from dualtone.domain.ids import TenantId

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import CredentialsTypeDef

SESSION_SECONDS: Final = 900
"""The shortest that STS grants, and the longest that a tenant's credentials are kept."""

_MARGIN_S: Final = 60

KmsClientMaker = Callable[["CredentialsTypeDef"], "KMSClient"]


class VaultAccess:
    """Assumes the vault-access role with the tenant as its session tag.

    The custodians' key policies let Decrypt and GenerateDataKey pass only where ``aws:PrincipalTag/tenant`` equals
    ``kms:EncryptionContext:tenant``: even a mistake of ours could not open one tenant's recording in another's session.
    """

    def __init__(
        self, sts: STSClient, role_arn: str, kms_client: KmsClientMaker, monotonic_s: Callable[[], float]
    ) -> None:
        """Takes what sessions are made from.

        Args:
            sts: Assumes the role.
            role_arn: The vault-access role.
            kms_client: Makes a KMS client that uses the given credentials.
            monotonic_s: A clock that never steps, in seconds.
        """
        self._sts = sts
        self._role_arn = role_arn
        self._kms_client = kms_client
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._sessions: dict[TenantId, tuple[float, Kms]] = {}

    def custody(self, tenant: TenantId) -> Kms:
        """KMS with this tenant's rights; the session is kept for at most 14 minutes of its 15.

        Raises:
            PolicyViolation: If the role may not be assumed.
            Unavailable: If STS does not answer.
        """
        with self._lock:
            now = self._monotonic_s()
            expires, kms = self._sessions.get(tenant, (now, None))
            if kms is None or now >= expires:
                kms = Kms(self._kms_client(self._assume(tenant)))
                self._sessions[tenant] = (now + SESSION_SECONDS - _MARGIN_S, kms)
            return kms

    def _assume(self, tenant: TenantId) -> CredentialsTypeDef:
        with translated("opening a session at the custodians"):
            answer = self._sts.assume_role(
                RoleArn=self._role_arn,
                RoleSessionName=f"vault-{tenant}",
                DurationSeconds=SESSION_SECONDS,
                Tags=[{"Key": "tenant", "Value": tenant}],
            )
        return answer["Credentials"]


def kms_client_maker(make_client: Callable[..., KMSClient]) -> KmsClientMaker:
    """Adapts ``boto3.client`` (or a session's) to the credentials of an assumed role."""

    def make(credentials: CredentialsTypeDef) -> KMSClient:
        return make_client(
            "kms",
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    return make
