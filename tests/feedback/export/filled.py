"""Stores filled by scripted annotators, whose exports are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_align.feedback import Annotator, PreferenceStore, Prompt, Response, Task

GOOD, BAD = "good", "bad"


class Clock:
    """A second passes with each look at it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def add_task(
    store: PreferenceStore,
    prompt: Prompt,
    votes: Mapping[str, float | None],
    *,
    texts: Sequence[Any] = (),
    **fields: Any,
) -> Task:
    """Add a task of a good response by model `strong` and a bad one by `weak`, and answers to it.

    Args:
        store: The store.
        prompt: The prompt.
        votes: By annotator 1 for the good response, 0 for the bad one, .5 for a tie, None for a skip.
        texts: The good and the bad response. Default: derived from the prompt's text.
        fields: Of the task; `gold_best` is "good" or "bad" here.
    """
    good, bad = texts or (f"A fine reply to {prompt.content}", f"No idea of {prompt.content}")
    one = Response(prompt.id, good, "strong", {"temperature": 0.7})
    other = Response(prompt.id, bad, "weak")
    if "gold_best" in fields:
        fields["gold_best"] = one.id if fields["gold_best"] == GOOD else other.id
    task = Task.of(one, other, **{"wanted": len(votes), **fields})
    store.add(prompts=[prompt], responses=[one, other], tasks=[task])
    for name, vote in votes.items():
        turned = vote if vote is None or task.first_id == one.id else 1 - vote
        store.record(task.id, name, turned, id=f"{task.id}-{name}", reason="clear" if vote else None, confidence=0.9)
    return task


def fill(store: PreferenceStore, tasks: int) -> None:
    """Add tasks on as many prompts: of each three all for the good response, two of three, a tie of all."""
    people = [Annotator("Anna Q", group="north"), Annotator("Ben R", group="north"), Annotator("Cleo S", group="south")]
    store.add(annotators=people)
    for number in range(tasks):
        votes = [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.5, 0.5, 0.5)][number % 3]
        prompt = Prompt(f"Question {number}?", pool="high_value" if number % 2 else "random", domain="plants")
        add_task(store, prompt, dict(zip(("Anna Q", "Ben R", "Cleo S"), votes, strict=True)), strategy="sources")


def filled(tasks: int = 12) -> PreferenceStore:
    """A store in memory with the tasks of `fill`."""
    store = PreferenceStore("sqlite://", clock=Clock())
    fill(store, tasks)
    return store
