"""Figures of tasks and their answers, under the same names for a whole store and for an export of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from hf_align.data.agreement import Agreement, agreement_of
from hf_align.data.answers import Answers, Level, read_answers
from hf_align.feedback.records import TIE, Annotator, Answer, Prompt, Task
from hf_align.numbers import plural
from hf_align.statistics import wilson_interval

Figures = dict[str, Any]
LEVEL: Level = "interval"
"""Level of alpha: a tie lies halfway between the two preferences."""
ALPHA = ("level", "alpha", "raw", "units", "values", "reason", "sentence")


def describe_answers(
    prompts: Mapping[str, Prompt],
    tasks: Mapping[str, Task],
    annotators: Mapping[str, Annotator],
    given: Mapping[str, Sequence[Answer]],
    *,
    adjudicators: Collection[str] = (),
    call: Callable[[str], str] = str,
    resamples: int = 1000,
) -> Figures:
    """Counts, agreement, sides and times, by pool, domain, strategy, annotator and group, as JSON has them.

    Agreement is Krippendorff's alpha at level interval and the share of equal answers, over the tasks that are no gold
    questions, without adjudicators' answers; an undefined alpha is None, with the reason beside it. A share has its
    count, what it is of, and Wilson's 95% interval.

    Args:
        prompts: By id.
        tasks: By id.
        annotators: By name; those without answers count, too.
        given: By task the answers that stand, one list for each task.
        adjudicators: Annotators whose answers are verdicts.
        call: Gives what an annotator is called.
        resamples: Bootstrap resamples of alpha's interval.
    """
    asked = {
        id: {answer.annotator: answer.preference for answer in answers if answer.annotator not in adjudicators}
        for id, answers in given.items()
        if tasks[id].gold is None
    }
    read = read_answers(asked, LEVEL)
    agreement = agreement_of(read, LEVEL, resamples=resamples)
    answers = [answer for answers in given.values() for answer in answers]
    pools = {id: prompts[task.prompt_id].pool for id, task in tasks.items()}
    domains = {id: task.domain or prompts[task.prompt_id].domain for id, task in tasks.items()}
    started = {task.prompt_id for task in tasks.values()}
    idle = [prompt for id, prompt in prompts.items() if id not in started]
    kinds = Counter(annotator.kind for annotator in annotators.values())

    def parts(name: str, labels: Mapping[str, str | None], others: Iterable[str | None] = ()) -> list[Figures]:
        more, members = Counter(others), _members(labels)
        return [
            {
                name: label,
                "prompts": len({tasks[id].prompt_id for id in members[label]}) + more[label],
                **_counts(members[label], tasks, given, adjudicators),
                "tied_answers": _ties([answer for id in members[label] for answer in given[id]]),
                "agreement": _alpha(_of_units(read, {id for id in members[label] if id in asked})),
            }
            for label in sorted({*members, *more}, key=lambda label: (label is None, label or ""))
        ]

    return {
        "prompts": len(prompts),
        **_counts(tasks, tasks, given, adjudicators),
        **{"annotators": len(annotators), "people": len(annotators) - kinds["model"], "models": kinds["model"]},
        "answers_of_models": sum(annotators[answer.annotator].kind == "model" for answer in answers),
        "agreement": _alpha(agreement),
        **_style(answers),
        **{"confidence": _mean(answer.confidence for answer in answers), "reasons": _reasons(answers)},
        "by_pool": parts("pool", pools, (prompt.pool for prompt in idle)),
        "by_domain": parts("domain", domains, (prompt.domain for prompt in idle)),
        "by_strategy": parts("strategy", {id: task.strategy for id, task in tasks.items()}),
        "by_annotator": _by_annotator(tasks, annotators, answers, agreement, call),
        "by_group": _by_group(annotators, answers, read),
    }


def share_of(hits: Sequence[bool]) -> Figures:
    """A share with its count and Wilson's 95% interval; None where there is nothing to count."""
    count, of = sum(hits), len(hits)
    low, high = wilson_interval(count / of, of) if of else (None, None)
    return {"count": count, "of": of, "share": count / of if of else None, "low": low, "high": high}


def side_of(preference: float) -> int:
    """1 where the first response is better, -1 where the second is, 0 at a tie."""
    return (preference > TIE) - (preference < TIE)


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """The main figures, a line each."""
    left, seconds = figures["left"], figures["seconds"]
    lines = [figures["agreement"]["sentence"]]
    if left["of"]:
        ends = f"{left['low']:.3f} to {left['high']:.3f}"
        lines.append(f"left side chosen in {left['share']:.3f} ({ends}) of {plural(left['of'], 'answer')}")
    if seconds:
        lines.append(f"median time of an answer {seconds['median']:.0f} s")
    return lines


def _members(labels: Mapping[str, str | None]) -> dict[str | None, list[str]]:
    members: dict[str | None, list[str]] = defaultdict(list)
    for id, label in labels.items():
        members[label].append(id)
    return members


