"""How much each sender may say."""

import pytest

from sbc_agent.protocol.limits import COST_BYTES, MAX_HOSTS, Bucket, HostLimits, Rate, SipLimits

LIMITS = SipLimits(known=Rate(100, 50), stranger=Rate(10, 5), strangers=Rate(20, 10), total=Rate(1_000, 500))


def admitted(hosts: HostLimits, host: str, times: int, now: float, size_bytes: int = 0) -> int:
    return sum(hosts.admits(host, size_bytes, now) for _ in range(times))


def test_a_stranger_has_its_burst_and_then_its_rate() -> None:
    """What comes faster than the rate is refused; a second later there is as much again as the rate says."""
    hosts = HostLimits(LIMITS)
    assert admitted(hosts, "192.0.2.1", 100, 1.0) == 5
    assert admitted(hosts, "192.0.2.1", 100, 1.15) == 1
    assert admitted(hosts, "192.0.2.1", 100, 11.0) == 5


def test_strangers_of_many_addresses_share_one_bucket() -> None:
    """A flood from a thousand addresses gets no more than all strangers may say together."""
    hosts = HostLimits(LIMITS)
    assert sum(admitted(hosts, f"192.0.{index // 250}.{index % 250}", 5, 1.0) for index in range(1_000)) == 10


def test_a_known_host_does_not_feel_a_flood_of_strangers() -> None:
    """The host with which a dialog was confirmed is read on, whatever strangers send."""
    hosts = HostLimits(LIMITS)
    hosts.know("198.51.100.7")
    for index in range(1_000):
        hosts.admits(f"192.0.2.{index % 250}", 0, 1.0)
    assert admitted(hosts, "198.51.100.7", 50, 1.0) == 50


def test_hosts_of_the_settings_are_known_from_the_beginning() -> None:
    """A configured SBC needs no dialog first."""
    hosts = HostLimits(LIMITS, frozenset({"198.51.100.7"}))
    assert admitted(hosts, "198.51.100.7", 100, 1.0) == 50


def test_everybody_together_is_bounded() -> None:
    """Known hosts have a common bound too."""
    hosts = HostLimits(LIMITS, frozenset(f"198.51.100.{index}" for index in range(100)))
    assert sum(admitted(hosts, f"198.51.100.{index}", 50, 1.0) for index in range(100)) == 500


def test_a_large_message_costs_more() -> None:
    """Bodies of 64 KiB are read by their size, not by their number."""
    hosts = HostLimits(LIMITS, frozenset({"198.51.100.7"}))
    assert admitted(hosts, "198.51.100.7", 50, 1.0, size_bytes=9 * COST_BYTES) == 5


def test_a_stream_waits_until_its_debt_is_paid() -> None:
    """What a connection said is counted afterwards; then it waits as long as its rate asks."""
    hosts = HostLimits(LIMITS)
    hosts.take("192.0.2.1", 15, 1.0)
    assert hosts.wait("192.0.2.1", 1.0) == pytest.approx(1.1)
    assert hosts.wait("192.0.2.1", 2.5) == 0.0


def test_the_table_of_hosts_is_bounded() -> None:
    """A hundred thousand forged addresses take no more memory than a few thousand."""
    hosts = HostLimits(LIMITS)
    for index in range(3 * MAX_HOSTS):
        hosts.admits(f"host-{index}", 0, 1.0)
        hosts.know(f"known-{index}")
    assert len(hosts._others) == len(hosts._known) == MAX_HOSTS


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """However long nothing was taken."""
    bucket = Bucket(Rate(10, 5))
    assert bucket.wait(1e9) == 0.0
    bucket.take(6)
    assert bucket.wait(1e9) == pytest.approx(0.2)
