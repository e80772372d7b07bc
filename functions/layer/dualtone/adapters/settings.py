"""What the template tells every function through its environment (``Globals`` in template.yaml)."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The deployment's resources, by name, ARN or URL.

    Attributes:
        public_url: Under which clients see the API, without a final slash; empty to take it from each request.
    """

    model_config = SettingsConfigDict(env_prefix="DUALTONE_", frozen=True)

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
    metadata_key: str
    hmac_key: str
    finalize_queue_url: str
    user_pool_id: str
    agent_role_arn: str
    vault_access_role_arn: str
