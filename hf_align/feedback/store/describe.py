"""What a store holds in figures: those of its tasks and answers, with skips, undos and each task."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hf_align.feedback.figures import describe_answers, is_open
from hf_align.feedback.records import Annotator, Answer, Prompt, Task


def describe_store(
    prompts: Mapping[str, Prompt],
    tasks: Mapping[str, Task],
    annotators: Mapping[str, Annotator],
    events: Iterable[Answer],
) -> dict[str, Any]:
    """Figures of a store's records: those of `describe_answers`, "skips" and "undos", and "by_task".

    Args:
        prompts: By id.
        tasks: By id.
        annotators: By name.
        events: Answers, skips and undos in the order of adding.
    """
    undos: Counter[str] = Counter()
    last: dict[tuple[str, str], Answer] = {}
    for happened in events:
        undos[happened.annotator] += happened.kind == "undo"
        last[happened.task_id, happened.annotator] = happened  # an attempt begins after the undo of the one before
    given: dict[str, list[Answer]] = {id: [] for id in tasks}
    skips: list[Answer] = []
    for happened in last.values():
        if happened.kind == "answer":
            given[happened.task_id].append(happened)
        elif happened.kind == "skip":
            skips.append(happened)
    deciding = [name for name, annotator in annotators.items() if annotator.kind == "adjudicator"]
    figures = describe_answers(prompts, tasks, annotators, given, adjudicators=deciding)
    skipped = Counter(skip.annotator for skip in skips)
    for one in figures["by_annotator"]:
        one.update(skips=skipped[one["annotator"]], undos=undos[one["annotator"]])
    by_task = _by_task(tasks, given, Counter(skip.task_id for skip in skips), deciding)
    return {**figures, "skips": len(skips), "undos": undos.total(), "by_task": by_task}


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the garbage collector: while 100,000 records are read it takes half of the time and finds nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _by_task(
    tasks: Mapping[str, Task],
    given: Mapping[str, Sequence[Answer]],
    skipped: Mapping[str, int],
    adjudicators: Collection[str],
) -> list[dict[str, Any]]:
    return [
        {
            **{"task": id, "prompt": task.prompt_id, "gold": task.gold, "wanted": task.wanted},
            **{"answers": len(given[id]), "skips": skipped[id], "open": is_open(task, given[id], adjudicators)},
            "raw_agreement": _equal_pairs(given[id]),
        }
        for id, task in tasks.items()
    ]


def _equal_pairs(answers: Sequence[Answer]) -> float | None:
    """Share of the pairs of answers to a task that are the same; None with fewer than two answers."""
    equal = sum(count * (count - 1) for count in Counter(answer.preference for answer in answers).values())
    return equal / (len(answers) * (len(answers) - 1)) if len(answers) > 1 else None
