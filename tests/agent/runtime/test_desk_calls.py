"""Desks over real sockets: a token reaches the live calls of its own lines and nothing else, uplink or not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sbc_agent.runtime import desks
from sbc_agent.runtime.control_facts import ControlFacts
from sbc_agent.runtime.rate_limit import RateLimit
from tests.agent.runtime.controlled import until
from tests.agent.runtime.desked import REGULATED, DeskSite, serve
from tests.agent.runtime.spooled import call_id

PROBLEM = "urn:dualtone:problem:"


def test_a_desk_sees_its_own_live_calls_alone(tmp_path: Path) -> None:
    """Not another extension's, and not those that have ended."""

    async def scenario(site: DeskSite) -> None:
        new = site.add("Reception", "1001", "1003")
        mine = site.begin(1, "1001")
        site.begin(2, "1002")
        also = site.begin(3, "1003")
        ended = site.begin(4, "1001")
        site.agent.end(ended)
        status, answer, _ = await site.ask(new.token, "GET", "/v1/desk/calls")
        assert (status, answer["desk"]) == (200, "Reception")
        assert [call["call_id"] for call in answer["calls"]] == [mine, also]
        assert answer["calls"][0] == {
            "call_id": mine,
            "state": "recording",
            "started_at": "2027-01-15T08:00:00.000Z",
            "causes": [],
        }

    serve(tmp_path, scenario)


def test_pause_and_resume_act_on_the_one_live_call(tmp_path: Path) -> None:
    """Cause manual, by the desk's opaque id; nothing of the token is logged."""
    tokens: list[str] = []

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        tokens.extend((new.token, new.phone))
        call, other = site.begin(1), site.begin(2, "1002")
        status, answer, _ = await site.ask(new.token, "POST", "/v1/desk/pause")
        assert (status, answer["outcome"], answer["calls"][0]["causes"]) == (200, "acknowledged", ["manual"])
        _, listed, _ = await site.ask(new.token, "GET", "/v1/desk/calls")
        assert listed["calls"][0]["state"] == "paused"
        status, answer, _ = await site.ask(new.token, "POST", "/v1/desk/resume", {"call_id": call})
        assert (status, answer["calls"][0]["paused"]) == (200, False)
        assert site.agent.causes(call) == site.agent.causes(other) == ()
        assert [ack.by for ack in site.agent.told.acks] == [f"desk:{new.desk.id}"] * 2

    site = serve(tmp_path, scenario)
    assert all(secret not in site.agent.lines.stream.getvalue() for secret in tokens)


def test_a_resume_leaves_other_causes(tmp_path: Path) -> None:
    """A payment's pause is not the desk's to lift."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        await site.agent.control.obey(site.agent.command(call=call))
        status, answer, _ = await site.ask(new.token, "POST", "/v1/desk/resume")
        assert (status, answer["calls"][0]["causes"]) == (200, ["payment"])
        assert site.agent.causes(call) == ("payment",)

    serve(tmp_path, scenario)


def test_none_and_several_live_calls_are_clear_problems(tmp_path: Path) -> None:
    """404 says that none is live; 409 names those that are; with an id it acts on that one."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        status, problem, _ = await site.ask(new.token, "POST", "/v1/desk/pause")
        assert (status, problem["detail"]) == (404, "no call is live on this desk's lines")
        first, second = site.begin(1), site.begin(2)
        status, problem, _ = await site.ask(new.token, "POST", "/v1/desk/pause")
        assert (status, problem["type"], problem["calls"]) == (409, f"{PROBLEM}several-calls", [first, second])
        assert site.agent.causes(first) == site.agent.causes(second) == ()
        status, _, _ = await site.ask(new.token, "POST", "/v1/desk/pause", {"call_id": second})
        assert (status, site.agent.causes(first), site.agent.causes(second)) == (200, (), ("manual",))

    serve(tmp_path, scenario)


@pytest.mark.parametrize("verb", ["pause", "resume", "keep", "personal"])
def test_another_desks_call_is_as_one_that_does_not_exist(tmp_path: Path, verb: str) -> None:
    """The same 404 for both, and no effect."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        other = site.begin(2, "1002")
        found = [
            await site.ask(new.token, "POST", f"/v1/desk/{verb}", {"call_id": call}) for call in (other, call_id(1, 5))
        ]
        assert [(status, problem["detail"]) for status, problem, _ in found] == [(404, "no such call is live here")] * 2
        assert site.agent.media.commands == []
        assert site.decisions.taken == []

    serve(tmp_path, scenario)


def test_keep_and_personal_are_decisions_of_the_desk(tmp_path: Path) -> None:
    """A call that waits is kept; one that is recorded becomes personal."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        calls = site.agent.control.calls
        calls.put(replace(calls.live_with(calls.get(call).tokens)[0], standing="on_demand"))  # type: ignore[union-attr]
        _, listed, _ = await site.ask(new.token, "GET", "/v1/desk/calls")
        assert listed["calls"][0]["state"] == "waiting"
        status, answer, _ = await site.ask(new.token, "POST", "/v1/desk/keep")
        assert (status, answer["outcome"], answer["calls"][0]["state"]) == (200, "kept", "recording")
        status, answer, _ = await site.ask(new.token, "POST", "/v1/desk/personal")
        assert (status, answer["outcome"], answer["calls"][0]["state"]) == (200, "discarded", "not_recorded")
        by = f"desk:{new.desk.id}"
        assert site.decisions.taken == [(call, True, "on_demand", by), (call, False, "personal", by)]

    serve(tmp_path, scenario)


