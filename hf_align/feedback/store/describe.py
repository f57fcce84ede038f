"""What a store holds in figures: counts, agreement, sides and times, by pool, domain, annotator and task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from hf_align.data.agreement import Agreement, measure_agreement
from hf_align.feedback.records import TIE, Annotator, Answer, Prompt, Task


def describe_store(
    prompts: Mapping[str, Prompt],
    tasks: Mapping[str, Task],
    annotators: Mapping[str, Annotator],
    events: Iterable[Answer],
    *,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Figures of a store's records, as JSON has them: what is undefined is None, with the reason beside it.

    Agreement is Krippendorff's alpha at level interval (a tie lies halfway between the two preferences) and the share
    of equal answers, over the tasks that are no gold questions.

    Args:
        prompts: By id.
        tasks: By id.
        annotators: By name.
        events: Answers, skips and undos in the order of adding.
        resamples: Bootstrap resamples of alpha's interval.
    """
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], Answer] = {}
    for happened in events:
        counts[happened.annotator, happened.kind] += 1
        last[happened.task_id, happened.annotator] = happened  # an attempt begins after the undo of the one before
    given: dict[str, list[Answer]] = {id: [] for id in tasks}
    skipped: Counter[str] = Counter()
    for happened in last.values():
        if happened.kind == "answer":
            given[happened.task_id].append(happened)
        skipped[happened.task_id] += happened.kind == "skip"
    asked = {id: answers for id, answers in given.items() if tasks[id].gold is None}
    agreement = _measure(asked, resamples)
    of_prompt: dict[str, list[str]] = defaultdict(list)
    for id, task in tasks.items():
        of_prompt[task.prompt_id].append(id)

    def part(of: Sequence[str]) -> dict[str, Any]:
        ids = [id for prompt in of for id in of_prompt[prompt]]
        measured = _measure({id: asked[id] for id in ids if id in asked}, 0)
        return {"prompts": len(of), **_count_tasks(ids, tasks, given, skipped), **_alpha(measured)}

    return {
        "prompts": len(prompts),
        **_count_tasks(tasks, tasks, given, skipped),
        "undos": sum(count for (_, kind), count in counts.items() if kind == "undo"),
        "annotators": len(annotators),
        **_alpha(agreement),
        **_sides([answer for answers in given.values() for answer in answers]),
        "by_pool": [{"pool": pool, **part(of)} for pool, of in _group(prompts, "pool").items()],
        "by_domain": [{"domain": domain, **part(of)} for domain, of in _group(prompts, "domain").items()],
        "by_annotator": _by_annotator(
            annotators, tasks, given, skips=last.values(), counts=counts, agreement=agreement
        ),
        "by_task": [
            {
                **{"task": id, "prompt": task.prompt_id, "gold": task.gold, "wanted": task.wanted},
                **{"answers": len(given[id]), "skips": skipped[id], "open": _is_open(task, given[id])},
                "raw_agreement": _equal_pairs(given[id]),
            }
            for id, task in tasks.items()
        ],
    }


def _group(prompts: Mapping[str, Prompt], field: str) -> dict[str | None, list[str]]:
    groups: dict[str | None, list[str]] = defaultdict(list)
    for id, prompt in prompts.items():
        groups[getattr(prompt, field)].append(id)
    return groups


def _is_open(task: Task, answers: Sequence[Answer]) -> bool:
    return task.gold is None and len(answers) < task.wanted


def _count_tasks(
    ids: Iterable[str], tasks: Mapping[str, Task], given: Mapping[str, Sequence[Answer]], skipped: Counter[str]
) -> dict[str, int]:
    """Tasks, gold questions among them, open and answered ones of the others, and the answers and skips that stand."""
    ids = list(ids)
    gold = sum(tasks[id].gold is not None for id in ids)
    still = sum(_is_open(tasks[id], given[id]) for id in ids)
    figures = {"tasks": len(ids), "gold": gold, "open": still, "answered": len(ids) - gold - still}
    return {**figures, "answers": sum(len(given[id]) for id in ids), "skips": sum(skipped[id] for id in ids)}


