"""What the page shows: a task with its sides, how far the person is, and a line that says what happened.

All state is in the store. The page sends back which showing (the lease's id) its buttons belong to, so that an answer
counts for what was on the screen, however old the screen is.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from hf_align.collators.rows import Message, Side
from hf_align.errors import UserError
from hf_align.feedback.page.markup import to_html
from hf_align.feedback.records import TIE, Answer, Lease, Progress, Showing
from hf_align.feedback.store import PreferenceStore

Action = Literal["left", "right", "tie", "skip"]
LONGEST_REASON = 10_000
VERSION = 1
"""Version of the page, kept with each answer: what people saw may matter later."""
_SAVED = {
    "left": "Saved: left is better.",
    "right": "Saved: right is better.",
    "tie": "Saved: a tie.",
    "skip": "Skipped.",
}
_STALE = "This page was out of date, nothing was changed. Here is where you are."


@dataclass(frozen=True)
class View:
    """What the page shows.

    Attributes:
        showing: Id of the lease that is shown; "" if nothing is left.
        task: HTML of prompt and responses, or of what is there instead.
        progress: HTML of how far the person is.
        message: HTML of one line.
        clear: Whether confidence and reason start empty: they belong to a task that is no longer shown.
    """

    showing: str
    task: str
    progress: str
    message: str
    clear: bool = True


class Desk:
    """Takes what people do on the page to the store and says what to show next.

    Args:
        store: The store.
        gold_share: Share of questions with a known answer. Default: the store's, which is the collection's.
    """

    def __init__(self, store: PreferenceStore, *, gold_share: float | None = None) -> None:
        self.store = store
        self.gold_share = gold_share
        # Between the look at what is shown and the undo of what came before it no answer of another tab may come.
        self._lock = threading.Lock()

    def show(self, annotator: str, message: str = "", *, clear: bool = True) -> View:
        """The task that a person holds, with the same sides as before, or the next one.

        Args:
            annotator: Name.
            message: Line to show.
            clear: As in `View`.

        Raises:
            UserError: The name is a model's.
        """
        known = self.store.annotators().get(annotator)
        if known is not None and known.kind == "model":
            raise UserError(f"{annotator} is a {known.kind} in this store; take another name")
        lease = self.store.lease(annotator, gold_share=self.gold_share)
        progress = self.store.progress(annotator)
        if lease is None:
            return View("", draw_end(progress), draw_progress(annotator, progress), draw_message(message), clear)
        task = draw_task(self.store.showing(lease))
        return View(lease.id, task, draw_progress(annotator, progress), draw_message(message), clear)

    def answer(
        self,
        annotator: str,
        showing: str,
        action: Action,
        *,
        confidence: float | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> View:
        """Store an answer or skip, then show what comes next.

        The lease's id is the answer's id: a repeated request, or one from another tab, adds nothing.

        Args:
            annotator: Who sent it.
            showing: Id of the lease that was on the screen.
            action: Which side is better, a tie, or skip.
            confidence: From 0 to 1, if chosen.
            reason: Text, if given.
            details: Kept with the answer.

        Raises:
            UserError: The reason is too long.
        """
        reason = (reason or "").strip() or None
        if reason is not None and len(reason) > LONGEST_REASON:
            raise UserError(f"the reason has {len(reason)} characters; write at most {LONGEST_REASON}")
        lease = self.store.find_lease(showing) if showing else None
        if lease is None:
            return self.show(annotator, _STALE)
        if lease.annotator != annotator:
            return self.show(annotator, f"That task was shown to {lease.annotator}, and you are {annotator}. {_STALE}")
        preference = None if action == "skip" else lease.preference(action)
        with self._lock:
            stored = self.store.answer(
                lease.id,
                preference,
                id=lease.id,
                confidence=confidence,
                reason=reason,
                details={"page": VERSION, **(details or {})},
            )
        same = stored.id == lease.id and stored.preference == preference
        return self.show(annotator, _SAVED[action] if same else _already(stored, lease))

    def undo(self, annotator: str, showing: str) -> View:
        """Take the person's last answer or skip back and show its task again.

        Args:
            annotator: Who sent it.
            showing: Id of the lease that was on the screen, "" if nothing was left. If something else is shown by
                now, nothing is taken back: what was last on an old screen is not what was last.
        """
        with self._lock:
            shown = self.store.lease(annotator, gold_share=self.gold_share)
            if (shown.id if shown else "") != showing:
                return self.show(annotator, _STALE)
            back = self.store.undo(annotator, id=f"undo-{showing or uuid.uuid4().hex}")
        if back is None:
            return self.show(annotator, "There is nothing to undo.", clear=False)
        return self.show(annotator, "Took your last answer back. Here is its task again.")


def describe(error: Exception) -> str:
    """An error in words for the person: a `UserError`, or the database's."""
    text = str(error)
    if isinstance(error, SQLAlchemyError):
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        text = f"nothing was saved, the store can't be reached ({reason}); try again"
    return f"{text[:1].upper()}{text[1:]}."


