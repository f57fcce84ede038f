import re
from html.parser import HTMLParser
from typing import Any

from hf_align.report.quickstart import curve, render_report
from tests.report import synthetic


class _Balance(HTMLParser):
    """Parser that checks that all elements are closed in order."""

    VOID = ("meta", "br", "line", "circle", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def render(metrics: dict[str, Any] | None = None, text: str = "It works.") -> str:
    return render_report(metrics or synthetic.metrics(), synthetic.histories(), synthetic.samples(text))


def test_the_page_is_whole_and_stands_alone() -> None:
    page = render()
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"<script|<link|<img|src=|https?://|url\(", page)
    # Three curves each for reward model, DPO, IPO and PPO, and two interval charts.
    assert page.count("<svg") == 14


def test_the_numbers_are_on_the_page() -> None:
    page = render()
    assert "r = 0.78" in page
    assert "DPO writes more positively" in page
    assert "[+0.17, +0.29]" in page
    assert "IPO writes less positively" in page
    assert '+2.12 <span class="ends">(+0.93 sd)</span>' in page
    assert "1152 sentences for 288 prompts" in page
    assert "hf-align quickstart --seed 3" in page
    assert "9 min 36 s" in page
    assert "dpo (resumed: last part only)" in page
    assert "smoke" not in page


def test_what_models_write_is_escaped() -> None:
    page = render(text="<script>alert('x')</script> & <b>bold</b>")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page


def test_a_smoke_run_says_so() -> None:
    metrics = synthetic.metrics()
    metrics["settings"]["profile"] = "smoke"
    assert "mean little" in render(metrics)


def test_at_most_three_samples_of_a_domain() -> None:
    page = render_report(synthetic.metrics(), synthetic.histories(), synthetic.samples() * 3)
    assert page.count('class="sample"') == 6


def test_curve_keeps_the_order_and_marks_gaps() -> None:
    history = [{"step": 1, "loss": 0.5}, {"step": 1, "other": 1}, {"step": 2, "loss": None}]
    points = curve(history, "loss")
    assert points[0] == (1.0, 0.5)
    assert points[1][1] != points[1][1]