def _measure(given: Mapping[str, Sequence[Answer]], resamples: int) -> Agreement:
    values = {id: {answer.annotator: answer.preference for answer in answers} for id, answers in given.items()}
    return measure_agreement(values, "interval", resamples=resamples)


def _alpha(agreement: Agreement) -> dict[str, Any]:
    plain = agreement.to_dict()
    return {
        "agreement": {
            name: plain[name] for name in ("level", "alpha", "interval", "raw", "units", "values", "reason", "sentence")
        }
    }


def _equal_pairs(answers: Sequence[Answer]) -> float | None:
    """Share of the pairs of answers to a task that are the same; None with fewer than two answers."""
    equal = sum(map(_pairs, Counter(answer.preference for answer in answers).values()))
    return equal / _pairs(len(answers)) if len(answers) > 1 else None


def _pairs(of: int) -> int:
    return of * (of - 1) // 2


def _sides(answers: Sequence[Answer]) -> dict[str, Any]:
    """Share of the shown answers that had the first response on the left, and of the decided ones that chose the left.

    Both are near .5 where the sides are drawn at random and nobody prefers one; None without such answers.
    """
    shown = [answer for answer in answers if answer.left is not None]
    decided = [answer for answer in shown if answer.preference != TIE]
    chose = [(answer.preference or 0) > TIE for answer in decided]
    left = [first == (answer.left == "first") for answer, first in zip(decided, chose, strict=True)]
    return {
        "first_on_left": _share([answer.left == "first" for answer in shown]),
        "shown": len(shown),
        "chose_left": _share(left),
        "decided": len(decided),
    }


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_annotator(
    annotators: Mapping[str, Annotator],
    tasks: Mapping[str, Task],
    given: Mapping[str, Sequence[Answer]],
    *,
    skips: Iterable[Answer],
    counts: Counter[tuple[str, str]],
    agreement: Agreement,
) -> list[dict[str, Any]]:
    """Of each annotator: what stands, undos, median seconds, gold questions, agreement with the others, sides."""
    theirs: dict[str, list[Answer]] = defaultdict(list)
    for answers in given.values():
        for answer in answers:
            theirs[answer.annotator].append(answer)
    skipped = Counter(happened.annotator for happened in skips if happened.kind == "skip")
    return [
        {
            **{"annotator": name, "kind": annotator.kind, "group": annotator.group},
            **{"answers": len(theirs[name]), "skips": skipped[name], "undos": counts[name, "undo"]},
            **_seconds(theirs[name]),
            **_gold(theirs[name], tasks),
            **_with_others(agreement, name),
            **_sides(theirs[name]),
        }
        for name, annotator in annotators.items()
    ]


def _seconds(answers: Sequence[Answer]) -> dict[str, float | None]:
    seconds = [answer.seconds for answer in answers if answer.seconds is not None]
    return {"median_seconds": median(seconds) if seconds else None}


def _gold(answers: Sequence[Answer], tasks: Mapping[str, Task]) -> dict[str, int]:
    """Gold questions answered on the same side of a tie as the known answer, and others."""
    right = [
        (answer.preference > TIE) - (answer.preference < TIE) == (gold > TIE) - (gold < TIE)
        for answer in answers
        if (gold := tasks[answer.task_id].gold) is not None and answer.preference is not None
    ]
    return {"gold_right": sum(right), "gold_wrong": len(right) - sum(right)}


def _with_others(agreement: Agreement, name: str) -> dict[str, Any]:
    """Share of the others' answers to the same tasks that are the same as theirs, and alpha; None without any."""
    one = agreement.annotators.get(name)
    if one is None or not one.values:
        return {"raw_agreement": None, "alpha": None, "compared": 0}
    alpha = None if agreement.reason or one.alpha != one.alpha else one.alpha
    return {"raw_agreement": one.raw, "alpha": alpha, "compared": one.values}