def _counts(
    ids: Collection[str],
    tasks: Mapping[str, Task],
    given: Mapping[str, Sequence[Answer]],
    adjudicators: Collection[str],
) -> dict[str, int]:
    """Tasks, gold questions among them, open and answered ones of the others, and answers."""
    gold = sum(tasks[id].gold is not None for id in ids)
    still = sum(is_open(tasks[id], given[id], adjudicators) for id in ids)
    figures = {"tasks": len(ids), "gold": gold, "open": still, "answered": len(ids) - gold - still}
    return {**figures, "answers": sum(len(given[id]) for id in ids)}


def is_open(task: Task, answers: Sequence[Answer], adjudicators: Collection[str] = ()) -> bool:
    """Whether a task that is no gold question has fewer votes than wanted, and no adjudicator has decided it."""
    decided = any(answer.annotator in adjudicators for answer in answers)
    return task.gold is None and not decided and len(answers) < task.wanted


def _alpha(agreement: Agreement) -> Figures:
    plain = agreement.to_dict()
    low, high = plain["interval"]
    return {**{name: plain[name] for name in ALPHA}, "low": low, "high": high}


def _of_units(read: Answers, ids: Collection[str]) -> Agreement:
    chosen = np.array([unit in ids for unit in read.units], dtype=bool)
    return agreement_of(read.of(chosen[read.unit]), LEVEL, resamples=0)


def _style(answers: Sequence[Answer]) -> Figures:
    """Ties, sides and times.

    The share of answers for the left side and of those shown with the first response on the left are near .5 where
    sides are drawn at random and nobody prefers one.
    """
    shown = [answer for answer in answers if answer.left is not None]
    decided = [
        (answer.left, answer.preference)
        for answer in shown
        if answer.preference is not None and answer.preference != TIE
    ]
    seconds = [time for answer in answers if (time := answer.seconds) is not None]
    return {
        "tied_answers": _ties(answers),
        "left": share_of([(preference > TIE) == (left == "first") for left, preference in decided]),
        "first_on_left": share_of([answer.left == "first" for answer in shown]),
        "seconds": {"median": median(seconds), "mean": fmean(seconds), "answers": len(seconds)} if seconds else None,
    }


def _ties(answers: Sequence[Answer]) -> Figures:
    return share_of([answer.preference == TIE for answer in answers])


def _reasons(answers: Sequence[Answer]) -> Figures:
    return share_of([bool(answer.reason) for answer in answers])


def _mean(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return fmean(given) if given else None


def _by_annotator(
    tasks: Mapping[str, Task],
    annotators: Mapping[str, Annotator],
    answers: Sequence[Answer],
    agreement: Agreement,
    call: Callable[[str], str],
) -> list[Figures]:
    """Of each annotator: answers, gold questions answered rightly, agreement with the others, ties, sides and times."""
    theirs: dict[str, list[Answer]] = {name: [] for name in annotators}
    for answer in answers:
        theirs[answer.annotator].append(answer)
    return [
        {
            **{"annotator": call(name), "kind": annotators[name].kind, "group": annotators[name].group},
            "answers": len(theirs[name]),
            "gold_right": share_of(_gold(tasks, theirs[name])),
            "agreement": _with_others(agreement, name),
            **_style(theirs[name]),
        }
        for name in sorted(annotators, key=call)
    ]


def _gold(tasks: Mapping[str, Task], answers: Sequence[Answer]) -> list[bool]:
    """Whether each answer to a gold question is on the same side of a tie as the known one."""
    return [
        side_of(answer.preference) == side_of(gold)
        for answer in answers
        if (gold := tasks[answer.task_id].gold) is not None and answer.preference is not None
    ]


def _with_others(agreement: Agreement, name: str) -> Figures:
    """Alpha, and the share of the others' answers to the same tasks that are the same; None without any."""
    one = agreement.annotators.get(name)
    if one is None or not one.values:
        return {"alpha": None, "raw": None, "values": 0}
    alpha = None if agreement.reason or one.alpha != one.alpha else one.alpha
    return {"alpha": alpha, "raw": one.raw, "values": one.values}


def _by_group(annotators: Mapping[str, Annotator], answers: Sequence[Answer], read: Answers) -> list[Figures]:
    """Of each group of annotators: how many, their answers, and agreement within it."""
    names = sorted({annotator.group for annotator in annotators.values() if annotator.group is not None})
    counts = Counter(annotators[answer.annotator].group for answer in answers)
    figures = []
    for group in names:
        raters = np.array([annotators[str(name)].group == group for name in read.raters], dtype=bool)
        inside = read if read.rater is None else read.of(raters[read.rater])
        figures.append(
            {
                "group": group,
                "annotators": sum(annotator.group == group for annotator in annotators.values()),
                "answers": counts[group],
                "agreement": _alpha(agreement_of(inside, LEVEL, resamples=0)),
            }
        )
    return figures
