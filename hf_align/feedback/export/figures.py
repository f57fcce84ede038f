"""Statistics of an export, for its card, the terminal and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from datasets import Dataset

from hf_align.data.agreement import measure_agreement
from hf_align.feedback.aggregate.verdicts import vote_of
from hf_align.feedback.export.options import ExportOptions
from hf_align.feedback.export.rows import Judged, preference_of
from hf_align.feedback.records import TIE, Annotator, Answer
from hf_align.statistics import wilson_interval

Figures = dict[str, Any]


def figures_of(
    judged: Sequence[Judged],
    splits: Mapping[str, Dataset],
    left_out: Mapping[str, int],
    annotators: Mapping[str, Annotator],
    call: Callable[[str], str],
    options: ExportOptions,
    made_by: Mapping[str, str],
) -> Figures:
    """Statistics of the tasks that are exported, and of all answers to them.

    Args:
        judged: The tasks.
        splits: The rows made of them.
        left_out: Tasks left out, by reason.
        annotators: By name.
        call: Gives what an annotator is called.
        options: Of the export.
        made_by: Store, method and version.
    """
    answers = [answer for each in judged for answer in each.answers]
    people = {answer.annotator for answer in answers}
    kinds = Counter(annotators[name].kind for name in people)
    first = next(iter(splits.values()))
    return {
        "rows": sum(map(len, splits.values())),
        "splits": {name: len(rows) for name, rows in splits.items()},
        "columns": first.column_names,
        "tasks": len(judged),
        "prompts": len({each.prompt.id for each in judged}),
        "gold": sum(each.task.gold is not None for each in judged),
        "answers": len(answers),
        "annotators": len(people),
        "people": kinds["person"],
        "models": kinds["model"],
        "answers_of_models": sum(annotators[answer.annotator].kind == "model" for answer in answers),
        "left_out": dict(left_out),
        "ties": _share([each.tie for each in judged]),
        "tied_answers": _share([preference_of(answer) == TIE for answer in answers]),
        "strength": fmean(each.verdict.strength for each in judged),
        "agreement": _agreement(judged, lambda answer: answer.annotator not in options.adjudicators),
        "left": _left(answers),
        "seconds": _seconds(answers),
        "confidence": _mean(answer.confidence for answer in answers),
        "reasons": _share([bool(answer.reason) for answer in answers]),
        "by_annotator": _by_annotator(judged, annotators, call),
        "by_group": _by_group(judged, annotators),
        "by_domain": _parts(judged, lambda each: each.domain),
        "by_pool": _parts(judged, lambda each: each.prompt.pool),
        "by_strategy": _parts(judged, lambda each: each.task.strategy),
        "win_rate": _win_rates(judged),
        "options": {
            **{"method": options.method, "rows": options.rows, "soft_labels": options.soft_labels},
            **{"ties": options.ties, "min_agreement": options.min_agreement, "open_tasks": options.open_tasks},
            "min_quality": options.min_quality,
            "adjudicators": [call(name) for name in options.adjudicators],
            **{"gold": options.gold, "names": options.names, "reasons": options.reasons},
            **{"test_share": options.test_share, "seed": options.seed},
        },
        "made_by": dict(made_by),
    }


def _share(hits: Sequence[bool]) -> Figures:
    count, of = sum(hits), len(hits)
    low, high = wilson_interval(count / of, of) if of else (None, None)
    return {"count": count, "of": of, "share": count / of if of else None, "low": low, "high": high}


def _mean(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return fmean(given) if given else None


def _seconds(answers: Sequence[Answer]) -> Figures | None:
    """Time taken by those who were shown something."""
    given = [answer.seconds for answer in answers if answer.seconds is not None]
    return {"median": median(given), "mean": fmean(given), "answers": len(given)} if given else None


def _left(answers: Sequence[Answer]) -> Figures:
    """Share of answers for the left side, of those that had a side and are no tie."""
    sided = [answer for answer in answers if answer.left is not None and answer.preference != TIE]
    return _share([(preference_of(answer) > TIE) == (answer.left == "first") for answer in sided])


def _agreement(judged: Iterable[Judged], counts: Callable[[Answer], bool], resamples: int = 1000) -> Figures:
    """Krippendorff's nominal alpha over tasks, and the share of pairs of answers that agree."""
    table = {each.task.id: {a.annotator: vote_of(a.preference) for a in each.answers if counts(a)} for each in judged}
    found = measure_agreement({task: given for task, given in table.items() if given}, "nominal", resamples=resamples)
    figures = found.to_dict()
    low, high = figures["interval"] or (None, None)
    return {name: figures[name] for name in ("alpha", "raw", "units", "sentence")} | {"low": low, "high": high}


