"""Reports on hostile texts, opened in Chromium: nothing runs, nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.feedback.browser.tab import chromium, open_browser
from hf_align.report.policy.page import render_policy_report
from hf_align.report.quickstart import render_report
from hf_align.report.reward.page import render_reward_report
from tests.report import policy_metrics, reward_metrics, synthetic

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium is installed"),
]

RUNS = "window.ran = 1"
ELSEWHERE = "http://elsewhere.invalid"
HOSTILE = (
    f"<script>{RUNS}</script><img src={ELSEWHERE}/x.png onerror='{RUNS}'><svg onload='{RUNS}'></svg>"
    f"</td></table></style></svg><iframe srcdoc='<script>parent.{RUNS}</script>'></iframe>"
    f"<link rel=stylesheet href={ELSEWHERE}/style.css><meta http-equiv=refresh content='0;url=javascript:{RUNS}'>"
)

TEXTS = ("prompt", "response", "reference_response", "better", "worse", "text", "domain")


def hostile(value: Any) -> Any:
    """Metrics in which every text of a row is hostile."""
    if isinstance(value, dict):
        return {
            key: HOSTILE if isinstance(each, str) and key in TEXTS else hostile(each) for key, each in value.items()
        }
    return [hostile(each) for each in value] if isinstance(value, list) else value


RENDER: dict[str, Callable[[], str]] = {
    "policy": lambda: render_policy_report(hostile(policy_metrics.METRICS), policy_metrics.FACTS, [("cut", HOSTILE)]),
    "reward": lambda: render_reward_report(hostile(reward_metrics.METRICS), reward_metrics.FACTS, [("cut", HOSTILE)]),
    "quickstart": lambda: render_report(synthetic.metrics(), synthetic.histories(), synthetic.samples(HOSTILE)),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "past the escaping"])
@pytest.mark.parametrize("report", RENDER)
def test_texts_run_nothing_and_fetch_nothing(browser: Browser, report: str, escaped: bool, tmp_path: Path) -> None:
    text = RENDER[report]()
    assert "&lt;script&gt;" in text and "<script" not in text
    (tmp_path / "report.html").write_text(text if escaped else text.replace("</h1>", f"</h1>{HOSTILE}", 1))
    page, failures = browser.new_page(), list[str | None]()
    page.on("requestfailed", lambda request: failures.append(request.failure))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert set(failures) <= {"csp"}  # forbidden by the page, before anybody is asked
    page.close()
