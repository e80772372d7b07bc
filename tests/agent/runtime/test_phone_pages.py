"""Handsets' pages: well-formed in both dialects, sized for small displays, and keys that act on the call shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc_agent.runtime import phone_pages
from sbc_agent.runtime.desk_calls import DeskState
from sbc_agent.runtime.phone_pages import Dialect, Page
from tests.agent.runtime.controlled import START_US
from tests.agent.runtime.desked import REGULATED, DeskSite, serve

BASE = "https://192.0.2.10:5443/phone/x/cisco"
DIALECTS: tuple[Dialect, ...] = ("cisco", "yealink")
# Tags that the makers' guides define: a phone's parser refuses others.
TAGS = {
    "cisco": {
        "CiscoIPPhoneText", "CiscoIPPhoneMenu", "Title", "Prompt", "Text", "MenuItem", "Name", "URL", "SoftKeyItem",
        "Position",
    },
    "yealink": {
        "YealinkIPPhoneTextScreen", "YealinkIPPhoneTextMenu", "Title", "Text", "MenuItem", "Prompt", "URI", "SoftKey",
        "Label",
    },
}  # fmt: skip


class Handset:
    """What a phone makes of a page: its text, its keys in order, its menu."""

    def __init__(self, body: bytes, dialect: Dialect) -> None:
        body.decode("ascii")
        assert len(body) < 10_000
        root = minidom.parseString(body).documentElement  # noqa: S318 - our own page
        assert root is not None
        self.root = root
        tags = {self.root.tagName} | {node.tagName for node in self.root.getElementsByTagName("*")}
        assert tags <= TAGS[dialect]
        key, label, address = ("SoftKeyItem", "Name", "URL") if dialect == "cisco" else ("SoftKey", "Label", "URI")
        self.keys = {
            _text(node, label): _text(node, address)
            for node in sorted(self.root.getElementsByTagName(key), key=lambda node: _place(node, dialect))
        }
        entry = "Name" if dialect == "cisco" else "Prompt"
        self.entries = {_text(node, entry): _text(node, address) for node in self.root.getElementsByTagName("MenuItem")}
        self.text = _text(self.root, "Text")
        self.title = _text(self.root, "Title")
        assert all(len(name) <= phone_pages.LONGEST_KEY for name in self.keys)


def _place(node: minidom.Element, dialect: Dialect) -> int:
    return int(_text(node, "Position") if dialect == "cisco" else node.getAttribute("index"))


def _text(node: minidom.Element, name: str) -> str:
    found = node.getElementsByTagName(name)
    return "".join(str(child.data) for child in found[0].childNodes) if found else ""  # type: ignore[union-attr]


def _call(state: DeskState, *causes: str) -> dict[str, Any]:
    return {"call_id": "A", "state": state, "causes": list(causes), "started_s": 0.0}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("calls", "keys", "words"),
    [
        ([], ["Refresh", "Exit"], "No call is live"),
        ([_call("recording")], ["Pause", "Personal", "Refresh", "Exit"], "being recorded"),
        ([_call("paused", "payment")], ["Resume", "Personal", "Refresh", "Exit"], "Reason: payment."),
        ([_call("waiting")], ["Keep", "Personal", "Refresh", "Exit"], "press Keep"),
        ([_call("not_recorded")], ["Keep", "Refresh", "Exit"], "not recorded"),
    ],
    ids=["none", "recording", "paused", "waiting", "not recorded"],
)
def test_each_state_has_its_words_and_keys(
    dialect: Dialect, calls: list[dict[str, Any]], keys: list[str], words: str
) -> None:
    """Four keys at most, as the narrowest displays show, in the order of use."""
    shown = Handset(phone_pages.written(phone_pages.page("Desk", calls, BASE, now_s=180.0), dialect), dialect)
    assert list(shown.keys) == keys
    assert words in shown.text
    assert not calls or "3 minutes ago" in shown.text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_several_calls_are_a_menu(dialect: Dialect) -> None:
    """Each entry leads to the page of one call."""
    calls = [_call("recording") | {"call_id": "A"}, _call("paused", "manual") | {"call_id": "B", "started_s": 170.0}]
    shown = Handset(phone_pages.written(phone_pages.page("Desk", calls, BASE, now_s=180.0), dialect), dialect)
    assert shown.entries == {"Recording, 3 minutes": f"{BASE}?call=A", "Paused, less than a minute": f"{BASE}?call=B"}


@given(st.text(), st.text(), st.text())
@pytest.mark.parametrize("dialect", DIALECTS)
def test_whatever_a_text_holds_the_page_is_well_formed(dialect: Dialect, title: str, text: str, address: str) -> None:
    """Names and sentences with any characters, tags and controls among them."""
    link = phone_pages.Link("Pause", address)
    for shown in (Page(title, title, text, (link,)), Page(title, title, text, (link,), (link,))):
        handset = Handset(phone_pages.written(shown, dialect), dialect)
        assert len(handset.title) <= 2 * phone_pages.LONGEST_TITLE


async def _get(site: DeskSite, url: str, dialect: Dialect = "cisco") -> tuple[int, Handset | None, Mapping[str, str]]:
    async with site.session.get(url) as response:
        body = await response.read()
        found = Handset(body, dialect) if response.status == 200 else None
        return response.status, found, response.headers


@pytest.mark.parametrize("plain", [False, True], ids=["https", "http"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_handset_toggles_its_own_live_call(tmp_path: Path, dialect: Dialect, *, plain: bool) -> None:
    """Its keys are followed as a phone follows them; another extension's call goes on."""

    async def scenario(site: DeskSite) -> None:
        new = site.add("Réception 1")
        call, other = site.begin(1), site.begin(2, "1002")
        origin = site.plain_url if plain else site.url
        status, shown, headers = await _get(site, f"{origin}/phone/{new.phone}/{dialect}", dialect)
        assert shown is not None
        assert (status, headers["Content-Type"]) == (200, "text/xml; charset=UTF-8")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Refresh"] == f"5; url={origin}/phone/{new.phone}/{dialect}?call={call}"
        for key, causes in (("Pause", ("manual",)), ("Resume", ())):
            assert shown.keys[key].startswith(origin)
            _, shown, _ = await _get(site, shown.keys[key], dialect)
            assert shown is not None
            assert shown.text.startswith("Done.")
            assert (site.agent.causes(call), site.agent.causes(other)) == (causes, ())
        assert {ack.by for ack in site.agent.told.acks} == {f"desk:{new.desk.id}"}

    site = serve(tmp_path, scenario)
    assert "/phone/" not in site.agent.lines.stream.getvalue()