def _by_annotator(judged: Sequence[Judged], annotators: Mapping[str, Annotator], call: Callable[[str], str]) -> Figures:
    table = {each.task.id: {a.annotator: vote_of(a.preference) for a in each.answers} for each in judged}
    found = measure_agreement(table, "nominal", resamples=0).to_dict()["annotators"]
    figures = {}
    for name in sorted({answer.annotator for each in judged for answer in each.answers}, key=call):
        theirs = [answer for each in judged for answer in each.answers if answer.annotator == name]
        figures[call(name)] = {
            **{"kind": annotators[name].kind, "group": annotators[name].group, "answers": len(theirs)},
            **{
                "agreement": found.get(name, {}).get("raw"),
                "ties": _share([a.preference == TIE for a in theirs])["share"],
            },
            **{"seconds": _seconds(theirs), "left": _left(theirs)["share"]},
        }
    return figures


def _by_group(judged: Sequence[Judged], annotators: Mapping[str, Annotator]) -> Figures:
    """Of each group of annotators: answers, agreement within it, and the share of tasks that it decides as all do."""
    answers = [answer for each in judged for answer in each.answers]
    names = sorted({group for a in answers if (group := annotators[a.annotator].group) is not None})
    figures = {}
    for group in names:
        theirs = [answer for answer in answers if annotators[answer.annotator].group == group]
        within = _agreement(judged, lambda answer, group=group: annotators[answer.annotator].group == group)
        sides = [(each.verdict.by_group[group], each.preference) for each in judged if group in each.verdict.by_group]
        same = [_side(own) == _side(all_of_them) for own, all_of_them in sides]
        figures[group] = {
            **{"annotators": len({answer.annotator for answer in theirs}), "answers": len(theirs)},
            **{"agreement": within, "as_all": _share(same)},
        }
    return figures


def _side(preference: float) -> int:
    return (preference > TIE) - (preference < TIE)


def _parts(judged: Sequence[Judged], of: Callable[[Judged], str | None]) -> Figures:
    """Tasks, answers and agreement of each part of the tasks."""
    parts: dict[str, list[Judged]] = {}
    for each in judged:
        parts.setdefault(of(each) or "none", []).append(each)
    return {
        name: {
            **{"tasks": len(part), "answers": sum(len(each.answers) for each in part)},
            **{
                "ties": sum(each.tie for each in part) / len(part),
                "agreement": _mean(each.verdict.agreement for each in part),
            },
        }
        for name, part in sorted(parts.items())
    }


def _win_rates(judged: Iterable[Judged]) -> Figures:
    """Of each source, wins among its comparisons with other sources; a tie is half a win."""
    wins: dict[str, list[float]] = {}
    for each in judged:
        if each.first.source != each.second.source:
            win = TIE if each.tie else float(each.preference > TIE)
            wins.setdefault(each.first.source, []).append(win)
            wins.setdefault(each.second.source, []).append(1 - win)
    figures = {}
    for source, given in sorted(wins.items()):
        low, high = wilson_interval(fmean(given), len(given))
        figures[source] = {"comparisons": len(given), "share": fmean(given), "low": low, "high": high}
    return figures
