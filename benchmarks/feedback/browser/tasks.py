"""A store of comparisons of embedded sentences, in which every text names its task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hf_align.data.embedded.rows import make_pairs
from hf_align.feedback import PreferenceStore, Prompt, Response, Task

NUMBER = re.compile(r"Question (\d{4})")
UNMARKED = re.compile(r"[A-Za-z][^<>`*_~$&|#\\\[\]]*")
"""Texts in which Markdown marks nothing, so that the page shows all of their letters and digits."""


class Question(NamedTuple):
    """Texts of a task; `id` is the task's in the store."""

    id: str
    prompt: str
    chosen: str
    rejected: str


def fill(store: PreferenceStore, count: int, *, wanted: int = 3, gold: int = 0, seed: int = 0) -> list[Question]:
    """Add comparisons of two rated sentences and return them in the order of their numbers.

    Args:
        store: The store.
        count: Number of tasks.
        wanted: Answers wanted of each.
        gold: The first so many are gold questions.
        seed: Of the choice of sentences.
    """
    questions: list[Question] = []
    pairs: Any = make_pairs("train", 2 * count, seed)
    rows = (row for row in pairs if all(map(UNMARKED.fullmatch, texts_of(row))))
    for number, row in zip(range(count), rows, strict=False):
        asked = f"Question {number:04}: {row['prompt'][-1]['content']}"
        prompt = Prompt(asked, pool="random")
        texts = texts_of(row)
        responses = [Response(prompt.id, text, "people") for text in texts]
        best = responses[0].id if number < gold else None
        task = Task.of(*responses, gold_best=best, wanted=wanted)
        store.add(prompts=[prompt], responses=responses, tasks=[task])
        questions.append(Question(task.id, asked, *texts))
    assert len(questions) == count
    return questions


def texts_of(row: Mapping[str, Any]) -> list[str]:
    """The two sentences of a pair, the preferred one first."""
    return [row["chosen"][-1]["content"], row["rejected"][-1]["content"]]


def number_in(prompt: str) -> int:
    """Number of the task that a prompt belongs to.

    Raises:
        ValueError: It names none.
    """
    found = NUMBER.search(prompt)
    if found is None:
        raise ValueError(f"{prompt!r} names no question")
    return int(found[1])


def plain(text: str) -> str:
    """Letters and digits of a text: what is left of it whatever a page makes of marks and spaces."""
    return "".join(filter(str.isalnum, text))