def test_personal_on_a_regulated_line_is_refused_in_a_plain_sentence(tmp_path: Path) -> None:
    """403 says why."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        site.decisions.regulated.add(site.begin())
        status, problem, _ = await site.ask(new.token, "POST", "/v1/desk/personal")
        assert (status, problem["detail"]) == (403, REGULATED)

    serve(tmp_path, scenario)


def test_each_token_has_its_own_powers(tmp_path: Path) -> None:
    """A desk's token is refused by the agent's API, the agent's token by the desks', and a removed one by both."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        for method, path in (("GET", "/v1/calls"), ("POST", f"/v1/calls/{call}/pause"), ("POST", "/v1/pauses")):
            status, _, _ = await site.ask(new.token, method, path)
            assert status == 403
            status, _, _ = await site.ask(site.token, method, path)
            assert status in {200, 422}
        assert (await site.ask(site.token, "GET", "/v1/desk/calls"))[0] == 403
        assert (await site.ask(new.phone, "GET", "/v1/desk/calls"))[0] == 401
        desks.remove(tmp_path, "Reception")
        assert (await site.ask(new.token, "GET", "/v1/desk/calls"))[0] == 401

    serve(tmp_path, scenario)


@pytest.mark.parametrize("body", [{"call_id": "x"}, {"call": "x"}, [], {"call_id": 5}])
def test_a_body_of_another_shape_is_refused(tmp_path: Path, body: object) -> None:
    """REQ: RFC 9457: 422 with what is wrong."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        site.begin()
        status, problem, _ = await site.ask(new.token, "POST", "/v1/desk/pause", body)
        assert (status, problem["type"]) == (422, f"{PROBLEM}invalid-parameters")
        assert site.agent.media.commands == []

    serve(tmp_path, scenario)


def test_before_the_cloud_told_a_live_key_nothing_can_be_matched(tmp_path: Path) -> None:
    """503: nobody is shown an empty list that is not true."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        site.agent.facts = ControlFacts()
        assert (await site.ask(new.token, "GET", "/v1/desk/calls"))[0] == 503

    serve(tmp_path, scenario)


# -- watching ---------------------------------------------------------------------------------------------------------


def test_a_watcher_is_told_when_its_calls_change(tmp_path: Path) -> None:
    """REQ: RFC 7240 section 4.3: with Prefer: wait it waits; another desk's calls do not wake it."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        status, answer, headers = await site.ask(new.token, "GET", "/v1/desk/calls")
        assert (status, answer["calls"]) == (200, [])
        known = {"If-None-Match": headers["ETag"]}
        assert (await site.ask(new.token, "GET", "/v1/desk/calls", **known))[0] == 304
        waits = asyncio.create_task(site.ask(new.token, "GET", "/v1/desk/calls", **known, Prefer="wait=20"))
        await until(lambda: site.calls.watching)
        site.begin(2, "1002")
        await asyncio.sleep(0)
        assert not waits.done()
        call = site.begin(1)
        status, answer, headers = await asyncio.wait_for(waits, 5)
        assert (status, [one["call_id"] for one in answer["calls"]]) == (200, [call])
        waits = asyncio.create_task(
            site.ask(new.token, "GET", "/v1/desk/calls", Prefer="wait=20", **{"If-None-Match": headers["ETag"]})
        )
        await until(lambda: site.calls.watching)
        await site.ask(new.token, "POST", "/v1/desk/pause")
        assert (await asyncio.wait_for(waits, 5))[1]["calls"][0]["state"] == "paused"
        assert site.calls._watchers == {}

    serve(tmp_path, scenario)


def test_a_watcher_without_news_gets_304_when_its_time_is_over(tmp_path: Path) -> None:
    """And one too many is answered at once."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        _, _, headers = await site.ask(new.token, "GET", "/v1/desk/calls")
        known = {"If-None-Match": headers["ETag"]}
        assert (await site.ask(new.token, "GET", "/v1/desk/calls", **known, Prefer="wait=0"))[0] == 304
        waits = asyncio.create_task(site.ask(new.token, "GET", "/v1/desk/calls", **known, Prefer="wait=20"))
        await until(lambda: site.calls.watching)
        second = site.ask(new.token, "GET", "/v1/desk/calls", **known, Prefer="wait=20")
        assert (await asyncio.wait_for(second, 5))[0] == 304
        site.begin()
        assert (await asyncio.wait_for(waits, 5))[0] == 200

    serve(tmp_path, scenario, most_watchers=1)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_a_desk_that_asks_too_often_waits(tmp_path: Path) -> None:
    """429 says for how long; other desks are served."""

    async def scenario(site: DeskSite) -> None:
        new, other = site.add("One"), site.add("Two", "1002")
        found = [await site.ask(new.token, "GET", "/v1/desk/calls") for _ in range(4)]
        assert [status for status, _, _ in found] == [200, 200, 200, 429]
        assert found[-1][2]["Retry-After"] == "1"
        assert (await site.ask(other.token, "GET", "/v1/desk/calls"))[0] == 200
        site.mono_s += 1.0
        assert (await site.ask(new.token, "GET", "/v1/desk/calls"))[0] == 200

    serve(tmp_path, scenario, of_desk=RateLimit(burst=3, per_s=1))


def test_who_tries_tokens_is_slowed_down_and_nobody_else(tmp_path: Path) -> None:
    """401, then 429; a right token from the same address is let in."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        found = [(await site.ask("dsk_" + "0" * 64, "GET", "/v1/desk/calls"))[0] for _ in range(4)]
        assert found == [401, 401, 429, 429]
        assert (await site.ask(new.token, "GET", "/v1/desk/calls"))[0] == 200
        async with site.session.get(f"{site.url}/phone/{'0' * 64}/cisco") as response:
            assert response.status == 429

    serve(tmp_path, scenario, of_stranger=RateLimit(burst=2, per_s=0.1))
