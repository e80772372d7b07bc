"""Wrapping between two custodians: both are asked, each for its own share, under the recording's context."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualtone.domain import keytree
from dualtone.domain.errors import IntegrityError, PolicyViolation
from dualtone.domain.kek import KeyItem, KeyScope
from dualtone.usecases import wrap_keys
from tests.vault_samples import ACME, GLOBEX, KEY_A, KEY_B, OTHER_RECORDING, RECORDING, Custodians

SCOPE = KeyScope(ACME, RECORDING)
NODES = keytree.full(bytes(range(32)), 10)


def wrapped(custodians: Custodians, scope: KeyScope = SCOPE, key_b: str = KEY_B) -> KeyItem:
    return wrap_keys.wrap(
        custodians, nodes=NODES, scope=scope, key_a=KEY_A, key_b=key_b, nonce=bytes(12), created_at_ms=7
    )


def test_what_was_wrapped_unwraps() -> None:
    """Both custodians are asked, each with its own key named and the full context."""
    custodians = Custodians()
    item = wrapped(custodians)
    assert wrap_keys.unwrap(custodians, item, SCOPE) == NODES
    assert custodians.asked == [(KEY_A, SCOPE.context("A")), (KEY_B, SCOPE.context("B"))]
    assert (item.version, item.key_a_arn, item.key_b_arn, item.created_at_ms) == (1, KEY_A, KEY_B, 7)


def test_two_wrappings_share_nothing() -> None:
    """Every wrapping draws two new shares."""
    custodians = Custodians()
    once, again = wrapped(custodians), wrapped(custodians)
    assert len({once.share_a, once.share_b, again.share_a, again.share_b}) == 4
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(custodians, replace(once, share_a=again.share_a), SCOPE)


def test_one_key_is_not_two_custodians() -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.6: no single key wraps both shares."""
    with pytest.raises(PolicyViolation):
        wrapped(Custodians(), key_b=KEY_A)


@pytest.mark.parametrize(
    "scope",
    [KeyScope(GLOBEX, RECORDING), KeyScope(ACME, OTHER_RECORDING), KeyScope(ACME, RECORDING, 2)],
    ids=["tenant", "recording", "version"],
)
def test_an_item_moved_elsewhere_does_not_unwrap(scope: KeyScope) -> None:
    """REQ: PCI DSS 4.0 requirement 3.7.7: a wrapped key swapped between recordings or tenants is rejected."""
    custodians = Custodians()
    item = wrapped(custodians)
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(custodians, item, scope)


@pytest.mark.parametrize("field", ["nodes", "share_a", "share_b"])
def test_a_part_of_another_item_does_not_unwrap(field: str) -> None:
    """Nor does one share, or the node set, of another recording in an item of this one."""
    custodians = Custodians()
    foreign = wrapped(custodians, KeyScope(ACME, OTHER_RECORDING))
    item = replace(wrapped(custodians), **{field: getattr(foreign, field)})
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(custodians, item, SCOPE)


def test_exchanged_custodians_do_not_unwrap() -> None:
    """A's share is bound to A."""
    custodians = Custodians()
    item = wrapped(custodians)
    exchanged = replace(
        item, share_a=item.share_b, share_b=item.share_a, key_a_arn=item.key_b_arn, key_b_arn=item.key_a_arn
    )
    with pytest.raises(IntegrityError):
        wrap_keys.unwrap(custodians, exchanged, SCOPE)
