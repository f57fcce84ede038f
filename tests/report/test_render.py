"""Number formats of the pages."""

import re
from pathlib import Path

import pytest

from hf_align.report import render
from hf_align.report.render import duration, fixed, interval, render_page, signed, verdict

PAGES = Path(render.__file__).parent / "pages"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [([0.1, 0.2], "more positively"), ([-0.1, 0.2], "no clear change"), ([-0.2, -0.1], "less positively")],
)
def test_verdict_follows_the_interval(ends: list[float], expected: str) -> None:
    assert expected in verdict(ends)


def test_number_formats() -> None:
    assert signed(-0.004) == "+0.00"
    assert signed(-0.126) == "\N{MINUS SIGN}0.13"
    assert [fixed(None), fixed(float("nan")), fixed(-0.5, 1)] == ["\N{EN DASH}", "\N{EN DASH}", "\N{MINUS SIGN}0.5"]
    assert interval([0.1, 0.25]) == "[+0.10, +0.25]"
    assert interval(None) == ""


def test_a_duration_in_words() -> None:
    assert [duration(seconds) for seconds in (7.6, 61, 185.2, 3725)] == ["8 s", "1 min 1 s", "3 min 5 s", "1 h 2 min"]


def test_every_page_forbids_scripts_and_loading() -> None:
    pages = [path for path in PAGES.glob("*.html.j2") if "<body" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 7
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert '<head>\n{% include "head.html.j2" %}\n' in text, page.name
        assert not re.search(r"<script|\bon\w+=|javascript:|\|\s*safe\b", text), page.name
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render_page("head.html.j2"))
    assert policy and policy[1].split("; ")[0] == "default-src 'none'" and "script" not in policy[1]
