"""One tab of the browser: what it shows, clicks and keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.feedback.browser.ledger import View
from benchmarks.feedback.browser.tasks import NUMBER, Question, plain

if TYPE_CHECKING:  # it takes two seconds, and whoever asks whether there is a browser needs none of it
    from playwright.sync_api import Browser, BrowserContext

BUTTONS = {"left": "choose-left", "right": "choose-right", "tie": "tie", "skip": "skip", "undo": "undo"}
KEYS = {
    "left": ("1", "ArrowLeft"),
    "right": ("2", "ArrowRight"),
    "tie": ("3", "t"),
    "skip": ("s",),
    "undo": ("u",),
}
SHOWN = """() => {
    const text = id => {
        const element = document.getElementById(id);
        return element && element.getClientRects().length ? element.innerText : "";
    };
    const parts = Object.fromEntries(["prompt", "left", "right", "progress", "message"].map(id => [id, text(id)]));
    const task = document.querySelector("#task .task"), button = document.getElementById("choose-left");
    return {...parts, showing: task ? task.dataset.showing : null, ready: Boolean(button) && !button.disabled};
}"""
BLANK = {"prompt": "", "left": "", "right": "", "progress": "", "message": "", "showing": None, "ready": False}
CONFIDENCES = (0.2, 0.4, 0.6, 0.8, 1.0)
NOTE_TIME = """for (const kind of ["click", "keydown"])
    addEventListener(kind, () => { window.pressedAt = Date.now() }, true);"""
SECONDS, PATIENCE = 30.0, 0.35


class NothingMoved(Exception):
    """The page shows what it showed before."""


def chromium() -> str | None:
    """The installed browser."""
    return shutil.which("chromium")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The installed Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab with the page open.

    Args:
        context: The browser's context: its cookies are a person's.
        url: Address, with the person's name.
        questions: The store's tasks, in the order of their numbers.
    """

    def __init__(self, context: BrowserContext, url: str, questions: Sequence[Question]) -> None:
        from playwright.sync_api import Error

        self.navigates = Error
        self.page, self.url, self.questions = context.new_page(), url, questions
        self.page.add_init_script(NOTE_TIME)
        self.page.goto(url)

    def shown(self) -> dict[str, Any]:
        """Visible text of the page's parts, the id of the showing, and whether a choice can be made."""
        try:
            return self.page.evaluate(SHOWN)
        except self.navigates:
            return dict(BLANK)

    def view(self) -> View | None:
        """The task shown, None if nothing is left; waits while the page is neither."""
        end = time.monotonic() + SECONDS
        while True:
            shown = self.shown()
            view = self._read(shown)
            if view is not None or (shown["showing"] == "" and not shown["ready"]):
                return view
            if time.monotonic() > end:
                raise NothingMoved(f"neither a task nor an end is shown: {shown}")
            time.sleep(0.01)

    def _read(self, shown: dict[str, Any]) -> View | None:
        number = NUMBER.search(shown["prompt"])
        if number is None or not shown["showing"] or not shown["ready"]:
            return None
        question = self.questions[int(number[1])]
        left, right = plain(shown["left"]), plain(shown["right"])
        for one, other in ((question.chosen, question.rejected), (question.rejected, question.chosen)):
            if plain(one) in left and plain(other) in right:
                return View(int(number[1]), one, other, shown["showing"])
        return None  # half of it is drawn

    def moved(self, before: View | None, seconds: float = SECONDS) -> View | None:
        """What the page shows after it moved on from a task, or from the end."""
        end = time.monotonic() + seconds
        while True:
            view = self.view()
            if (view and view.showing) != (before and before.showing):
                return view
            if time.monotonic() > end:
                raise NothingMoved(f"the page still shows {before}: {self.shown()}")
            time.sleep(0.005)

    def connection(self) -> str:
        """What the page says of its connection."""
        return self.page.evaluate(
            "(box => box && !box.hidden ? box.innerText : '')(document.getElementById('connection'))"
        )

    def recover(self) -> None:
        """Wait until a page that lost its server has found it again by itself."""
        end = time.monotonic() + SECONDS
        while True:
            try:
                if not self.connection().startswith("No connection"):
                    return
            except self.navigates:
                pass
            if time.monotonic() > end:
                raise NothingMoved(f"the page doesn't find its server again: {self.shown()}")
            time.sleep(0.02)

    def wait_for_patience(self) -> None:
        """Wait until the page takes clicks on a task that it has just shown; people read for longer."""
        time.sleep(PATIENCE)

    def says_else(self, before: str) -> None:
        """Wait until the message is another one."""
        end = time.monotonic() + SECONDS
        while self.shown()["message"] == before:
            if time.monotonic() > end:
                raise NothingMoved(f"the page still says {before!r}")
            time.sleep(0.01)

    def click(self, what: str, **options: Any) -> None:
        """Click a button, by the names of `BUTTONS`."""
        self.page.click(f"#{BUTTONS[what]}", **options)

    def press(self, key: str) -> None:
        """Press a key where the page has the focus."""
        self.page.keyboard.press(key)

    def give_reason(self, text: str) -> None:
        """Type a reason."""
        self.page.click("#reason textarea")
        self.page.keyboard.type(text)

    def give_confidence(self, confidence: float) -> None:
        """Choose one of the confidences."""
        self.page.locator("#confidence label").nth(CONFIDENCES.index(confidence)).click()

    def leave_field(self) -> None:
        """Take the focus from a field, as a click beside it does, and wait for the page's patience."""
        self.wait_for_patience()
        self.page.evaluate("document.activeElement && document.activeElement.blur()")

    def pressed_at(self) -> float:
        """Time of the last click or key, in seconds since 1970."""
        return self.page.evaluate("window.pressedAt") / 1000

    def reload(self) -> None:
        """Load the page anew."""
        self.page.reload()

    def back_and_forward(self) -> None:
        """Leave by the back button and come back by the forward button."""
        self.page.go_back()
        self.page.go_forward()
        time.sleep(PATIENCE)  # a page that comes from memory loads itself anew
