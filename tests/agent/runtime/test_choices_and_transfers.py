"""A choice made before a call, or in an earlier dialog of it, is applied at the answer, whatever the SBC does.

Each way in which a choice comes, with each way in which switches transfer: a BYE and a new INVITE in one group
(NetSapiens), other ids within the dialog (Webex), and a new dialog that replaces the old one (Ribbon, RFC 3891).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from dualtone.domain import ids
from dualtone.domain.agent_events import DecisionEvent
from dualtone.domain.call_decision import Decision
from dualtone.domain.ids import CallId
from sbc_agent.runtime.consents import INHERITED_US, PENDING_US
from tests.agent.protocol.builders import Src
from tests.agent.runtime.ruled import OFFSET_US, Site, in_loop, metadata, rule, token
from tests.agent.runtime.spooled import AGENT, TENANT

KEYS = {"accept_keys": "1", "decline_keys": "2", "headers": {"name": "X-Consent", "accept": ["yes"], "decline": ["no"]}}
QUEUE, AGENTS_LEG = "queue-leg@example.com", "agents-leg@example.com"

Transfer = Callable[[Site, Src], str]


class Source(Protocol):
    """A way in which a choice comes; returns the call for which it was made."""

    async def __call__(self, site: Site, src: Src, keep: bool) -> str: ...


def grouped(text: str) -> str:
    return text.replace("<sipSessionID>", "<group-ref>G1</group-ref><sipSessionID>")


def named(session: str) -> str:
    return f"<sipSessionID>{session}</sipSessionID>"


def decision(site: Site, *, keep: bool, match: str) -> Decision:
    """What the cloud makes of an announcement's webhook."""
    now_ms = (OFFSET_US + round(site.now * 1_000_000)) // 1000
    return Decision(
        id=ids.ulid(now_ms, bytes(10)),
        tenant=TENANT,
        agent=AGENT,
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
        call=None,
        match=match,
        decision="keep" if keep else "discard",
        cause="consent",
        how="webhook",
        by="endpoint:announcement",
    )


async def webhook_before_the_call(site: Site, src: Src, keep: bool) -> str:
    assert await site.control.decided(decision(site, keep=keep, match=token("call_id", QUEUE))) == "pending"
    return site.call(src, text=grouped(metadata(session=QUEUE)))


async def lan_call_before_the_call(site: Site, src: Src, keep: bool) -> str:
    found = await site.control.decide_by_match(token("call_id", QUEUE), keep=keep, cause="consent", by="lan:bearer")
    assert found == []
    return site.call(src, text=grouped(metadata(session=QUEUE)))


async def header_of_the_invite(site: Site, src: Src, keep: bool) -> str:
    return site.call(src, ("X-Consent", "yes" if keep else "no"), text=grouped(metadata(session=QUEUE)))


async def key_in_the_queue(site: Site, src: Src, keep: bool) -> str:
    call = site.call(src, text=grouped(metadata(session=QUEUE)))
    site.press(call, "accept" if keep else "decline")
    return call


def netsapiens(site: Site, src: Src) -> str:
    """BYE, then another INVITE in the same group."""
    site.hang_up(src)
    return site.call(
        Src(call_id="after", tag="after"), text=grouped(metadata(session=AGENTS_LEG, other="+447700900444"))
    )


def webex(site: Site, src: Src) -> str:
    """Every id changes within the dialog; then the SBC begins another one under the new ids."""
    site.update(src, metadata(session=AGENTS_LEG, other="+447700900444"))
    return site.call(Src(call_id="after", tag="after"), text=metadata(session=AGENTS_LEG, other="+447700900444"))


def ribbon(site: Site, src: Src) -> str:
    """A new dialog names the one that it replaces, and that is ended."""
    named = f"{src.call_id};to-tag={src.to_tag};from-tag={src.tag}"
    after = Src(call_id="after", tag="after")
    return site.call(after, ("Replaces", named), text=metadata(session=AGENTS_LEG, other="+447700900444"))


SOURCES = [webhook_before_the_call, lan_call_before_the_call, header_of_the_invite, key_in_the_queue]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("transfer", [netsapiens, webex, ribbon])
@pytest.mark.parametrize("source", SOURCES)
@in_loop
async def test_a_choice_is_applied_after_a_transfer(
    tmp_path: Path, source: Source, transfer: Transfer, keep: bool
) -> None:
    """Both dialogs are kept from their answers on, or nothing is gathered of the second one at all."""
    site, src = Site(tmp_path, rule("consent", **KEYS)), Src(call_id="queue", tag="queue")
    first = site.standing(await source(site, src, keep))
    site.pass_time(40)
    call = transfer(site, src)
    told = site.of(call)
    if keep:
        assert (first, told.waits, site.standing(call)) == ("recorded", False, "recorded")
        facts = dict(told.sessions[-1])
        assert facts["consents"][0]["choice"] == "accept"
        assert facts["policy"]["how"] == "inherited"
    else:
        assert (first, told.waits, told.silent) == ("not_recorded", True, True)
        assert site.silent_to_the_cloud


@pytest.mark.parametrize("transfer", [netsapiens, webex, ribbon])
@in_loop
async def test_a_choice_outlives_the_agent_between_two_dialogs(tmp_path: Path, transfer: Transfer) -> None:
    """It is restarted after the choice: the dialog that follows inherits it all the same."""
    rules, src = rule("consent", **KEYS), Src(call_id="queue", tag="queue")
    first = Site(tmp_path, rules)
    await key_in_the_queue(first, src, keep=False)
    second = Site(tmp_path, rules, now=1010.0)
    src.cseq += 10
    call = transfer(second, src)
    assert (second.of(call).waits, second.of(call).silent, second.silent_to_the_cloud) == (True, True, True)


