"""The pages for each make of SBC: all there, linked, and honest about what was tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "sbc_agent" / "docs"
MAKES = ("oracle", "audiocodes", "ribbon", "cube", "avaya", "opensips", "metaswitch-broadworks")


@pytest.mark.parametrize("make", MAKES)
def test_each_make_has_a_page_with_all_that_it_needs(make: str) -> None:
    """What to configure, failover, encryption and what differs; and whether it was tried on a device."""
    text = (DOCS / "sbc" / f"{make}.md").read_text()
    for words in ("## Known to differ", "Failover", "TLS", "SRTP"):
        assert words in text, words
    assert "Not tried on a real device" in text or "captures of a running" in text
    assert re.search(r"^(    \S|\d\. )", text, re.MULTILINE), "no configuration to copy"
    addresses = set(re.findall(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", text))
    assert all(address.startswith(("192.0.2.", "127.")) for address in addresses), "addresses are those of RFC 5737"


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    """From the agent's page to the overview, and from there to each make."""
    overview = (DOCS / "sbc" / "README.md").read_text()
    linked = set(re.findall(r"\]\(([\w-]+)\.md\)", overview))
    assert linked == set(MAKES) == {page.stem for page in (DOCS / "sbc").glob("*.md")} - {"README"}
    assert "](sbc/README.md)" in (DOCS / "README.md").read_text()
