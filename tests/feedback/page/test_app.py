"""The page in a real browser; sessions with reloads, kills and two people: tests/feedback/test_browser.py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.feedback.browser.tab import chromium, open_browser
from hf_align.feedback import PreferenceStore, Prompt, Response, Task, annotate
from hf_align.feedback.page.serve import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page as Tab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium is installed"),
]
HOSTILE = (
    "<script>window.BAD=1</script> <img src=x onerror='window.BAD=2'> [x](javascript:window.BAD=3) "
    "${window.BAD=4} {{constructor.constructor('window.BAD=5')()}} `${window.BAD=6}` "
    "![pixel](http://evil.example/pixel.png) <iframe srcdoc='<script>parent.BAD=7</script>'></iframe>"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    store = PreferenceStore(f"sqlite:///{tmp_path}/prefs.db")
    prompts = [Prompt(f"question {i} {HOSTILE}") for i in range(12)]
    pairs = [
        [Response(each.id, f"{word} {i} {HOSTILE}\n\n{'long text ' * 400}", "a") for word in ("good", "bad")]
        for i, each in enumerate(prompts)
    ]
    store.add(prompts=prompts, responses=[r for pair in pairs for r in pair], tasks=[Task.of(*pair) for pair in pairs])
    yield store
    store.close()


@pytest.fixture
def page(store: PreferenceStore) -> Iterator[Page]:
    page = annotate(store, annotator="zoe")
    yield page
    page.close()


@pytest.fixture
def browser() -> Iterator["Browser"]:
    with open_browser() as browser:
        yield browser


def wait_for_new(tab: "Tab", act: Callable[[], object]) -> None:
    """Do something and wait for the next task, and until its buttons take presses."""
    before = tab.evaluate("hfAlignShowing()")
    act()
    tab.wait_for_function("before => hfAlignShowing() !== before", arg=before)
    tab.wait_for_timeout(350)


def test_keys_answer_and_texts_run_nothing(page: Page, store: PreferenceStore, browser: "Browser") -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    hosts, errors = set(), []
    tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(f"{page.url}?annotator=anna")
    tab.wait_for_selector("#left")
    tab.wait_for_timeout(350)
    clicked = []

    def press(key: str) -> None:
        texts = {side: tab.inner_text(f"#{side}").split()[0] for side in ("left", "right")}
        side = {"1": "left", "ArrowLeft": "left", "2": "right", "ArrowRight": "right"}.get(key)
        clicked.append(texts[side] if side else key)
        wait_for_new(tab, lambda: tab.keyboard.press(key))

    for key in ("1", "2", "ArrowLeft", "ArrowRight", "3", "t", "s"):
        press(key)
    tab.click("#reason textarea")
    tab.keyboard.type("12 3 stu")  # no answer: a person writes
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Escape")
    tab.click("#confidence label:has-text('certain')")
    press("1")
    assert tab.input_value("#reason textarea") == ""
    assert tab.locator("#confidence input:checked").count() == 0

    answers = list(store.answers())
    tasks, responses = store.tasks(), store.responses()
    for answer, expected in zip(answers, [*clicked[:6], clicked[7]], strict=True):
        task = tasks[answer.task_id]
        best = {1.0: task.first_id, 0.0: task.second_id}.get(answer.preference)  # type: ignore[arg-type]
        assert answer.annotator == "anna"
        assert best is None if expected in ("3", "t") else responses[best].content.startswith(expected)  # type: ignore[index]
    assert (answers[-1].reason, answers[-1].confidence) == ("12 3 stu", 1.0)
    assert tab.evaluate("window.BAD") is None
    assert "<script>window.BAD=1</script>" in tab.inner_text("#left")
    assert hosts == {page.url.split("/")[2]}
    assert not errors


def test_a_double_press_answers_once(page: Page, store: PreferenceStore, browser: "Browser") -> None:
    tab = browser.new_page()
    tab.goto(page.url)
    tab.wait_for_selector("#left")
    tab.wait_for_timeout(350)
    wait_for_new(tab, lambda: tab.dblclick("#choose-left", delay=60))
    assert len(list(store.events())) == 1
    wait_for_new(tab, lambda: (tab.keyboard.press("2"), tab.keyboard.press("2")))
    tab.wait_for_timeout(500)
    assert len(list(store.events())) == 2
    wait_for_new(tab, lambda: tab.keyboard.press("u"))
    assert len(list(store.answers())) == 1
    assert {answer.annotator for answer in store.events()} == {"zoe"}


def test_a_phone_shows_everything_in_its_width(page: Page, browser: "Browser") -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(page.url)
    tab.wait_for_selector("#left")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for each in ("prompt", "left", "right", "choose-left", "tie", "choose-right", "skip", "undo", "reason"):
        box = tab.locator(f"#{each}").bounding_box()
        assert box is not None
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert tab.evaluate("document.querySelector('#left').clientHeight") <= 400  # a long text scrolls in its box
