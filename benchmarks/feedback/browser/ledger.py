"""What people did on the page, by the texts that they saw, and how a store differs from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hf_align.feedback import PreferenceStore

Choice = Literal["left", "right", "tie", "skip"]


class View(NamedTuple):
    """A showing as a person sees it: the task's number, the two texts, and the id that the page gives it."""

    task: int
    left: str
    right: str
    showing: str = ""


class Entry(NamedTuple):
    """An event of a person.

    Attributes:
        kind: "answer", "skip" or "undo".
        task: The task's number.
        better: Text that was preferred, "tie" for neither; None unless an answer.
        left: Text shown on the left; None for an undo.
        confidence: As set, or None.
        reason: As typed, or None.
    """

    kind: str
    task: int
    better: str | None = None
    left: str | None = None
    confidence: float | None = None
    reason: str | None = None


@dataclass
class Ledger:
    """Events that the store must hold, by person and in their order.

    A click on a task that the person has answered already, as in a tab that is behind, is void: the first one counts.
    """

    entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    standing: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    clicks: Counter[str] = field(default_factory=Counter)

    def choose(
        self, person: str, view: View, choice: Choice, confidence: float | None = None, reason: str | None = None
    ) -> bool:
        """Note an answer or skip that the page acknowledged; False if it is void."""
        if view.task in self.standing[person]:
            self.clicks["void"] += 1
            return False
        self.clicks[choice] += 1
        self.standing[person].append(view.task)
        better = {"left": view.left, "right": view.right, "tie": "tie", "skip": None}[choice]
        kind = "skip" if choice == "skip" else "answer"
        self.entries[person].append(Entry(kind, view.task, better, view.left, confidence, reason))
        return True

    def undo(self, person: str) -> int | None:
        """Note that a person took the newest answer or skip back; its task, None if there was none."""
        if not self.standing[person]:
            return None
        self.clicks["undo"] += 1
        task = self.standing[person].pop()
        self.entries[person].append(Entry("undo", task))
        return task


def read_store(store: PreferenceStore, numbers: Mapping[str, int]) -> dict[str, list[Entry]]:
    """A store's events by person, with the texts in place of first and second.

    Args:
        store: The store.
        numbers: A task's number by its id.
    """
    tasks, responses = store.tasks(), store.responses()
    entries: dict[str, list[Entry]] = defaultdict(list)
    for event in store.events():
        task = tasks[event.task_id]
        texts = {"first": str(responses[task.first_id].content), "second": str(responses[task.second_id].content)}
        number = numbers[task.id]
        if event.kind == "undo":
            entries[event.annotator].append(Entry("undo", number))
            continue
        better = {1.0: texts["first"], 0.0: texts["second"], 0.5: "tie", None: None}[event.preference]
        left = texts[event.left] if event.left else None
        entries[event.annotator].append(Entry(event.kind, number, better, left, event.confidence, event.reason))
    return entries


@dataclass
class Differences:
    """How a store differs from a ledger; all zero if it is right.

    Attributes:
        lost: Acknowledged events that the store lacks.
        doubled: Events of the store that nobody made.
        wrong_side: Answers whose preferred text, or text on the left, isn't the one of the click.
        wrong_notes: Events with another confidence or reason.
        wrong_order: People whose events stand in another order.
        examples: Some of them in words.
    """

    lost: int = 0
    doubled: int = 0
    wrong_side: int = 0
    wrong_notes: int = 0
    wrong_order: int = 0
    examples: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong_side or self.wrong_notes or self.wrong_order)


def compare(made: Mapping[str, Sequence[Entry]], stored: Mapping[str, Sequence[Entry]]) -> Differences:
    """Compare what people did with what a store holds; the n-th event of a kind on a task with the n-th."""
    found = Differences()
    for person in sorted({*made, *stored}):
        one, other = _numbered(made.get(person, ())), _numbered(stored.get(person, ()))
        lost, doubled = [key for key in one if key not in other], [key for key in other if key not in one]
        found.lost += len(lost)
        found.doubled += len(doubled)
        found.examples += [f"{person}: lost {one[key]}" for key in lost]
        found.examples += [f"{person}: doubled {other[key]}" for key in doubled]
        for key in one.keys() & other.keys():
            mine, its = one[key], other[key]
            if (mine.better, mine.left) != (its.better, its.left):
                found.wrong_side += 1
            elif mine != its:
                found.wrong_notes += 1
            if mine != its:
                found.examples.append(f"{person}: {mine} is stored as {its}")
        if not lost and not doubled and list(one) != list(other):
            found.wrong_order += 1
            found.examples.append(f"{person}: order {list(one)} is stored as {list(other)}")
    return found


def _numbered(entries: Sequence[Entry]) -> dict[tuple[str, int, int], Entry]:
    seen: Counter[tuple[str, int]] = Counter()
    numbered = {}
    for entry in entries:
        seen[entry.kind, entry.task] += 1
        numbered[entry.kind, entry.task, seen[entry.kind, entry.task]] = entry
    return numbered