def test_a_key_that_comes_late_acts_on_the_call_shown_or_on_none(tmp_path: Path) -> None:
    """The call that the person saw has ended: the next one is not paused in its place."""

    async def scenario(site: DeskSite) -> None:
        new, first = site.add(), site.begin(1)
        _, shown, _ = await _get(site, f"{site.url}/phone/{new.phone}/cisco")
        assert shown is not None
        site.agent.end(first)
        second = site.begin(2)
        _, after, _ = await _get(site, shown.keys["Pause"])
        assert after is not None
        assert after.text.startswith("No such call is live here.")
        assert site.agent.causes(second) == ()

    serve(tmp_path, scenario)


def test_a_regulated_line_says_so_on_the_handset(tmp_path: Path) -> None:
    """A sentence on the display, not an error that the phone hides."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        site.decisions.regulated.add(call)
        _, shown, _ = await _get(site, f"{site.url}/phone/{new.phone}/yealink/personal?call={call}", "yealink")
        assert shown is not None
        assert shown.text.startswith(REGULATED[0].upper() + REGULATED[1:])
        assert site.decisions.taken == []

    serve(tmp_path, scenario)


def test_a_call_that_waits_is_kept_by_its_key(tmp_path: Path) -> None:
    """On demand: Keep, then it is recorded."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        calls = site.agent.control.calls
        known = calls.get(call)
        assert known is not None
        calls.put(replace(known, standing="on_demand"))
        _, shown, _ = await _get(site, f"{site.url}/phone/{new.phone}/cisco")
        assert shown is not None
        _, shown, _ = await _get(site, shown.keys["Keep"])
        assert shown is not None
        assert shown.text.startswith("This call is kept.")
        assert site.decisions.taken == [(call, True, "on_demand", f"desk:{new.desk.id}")]

    serve(tmp_path, scenario)


def test_an_address_that_is_not_a_desks_is_not_found(tmp_path: Path) -> None:
    """Another secret, the token in its place, and HEAD, which must press nothing."""

    async def scenario(site: DeskSite) -> None:
        new, call = site.add(), site.begin()
        for path in (f"/phone/{'0' * 64}/cisco", f"/phone/{new.token}/cisco", f"/phone/{new.phone}/snom", "/phone/"):
            assert (await _get(site, site.url + path))[0] == 404
        async with site.session.head(f"{site.url}/phone/{new.phone}/cisco/pause") as response:
            assert response.status == 405
        assert site.agent.causes(call) == ()

    serve(tmp_path, scenario)


def test_plain_http_serves_handsets_and_nothing_else(tmp_path: Path) -> None:
    """No token is ever sent in the clear to something that would take it."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        headers = {"Authorization": f"Bearer {new.token}"}
        for path in ("/v1/desk/calls", "/v1/calls"):
            async with site.session.get(site.plain_url + path, headers=headers) as response:
                assert response.status in {403, 404}

    serve(tmp_path, scenario)


def test_an_odd_host_header_is_not_repeated(tmp_path: Path) -> None:
    """The page's addresses are then those of the socket."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        url = f"{site.plain_url}/phone/{new.phone}/cisco"
        async with site.session.get(url, headers={"Host": "a b&<>"}) as response:
            shown = Handset(await response.read(), "cisco")
        assert shown.keys["Refresh"] == url

    serve(tmp_path, scenario)


def test_how_long_a_call_has_lasted_is_said_in_minutes(tmp_path: Path) -> None:
    """By the agent's own clock, in which the call is timed."""

    async def scenario(site: DeskSite) -> None:
        new = site.add()
        site.begin()
        site.agent.time.pass_s(61)
        assert site.agent.time.now_us() == START_US + 61_000_000
        _, shown, _ = await _get(site, f"{site.url}/phone/{new.phone}/cisco")
        assert shown is not None
        assert "It began 1 minute ago." in shown.text

    serve(tmp_path, scenario)
