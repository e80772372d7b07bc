"""KMS keys and aliases. moto enforces no key policy and no grant: nothing about authority follows from a test here."""

import json

from infra.local.intrinsics import Created
from infra.local.resources.resource import Account, Maker, Resource


def key(account: Account, resource: Resource) -> Created:
    """Make a KMS key of the spec and usage named, with its policy, rotation and tags."""
    resource.account_for(
        ("Description", "EnableKeyRotation", "Enabled", "KeyPolicy", "KeySpec", "KeyUsage", "MultiRegion", "Tags"),
        {"PendingWindowInDays": "it speaks of deletion with the stack, and a local cloud ends with its process"},
    )
    kms = account.client("kms")
    wanted = resource.properties
    metadata = kms.create_key(
        Description=wanted.get("Description", ""),
        KeySpec=wanted.get("KeySpec", "SYMMETRIC_DEFAULT"),
        KeyUsage=wanted.get("KeyUsage", "ENCRYPT_DECRYPT"),
        MultiRegion=wanted.get("MultiRegion", False),
        Policy=json.dumps(wanted["KeyPolicy"]),
        Tags=[{"TagKey": name, "TagValue": value} for name, value in resource.tags().items()],
    )["KeyMetadata"]
    if wanted.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=metadata["KeyId"])
    if wanted.get("Enabled") is False:
        kms.disable_key(KeyId=metadata["KeyId"])
    return Created(metadata["KeyId"], {"Arn": metadata["Arn"], "KeyId": metadata["KeyId"]})


def alias(account: Account, resource: Resource) -> Created:
    """Give a key its alias."""
    resource.account_for(("AliasName", "TargetKeyId"))
    account.client("kms").create_alias(**resource.properties)
    return Created(resource.properties["AliasName"])


MAKERS: dict[str, Maker] = {"AWS::KMS::Key": key, "AWS::KMS::Alias": alias}
