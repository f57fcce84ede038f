"""Statistics of an export, for its card, the terminal and JSON: those of its tasks, and of its rows and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from datasets import Dataset

from hf_align.feedback.export.options import ExportOptions
from hf_align.feedback.export.rows import Judged
from hf_align.feedback.figures import Figures, describe_answers, share_of, side_of
from hf_align.feedback.records import TIE, Annotator
from hf_align.statistics import wilson_interval


def figures_of(
    judged: Sequence[Judged],
    splits: Mapping[str, Dataset],
    left_out: Mapping[str, int],
    annotators: Mapping[str, Annotator],
    call: Callable[[str], str],
    options: ExportOptions,
    made_by: Mapping[str, str],
    quality: Mapping[str, float],
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
        quality: Quality of the votes by their id.
    """
    limit = options.limits.min_quality
    votes = [answer for each in judged for answer in each.answers if answer.annotator not in options.adjudicators]
    prompts = {each.prompt.id: each.prompt for each in judged}
    given = {each.task.id: each.answers for each in judged}
    answering = {answer.annotator for each in judged for answer in each.answers}
    first = next(iter(splits.values()))
    figures = describe_answers(
        prompts,
        {each.task.id: each.task for each in judged},
        {name: annotator for name, annotator in annotators.items() if name in answering},
        given,
        adjudicators=options.adjudicators,
        call=call,
    )
    for part in figures["by_group"]:
        part["as_all"] = _as_all(judged, part["group"])
    return {
        **{"rows": sum(map(len, splits.values())), "splits": {name: len(rows) for name, rows in splits.items()}},
        **{"columns": first.column_names, "left_out": dict(left_out)},
        **figures,
        "ties": share_of([each.tie for each in judged]),
        "strength": fmean(each.verdict.strength for each in judged),
        "win_rate": _win_rates(judged),
        "below_limit": {"limit": limit, "answers": sum(quality[answer.id] < limit for answer in votes)},
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


def _as_all(judged: Iterable[Judged], group: str) -> Figures:
    """Share of the tasks that a group of annotators decides as all do."""
    sides = [(each.verdict.by_group[group], each.preference) for each in judged if group in each.verdict.by_group]
    return share_of([side_of(theirs) == side_of(preference) for theirs, preference in sides])


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