@in_loop
async def test_a_choice_before_the_call_outlives_the_agent_too(tmp_path: Path) -> None:
    rules, src = rule("consent", **KEYS), Src()
    first = Site(tmp_path, rules)
    await first.control.decided(decision(first, keep=True, match=token("call_id", QUEUE)))
    second = Site(tmp_path, rules, now=1010.0)
    call = second.call(src, text=metadata(session=QUEUE))
    assert not second.of(call).waits
    assert dict(second.of(call).sessions[-1])["policy"]["how"] == "webhook"


@in_loop
async def test_a_choice_is_for_one_call(tmp_path: Path) -> None:
    """What waited for a call by its name is not given to another one that has the same name later."""
    site = Site(tmp_path, rule("consent", **KEYS))
    await site.control.decided(decision(site, keep=True, match=token("external_id", "7")))
    one = site.call(Src(call_id="one", tag="one"), text=_with_ticket("one"))
    other = site.call(Src(call_id="other", tag="other"), text=_with_ticket("other"))
    assert (site.of(one).waits, site.of(other).waits) == (False, True)


@in_loop
async def test_an_opt_out_stops_that_call_only(tmp_path: Path) -> None:
    """T6: another call of the same people goes on."""
    site = Site(tmp_path, rule("consent", **KEYS))
    one = site.call(Src(call_id="one", tag="one"), text=metadata(session="one"))
    other = site.call(Src(call_id="other", tag="other"), text=metadata(session="other"))
    site.press(one, "decline")
    assert (site.standing(one), site.standing(other)) == ("not_recorded", "waiting")


@in_loop
async def test_both_copies_of_a_call_are_decided_at_once(tmp_path: Path) -> None:
    """Two SBCs report one call: who refuses in one dialog has refused in both."""
    site = Site(tmp_path, rule("consent", **KEYS))
    one = site.call(Src(call_id="one", tag="one"), text=metadata(session=QUEUE))
    other = site.call(Src(call_id="other", tag="other"), text=metadata(session=QUEUE))
    site.press(one, "decline")
    assert (site.standing(one), site.standing(other)) == ("not_recorded", "not_recorded")


@in_loop
async def test_a_choice_that_is_made_again_is_told_once(tmp_path: Path) -> None:
    """A key that is held down, or a desk that asks all day, fills neither memory nor the cloud's audit log."""
    site = Site(tmp_path, rule("live_keep", **KEYS))
    call = CallId(site.call(Src()))
    for _ in range(3):
        await site.control.decide(call, keep=True, cause="on_demand", by="desk:one")
    assert [event.outcome for event in site.told.of(DecisionEvent)] == ["kept"]


@in_loop
async def test_a_choice_reaches_calls_that_share_a_link_with_one_that_has_it(tmp_path: Path) -> None:
    """The queue's leg and the transfer's know each other only through the leg between them; a fourth knows none."""
    site = Site(tmp_path, rule("consent", **KEYS))
    texts = {
        "last": metadata(session="c"),
        "queue": metadata(session="a"),
        "between": metadata(session="b").replace("<sipSessionID>", f"{named('a;remote=c')}<sipSessionID>", 1),
        "fourth": metadata(session="d"),
    }
    calls = {name: site.call(Src(call_id=name, tag=name), text=text) for name, text in texts.items()}
    site.press(calls["queue"], "decline")
    assert {name: site.standing(call) for name, call in calls.items()} == {
        "last": "not_recorded",
        "queue": "not_recorded",
        "between": "not_recorded",
        "fourth": "waiting",
    }


@pytest.mark.parametrize(("after_us", "waits"), [(PENDING_US - 1_000_000, False), (PENDING_US + 1_000_000, True)])
@in_loop
async def test_a_choice_waits_an_hour_for_its_call(tmp_path: Path, after_us: int, waits: bool) -> None:
    site = Site(tmp_path, rule("consent", **KEYS))
    await site.control.decided(decision(site, keep=True, match=token("call_id", QUEUE)))
    site.now += after_us / 1_000_000
    assert site.of(site.call(Src(), text=metadata(session=QUEUE))).waits == waits


@pytest.mark.parametrize(("after_us", "waits"), [(INHERITED_US - 1_000_000, False), (INHERITED_US + 1_000_000, True)])
@in_loop
async def test_a_choice_is_inherited_for_four_hours(tmp_path: Path, after_us: int, waits: bool) -> None:
    site, src = Site(tmp_path, rule("consent", **KEYS)), Src(call_id="queue", tag="queue")
    await key_in_the_queue(site, src, keep=True)
    site.hang_up(src)
    site.now += after_us / 1_000_000
    later = site.call(Src(call_id="after", tag="after"), text=grouped(metadata(session=AGENTS_LEG)))
    assert site.of(later).waits == waits


@pytest.mark.parametrize("source", SOURCES)
@in_loop
async def test_a_regulated_line_ignores_every_refusal(tmp_path: Path, source: Source) -> None:
    """It is recorded at once; a call that follows on another line inherits the refusal."""
    must = rule("always", id="dealers", regulated=True, match={"lines": ["+442079460111"]})
    site, src = Site(tmp_path, must, rule("consent", **KEYS)), Src(call_id="queue", tag="queue")
    call = await source(site, src, keep=False)
    assert (site.of(call).waits, site.of(call).pauses, site.of(call).decisions) == (False, [], [])
    assert site.standing(call) == "recorded"


def _with_ticket(session: str) -> str:
    return metadata(session=session, extra="<ticket>7</ticket>")
