"""moto, mended: everything in which moto 5.2.5 departs from AWS and on which the product relies.

Not mended, and therefore never to be concluded from a test here: IAM, key and bucket policies, grants and tag
conditions are not enforced; presigned URLs are not verified; TTL never expires an item; lifecycle rules are stored
only.
"""

from contextlib import AbstractContextManager

from infra.local.moto_fixes import cognito, dynamodb, dynamodb_capacity, kms_keys, kms_operations, mend, s3, sqs

MENDS: tuple[mend.Mend, ...] = (
    *kms_keys.MENDS,
    *kms_operations.MENDS,
    *dynamodb.MENDS,
    *dynamodb_capacity.MENDS,
    *s3.MENDS,
    *sqs.MENDS,
    *cognito.MENDS,
)


def mended(without: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """Apply every mend for the length of a `with` block.

    Args:
        without: names of mends to leave out, for tests that show what moto does by itself.

    Returns:
        The context manager.
    """
    return mend.applied(MENDS, without)
