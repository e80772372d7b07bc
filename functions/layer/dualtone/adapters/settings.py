"""What a function's environment tells it: names and ARNs of the deployment's resources. No secret among them."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment of every function, as the template's globals set it (``DUALTONE_INDEX_TABLE`` and so on).

    Attributes:
        stage: Name of the deployment.
        public_url: Base URL of the API; empty to take it from each request.
        index_table: Recordings, tokens, claims, attempts.
        keys_table: Key items.
        directory_table: Tenants, bindings, agents.
        audit_table: The audit outbox.
        ingest_bucket: Uploads.
        vault_bucket: Sealed recordings.
        custodian_a_key: ARN of custodian A's key.
        custodian_b_key: ARN of custodian B's key.
        ingest_key: ARN of the RSA-4096 key to which call keys are wrapped.
        signing_key: ARN of the P-256 key that signs recordings, receipts and ingest keys.
        certificate_key: ARN of the P-256 key that signs the certificates of gaps.
        metadata_key: ARN of the key under which the months' metadata keys are wrapped.
        hmac_key: ARN of the key of the search tokens.
        finalize_queue_url: Where manifests are announced.
        agent_events_queue_url: Where agents report.
        cut_queue_url: Where calls are named of which a paused span was kept.
        user_pool_id: Where people sign in.
        agent_role_arn: What agents' credentials are made from.
        vault_access_role_arn: What sessions at the custodians are made from.
        reconcile_after_s: From which age on an attempt is reconciled; longer than a finaliser can run.
        interrupted_after_s: After how long a silence a live call counts as interrupted; agents tell every 30 seconds.
        sweep_after_h: After how long a silence what came of a call is finalised; well below the ingest bucket's expiry.
    """

    model_config = SettingsConfigDict(env_prefix="DUALTONE_", frozen=True, extra="ignore")

    stage: str
    public_url: str = ""
    index_table: str
    keys_table: str
    directory_table: str
    audit_table: str
    ingest_bucket: str
    vault_bucket: str
    custodian_a_key: str
    custodian_b_key: str
    ingest_key: str
    signing_key: str
    certificate_key: str
    metadata_key: str
    hmac_key: str
    finalize_queue_url: str
    agent_events_queue_url: str
    cut_queue_url: str
    user_pool_id: str
    agent_role_arn: str
    vault_access_role_arn: str
    reconcile_after_s: int = 1200
    interrupted_after_s: int = 300
    sweep_after_h: int = 72