def _already(stored: Answer, lease: Lease) -> str:
    if stored.kind == "skip":
        was = "skipped"
    else:
        sides = {
            TIE: "as a tie",
            lease.preference("left"): "left is better",
            lease.preference("right"): "right is better",
        }
        was = f"answered ({sides[stored.preference]})" if stored.preference in sides else "answered"
    return f"That task was already {was}; nothing was added. To change it, press Undo while it was your last."


def draw_task(showing: Showing) -> str:
    """HTML of a task: the prompt above, the responses side by side."""
    prompt = _draw_side(showing.prompt.content, "user")
    sides = "".join(
        f'<section class="side"><h3>{name}</h3><div id="{id}" class="text" tabindex="0" role="region" '
        f'aria-label="{name} response">{_draw_side(response.content, "assistant")}</div></section>'
        for id, name, response in (("left", "Left", showing.left), ("right", "Right", showing.right))
    )
    return (
        f'<div class="task" data-showing="{escape(showing.lease.id)}"><section class="asked"><h3>Prompt</h3>'
        f'<div id="prompt" class="text" tabindex="0" role="region" aria-label="Prompt">{prompt}</div></section>'
        f'<div class="sides">{sides}</div></div>'
    )


def draw_end(progress: Progress) -> str:
    """HTML for the time when nothing is left."""
    done = progress.answered + progress.skipped
    text = "Nothing is left for you. Thank you!" if done else "There is nothing for you to answer yet."
    return draw_notice(f"{text} Reload the page to look for new tasks.")


def draw_notice(text: str) -> str:
    """HTML of a text in the place of the task."""
    return f'<div class="task" data-showing=""><p class="notice">{escape(text)}</p></div>'


def draw_progress(annotator: str, progress: Progress) -> str:
    """HTML of the numbers of answers, skips and tasks left."""
    share = (progress.answered + progress.skipped) / max(1, progress.total)
    skipped = f", {progress.skipped} skipped" if progress.skipped else ""
    return (
        f'<div class="progress" data-done="{progress.answered}" data-skipped="{progress.skipped}" '
        f'data-left="{progress.left}"><span class="who">{escape(annotator)}</span> '
        f"<span>{progress.answered} answered{skipped}, {progress.left} left</span>"
        f'<div class="bar"><div style="width: {100 * share:.1f}%"></div></div></div>'
    )


def draw_message(text: str, *, bad: bool = False) -> str:
    """HTML of the line that says what happened."""
    return f'<p class="{"bad" if bad else "good"}" role="status">{escape(text)}</p>'


def _draw_side(side: Side, role: str) -> str:
    """Text, or messages with their roles; a single message of the expected role stands as text."""
    if isinstance(side, str):
        return to_html(side)
    if len(side) == 1 and side[0].get("role") == role and set(side[0]) <= {"role", "content"}:
        return to_html(_text(side[0]))
    return "".join(
        f'<div class="turn"><span class="role">{escape(str(message.get("role", "")))}</span>'
        f"{to_html(_text(message))}</div>"
        for message in side
    )


def _text(message: Message) -> str:
    """All that a message says: its content, thoughts and tool calls."""
    content = message.get("content")
    parts: Sequence[Any] = content if isinstance(content, list) else [content]
    texts = [
        part["text"] if isinstance(part, Mapping) and isinstance(part.get("text"), str) else part
        for part in parts
        if part is not None
    ]
    rest = {key: value for key, value in message.items() if key not in ("role", "content") and value}
    return "\n\n".join([*map(_plain, texts), *(f"`{key}`: {_plain(value)}" for key, value in rest.items())])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"`{value}`"
