"""A session: two people with tabs of their own, who do what a seed draws."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy import func, select

from benchmarks.feedback.browser.ledger import Choice, Ledger, View, read_store
from benchmarks.feedback.browser.server import PageServer
from benchmarks.feedback.browser.tab import BUTTONS, CONFIDENCES, KEYS, NothingMoved, Tab
from benchmarks.feedback.browser.tasks import Question
from hf_align.feedback.store.connection import reading
from hf_align.feedback.store.schema import answers

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

ACTIONS = 12
HOUR = 3600.0
WEIGHTS = {
    "answer": 50,
    "by_key": 20,
    "with_notes": 8,
    "undo": 6,
    "reload": 4,
    "back": 4,
    "double_click": 4,
    "reload_in_flight": 2,
    "change_person": 8,
}
SPECIAL = ("kill", "idle_hour", "second_tab", "kill_in_flight", "two_tabs_at_once", "stale_undo")
"""A session has one of these in turn, and the drawn ones beside it."""
REASONS = (
    "Says 1 thing and means 2.",
    "the left is shorter; usable text",
    "Ein Grund <b>mit</b> Zeichen: 3 & 4",
    "too stiff",
)


@dataclass
class Report:
    """Figures of a session.

    Attributes:
        actions: How often each was done.
        durable: Milliseconds from a click until its answer was in the database, as another process saw it.
        after_restart: The same of the first answer to a server that was killed and started again.
        moved: Milliseconds from a click until the page showed the next task.
        stuck: Waits in which the page didn't move on though the server ran.
    """

    actions: Counter[str] = field(default_factory=Counter)
    durable: list[float] = field(default_factory=list)
    after_restart: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


@dataclass
class Person:
    """Somebody with a browser of their own; `tabs` has the one in use at its end."""

    name: str
    open: Callable[[], Tab]
    tabs: list[Tab] = field(default_factory=list)

    @property
    def tab(self) -> Tab:
        """The tab in use."""
        return self.tabs[-1]


class Session:
    """What two people do on a page.

    Args:
        contexts: Two contexts of the browser, one for each of the two people.
        server: The page's server.
        questions: The store's tasks.
        ledger: Gets what they did.
        number: Draws the session; the people are named after it.
    """

    def __init__(
        self,
        contexts: Sequence[BrowserContext],
        server: PageServer,
        questions: Sequence[Question],
        ledger: Ledger,
        number: int,
    ) -> None:
        self.server, self.questions, self.ledger, self.number = server, questions, ledger, number
        self.rng = random.Random(f"session {number}")
        self.report = Report()
        self.restarted = False
        self.people: list[Person] = []
        for name, context in zip(("anna", "ben"), contexts, strict=True):
            url = f"{server.url}/?{urlencode({'annotator': f'{name}-{number:03}'})}"
            self.people.append(Person(f"{name}-{number:03}", lambda c=context, u=url: Tab(c, u, questions)))
            self.people[-1].tabs.append(self.people[-1].open())

    def run(self, actions: int = ACTIONS) -> Report:
        """Do so many actions, one of them the session's special one; close the tabs."""
        names = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=actions - 1)
        names.insert(self.rng.randrange(2, actions), SPECIAL[self.number % len(SPECIAL)])
        try:
            for name in names:
                self.report.actions[name] += 1
                getattr(self, f"_{name}")(self.people[0])
        finally:
            for person in self.people:
                for tab in person.tabs:
                    tab.page.close()
        return self.report

    # Answers

    def _choice(self) -> Choice:
        return self.rng.choices(("left", "right", "tie", "skip"), (42, 42, 10, 6))[0]

    def _answer(self, person: Person) -> None:
        choice = self._choice()
        self._act(person, choice, lambda tab: tab.click(choice))

    def _by_key(self, person: Person) -> None:
        choice = self._choice()
        key = self.rng.choice(KEYS[choice])
        self._act(person, choice, lambda tab: tab.press(key))

    def _with_notes(self, person: Person) -> None:
        choice, notes = self._choice(), {}
        if person.tab.view() is None:
            return
        if self.rng.random() < 0.7:
            notes["reason"] = self.rng.choice(REASONS)
            person.tab.give_reason(notes["reason"])
        if self.rng.random() < 0.7:
            notes["confidence"] = self.rng.choice(CONFIDENCES)
            person.tab.give_confidence(notes["confidence"])
        self._act(person, choice, lambda tab: tab.click(choice), **notes)

    def _double_click(self, person: Person) -> None:
        choice, pause = self._choice(), self.rng.choice((0, 30, 80, 150))
        # The second click may meet the next task as it is drawn: one answer was meant.
        self._act(person, choice, lambda tab: tab.click(choice, click_count=2, delay=pause))

    def _act(self, person: Person, choice: Choice, do: Callable[[Tab], None], **notes: Any) -> None:
        """Answer, wait until the page moves on, and note it."""
        tab = person.tab
        before = tab.view()
        if before is None:
            return
        tab.leave_field()
        count = self._events()
        do(tab)
        start = tab.pressed_at()
        behind = self.is_behind(person, before)
        while not behind and self._events() == count and time.time() < start + 5:
            time.sleep(0.002)
        durable = time.time() - start
        self._settle(person, before, choice, **notes)
        if not behind and choice != "skip":
            (self.report.after_restart if self.restarted else self.report.durable).append(round(1000 * durable, 1))
            self.report.moved.append(round(1000 * (time.time() - start), 1))
        self.restarted = False

    def _settle(self, person: Person, before: View, choice: Choice, **notes: Any) -> None:
        try:
            person.tab.moved(before)
        except NothingMoved as error:
            self.report.stuck.append(str(error))
            self._reload_and_look(person, before, choice, **notes)
            return
        self.ledger.choose(person.name, before, choice, **notes)

    def _reload_and_look(self, person: Person, before: View, choice: Choice, **notes: Any) -> None:
        """Load the page anew after a click that nobody acknowledged: what it shows then says whether it counts."""
        person.tab.reload()
        after = person.tab.view()
        if after is None or after.task != before.task:
            self.ledger.choose(person.name, before, choice, **notes)
        else:
            self.report.actions["unacknowledged and not stored"] += 1

    def _events(self) -> int:
        with reading(self.server.store.engine) as connection:
            return connection.scalar(select(func.count()).select_from(answers)) or 0

    # Taking back

    def _undo(self, person: Person) -> None:
        """Take the newest answer back; a tab that is behind takes nothing back and shows what is current."""
        tab = person.tab
        before, said = tab.view(), tab.shown()["message"]
        tab.leave_field()
        if self.rng.random() < 0.5:
            tab.click("undo")
        else:
            tab.press("u")
        if not self.ledger.standing[person.name]:
            tab.says_else(said)
            return
        try:
            after = tab.moved(before)
        except NothingMoved as error:
            self.report.stuck.append(f"undo: {error}")
            return
        if self.is_behind(person, before):
            self.report.actions["undo in a tab that is behind"] += 1
            assert after is None or after.task not in self.ledger.standing[person.name]
            return
        taken = self.ledger.undo(person.name)
        if after is None or after.task != taken:
            self.report.stuck.append(f"undo of task {taken} shows {after}")

    # Navigation

    def _reload(self, person: Person) -> None:
        before = person.tab.view()
        person.tab.reload()
        after = person.tab.view()
        if not self.is_behind(person, before) and after != before:
            self.report.stuck.append(f"a reload changed {before} to {after}")

    def _back(self, person: Person) -> None:
        person.tab.back_and_forward()
        person.tab.view()

    def _reload_in_flight(self, person: Person) -> None:
        before, choice = person.tab.view(), self._choice()
        if before is None:
            return
        person.tab.leave_field()
        person.tab.click(choice, no_wait_after=True)
        time.sleep(self.rng.choice((0, 0.01, 0.03)))
        self._reload_and_look(person, before, choice)

    def is_behind(self, person: Person, view: View | None) -> bool:
        """Whether a tab shows a task that its person has answered in another tab."""
        return view is not None and view.task in self.ledger.standing[person.name]

    def _change_person(self, _: Person) -> None:
        self.people.reverse()

    # What comes once a session

    def _kill(self, person: Person) -> None:
        self.server.kill()
        self.server.start()
        self.restarted = True
        if self.rng.random() < 0.5:
            person.tab.reload()
        self._answer(person)

    def _kill_in_flight(self, person: Person) -> None:
        before, choice = person.tab.view(), self._choice()
        if before is None:
            return
        person.tab.leave_field()
        person.tab.click(choice, no_wait_after=True)
        time.sleep(self.rng.uniform(0, 0.06))
        self.server.kill()
        self.server.start()
        self.restarted = True
        if self.rng.random() < 0.5:
            self._reload_and_look(person, before, choice)
            return
        # Without a reload: the page finds its server again, and they press the button again if it still shows the task.
        person.tab.recover()
        after = person.tab.view()
        if after is not None and after.task == before.task:
            self.report.actions["pressed again after a kill"] += 1
            person.tab.leave_field()
            person.tab.click(choice)
            self._settle(person, before, choice)
            return
        self.ledger.choose(person.name, before, choice)

    def _idle_hour(self, person: Person) -> None:
        before = person.tab.view()
        self.server.clock.move(HOUR)
        other = self.people[1]
        other.tab.reload()
        for _ in range(3):  # the expired task may go to them
            self._answer(other)
        if before is not None:
            choice = self._choice()
            self._act(person, choice, lambda tab: tab.click(choice))

    def _second_tab(self, person: Person) -> None:
        person.tabs.append(person.open())
        for _ in range(4):
            self._answer(person)
            person.tabs.reverse()
        person.tabs.pop(0).page.close()
        person.tab.reload()

    def _two_tabs_at_once(self, person: Person) -> None:
        """The same showing answered in two tabs, differently and without a pause: one of the two counts."""
        person.tabs.append(person.open())
        views = [tab.view() for tab in person.tabs]
        before = views[0]
        if before is None or views[1] != before:
            return
        for tab, choice in zip(person.tabs, ("left", "right"), strict=True):
            tab.wait_for_patience()
            tab.page.evaluate(f"document.getElementById('{BUTTONS[choice]}').click()")
        for tab in person.tabs:
            tab.moved(before)
        numbers = {question.id: number for number, question in enumerate(self.questions)}
        stored = read_store(self.server.store, numbers)[person.name][-1]
        self.ledger.choose(person.name, before, "left" if stored.better == before.left else "right")
        person.tabs.pop(0).page.close()

    def _stale_undo(self, person: Person) -> None:
        """A tab that is behind takes back what another tab answered."""
        person.tabs.append(person.open())
        self._answer(person)
        self._answer(person)
        person.tabs.reverse()
        self._undo(person)
        person.tabs.pop(0).page.close()
        self._answer(person)
