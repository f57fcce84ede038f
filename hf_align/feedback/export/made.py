"""From a store to a preference data set: which tasks are exported, what was left out and why, and the splits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from datasets import Dataset

from hf_align.errors import UserError
from hf_align.feedback.aggregate.verdicts import Verdict, judge_tasks
from hf_align.feedback.collection.validate import known_label, rate_answers
from hf_align.feedback.export.figures import figures_of
from hf_align.feedback.export.options import ExportOptions
from hf_align.feedback.export.rows import Judged, RowMaker, make_dataset, name_columns, preference_of, readable
from hf_align.feedback.figures import figure_lines
from hf_align.feedback.records import TIE, Annotator, Answer, Prompt, Response, Task
from hf_align.feedback.store.queue import draw
from hf_align.numbers import plural
from hf_align.version import __version__

logger = logging.getLogger(__name__)
CLOSED = ("gold", "adjudicator")
"""Where a verdict comes from that needs no more answers."""
EVEN = 1e-9
"""Rounding of a preference."""


class Stored(Protocol):
    """A preference store, as far as an export reads it."""

    @property
    def id(self) -> str:
        """Names the store."""
        ...

    def pseudonym(self, annotator: str) -> str:
        """What an annotator is called in exports."""
        ...

    def prompts(self) -> dict[str, Prompt]:
        """Prompts by id."""
        ...

    def responses(self) -> dict[str, Response]:
        """Responses by id."""
        ...

    def tasks(self) -> dict[str, Task]:
        """Tasks by id."""
        ...

    def annotators(self) -> dict[str, Annotator]:
        """Annotators by name."""
        ...

    def answers(self) -> Iterable[Answer]:
        """The answers that stand."""
        ...


@dataclass(frozen=True)
class Export:
    """A data set made of a store.

    Attributes:
        rows: All rows, in the order of the store's tasks.
        splits: The same by split: `train` alone, or `train` and `test`.
        left_out: Tasks that were left out, by reason; with `rows="answers"` the ties are single answers.
        figures: Statistics, as JSON has them.
    """

    rows: Dataset
    splits: Mapping[str, Dataset]
    left_out: Mapping[str, int]
    figures: Mapping[str, Any]

    def __str__(self) -> str:
        f = self.figures
        parts = ", ".join(f"{reason} ({count:,})" for reason, count in self.left_out.items()) or "nothing"
        splits = "".join(f", {name} {len(rows):,}" for name, rows in self.splits.items() if len(self.splits) > 1)
        return (
            f"exported {plural(len(self.rows), 'row')}{splits} of {plural(f['tasks'], 'task')} with "
            f"{plural(f['answers'], 'answer')} by {plural(f['annotators'], 'annotator')}; left out: {parts}"
        )

    def lines(self) -> list[str]:
        """The main statistics, a line each."""
        f = self.figures
        lines = [*figure_lines(f), f"mean strength {f['strength']:.3f}, ties {f['ties']['share']:.1%}"]
        low, limit = f["below_limit"]["answers"], f["below_limit"]["limit"]
        if low:
            lines.append(
                f"a quality below {limit:g} in {low:,} of {plural(f['answers'], 'answer')}, which hf-align collect "
                f"doesn't count by default; --min-quality {limit:g} leaves them out"
            )
        for part in f["by_group"]:
            name, same = part["group"], part["as_all"]["share"]
            lines.append(
                f"group {name}: {plural(part['answers'], 'answer')}, {same:.1%} of its tasks decided as by all"
            )
        for name, part in f["win_rate"].items():
            lines.append(f"{name}: win rate {part['share']:.3f} ({part['low']:.3f} to {part['high']:.3f})")
        return lines


def export_preferences(store: Stored, **options: Any) -> Export:
    """Make a preference data set of a store's answers, which the trainers here and TRL's read; logs one line.

    Rows have `prompt`, `chosen` (the better response) and `rejected`, and

    - `margin`, the preference's strength 2 * |p - .5|: 1 where all are sure, near 0 where they are divided. As the
      reward trainer's `margin_mode="weight"` has it, it multiplies the row's loss; or
    - with `soft_labels` no margin but `preference`, P(chosen is better), at least .5; or
    - with `rows="votes"` no margin but `votes`, 1, .5 or 0 of each answer, and `annotators`; or
    - with `ties="keep"` and neither of these no margin but `weight`: 1, and .5 for both orders of a tie.

    Beside these stand `p_chosen`, `strength`, `agreement`, `quality`, `vote_counts`, `by_group`, every answer, sources,
    pool, domain, provenance, and the columns of the prompts' rows.

    Args:
        store: The store. It is only read.
        options: Fields of `ExportOptions`.

    Raises:
        UserError: Nothing can be exported, an option or adjudicator is unknown, a value is out of range, a split would
            be empty, or an answer is no vote with `rows="votes"`.

    Example:
        >>> from hf_align.feedback import PreferenceStore, Prompt, Response, Task
        >>> from hf_align.feedback.export import export_preferences
        >>> store = PreferenceStore("sqlite://")
        >>> prompt = Prompt("Name a fruit.")
        >>> apple, stone = Response(prompt.id, "Apple.", "a"), Response(prompt.id, "Stone.", "b")
        >>> task = Task.of(apple, stone, wanted=1)
        >>> store.add(prompts=[prompt], responses=[apple, stone], tasks=[task])
        >>> answer = store.record(task.id, "anna", 1.0 if task.first_id == apple.id else 0.0, id="1")
        >>> row = export_preferences(store, method="majority").rows[0]
        >>> row["chosen"], row["margin"], row["rejected_source"]
        ('Apple.', 1.0, 'b')
    """
    chosen = ExportOptions.of(**options)
    # Answers first: their tasks, annotators and responses are in the store, whatever is added meanwhile.
    answers = list(store.answers())
    annotators, tasks = store.annotators(), store.tasks()
    chosen = _with_adjudicators(chosen, annotators)
    _, quality = rate_answers(tasks, answers, annotators, chosen.limits, chosen.adjudicators)
    taken = [each for each in answers if quality.get(each.id, 1.0) >= chosen.min_quality]
    by_task: dict[str, list[Answer]] = {id: [] for id in tasks}
    for answer in answers:
        by_task[answer.task_id].append(answer)
    verdicts = judge_tasks(
        tasks,
        taken,
        annotators,
        method=chosen.method,
        min_agreement=chosen.min_agreement,
        qualities=quality,
        adjudicators=chosen.adjudicators,
    )
    left_out: Counter[str] = Counter()
    judged = list(_judged(store, tasks, by_task, verdicts, chosen, quality, left_out))
    left_out[f"answers with a quality below {chosen.min_quality:g}"] = len(answers) - len(taken)
    if chosen.rows == "votes":
        _check_votes(judged, chosen)
    call = str if chosen.names else store.pseudonym
    made_by = {"store": store.id, "method": chosen.method, "hf_align": __version__}
    maker = RowMaker(chosen, annotators, quality, call, made_by, name_columns(each.prompt for each in judged))
    if chosen.rows == "answers" and chosen.ties == "drop":
        left_out["answers that are ties"] = sum(preference_of(a) == TIE for each in judged for a in each.answers)
    made = [(each.prompt.id, row) for each in judged for row in maker.rows(each)]
    left_out = +left_out
    if not made:
        parts = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())
        why = f"all of it is left out: {parts}" if parts else "it has no tasks"
        raise UserError(f"the store has nothing to export: {why}")
    rows = make_dataset([row for _, row in made])
    splits = _splits(rows, [prompt for prompt, _ in made], chosen)
    figures = figures_of(judged, splits, left_out, annotators, call, chosen, made_by, quality)
    export = Export(rows, splits, left_out, figures)
    logger.info("%s", export)
    return export


def _with_adjudicators(options: ExportOptions, annotators: Mapping[str, Annotator]) -> ExportOptions:
    """Options that also name those who collected as adjudicators.

    Raises:
        UserError: The store doesn't know one that is named.
    """
    if unknown := [name for name in options.adjudicators if name not in annotators]:
        raise UserError(f"adjudicators: the store has no annotator {unknown[0]}; it has {', '.join(annotators)}")
    deciding = [name for name, annotator in annotators.items() if annotator.kind == "adjudicator"]
    return replace(options, adjudicators=tuple(dict.fromkeys([*options.adjudicators, *deciding])))


def _judged(
    store: Stored,
    tasks: Mapping[str, Task],
    answers: Mapping[str, Sequence[Answer]],
    verdicts: Mapping[str, Verdict],
    options: ExportOptions,
    quality: Mapping[str, float],
    left_out: Counter[str],
) -> Iterable[Judged]:
    """The tasks to export, in the store's order; counts the others."""
    prompts, responses = store.prompts(), store.responses()
    for id, task in tasks.items():
        verdict = verdicts.get(id)
        closed = verdict is not None and verdict.source in CLOSED
        given = [answer for answer in answers[id] if quality.get(answer.id, 1.0) >= options.min_quality]
        if task.gold is not None and not options.gold:
            left_out["gold questions"] += 1
        elif not given or verdict is None:
            left_out["tasks without an answer"] += 1
        elif options.open_tasks == "drop" and not closed and _waits(task, answers[id], options, quality):
            left_out["tasks that wait for more answers"] += 1
        elif verdict.open and options.min_agreement:
            left_out[f"tasks whose commonest vote has a share below {options.min_agreement:g}"] += 1
        else:
            prompt, first, second = prompts[task.prompt_id], responses[task.first_id], responses[task.second_id]
            tie, pair = _is_tie(verdict, options), readable(prompt, first, second)
            if tie and options.ties == "drop" and options.rows != "answers":
                left_out["ties"] += 1
            elif isinstance(pair, str):
                left_out[f"tasks that can't be trained on, with {pair}"] += 1
            elif options.rows == "votes" and not any(verdict.votes):
                left_out["tasks without a vote"] += 1
            else:
                yield Judged(task, prompt, first, second, given, verdict, tie, pair)


def _waits(task: Task, answers: Sequence[Answer], options: ExportOptions, quality: Mapping[str, float]) -> bool:
    """Whether the comparison needs more answers.

    It does until there are as many votes as the store wants, of which as many count as were wanted at first. One that
    is only asked again to check an annotator (`gold.recheck`) is complete: all votes wanted at first count and hold one
    preference.
    """
    votes = [answer for answer in answers if answer.id in quality]
    counting = sum(quality[vote.id] >= options.min_quality for vote in votes)
    at_first = task.choice.get("wanted")
    if not isinstance(at_first, int):
        return counting < task.wanted
    if counting < at_first or len(votes) >= task.wanted:
        return counting < at_first
    most = max(at_first, options.limits.max_annotators)
    limits = replace(options.limits, annotators_per_task=at_first, max_annotators=most)
    truth, _ = known_label(task, votes, limits)
    return truth is None or any(quality[vote.id] < options.limits.min_quality for vote in votes)


def _is_tie(verdict: Verdict, options: ExportOptions) -> bool:
    """Whether no order can be given: neither response is the likelier one, or with soft labels both are as likely."""
    even = abs(verdict.preference - TIE) < EVEN
    return even if options.soft_labels or options.rows == "votes" else even or verdict.label == TIE


def _check_votes(judged: Iterable[Judged], options: ExportOptions) -> None:
    others = [a for each in judged for a in each.votes(options) if a.preference not in (0, TIE, 1)]
    if others:
        raise UserError(
            f"rows='votes' takes answers of 0, 0.5 or 1, and {len(others):,} are others, such as "
            f"{others[0].preference:g} of {others[0].annotator}; export them with rows='answers', which keeps each as "
            "it is, or with soft_labels, which counts each as a vote for the likelier response"
        )


def _splits(rows: Dataset, prompts: Sequence[str], options: ExportOptions) -> dict[str, Dataset]:
    """`train`, and `test` where a share of prompts is asked for; no prompt is in both."""
    if not options.test_share:
        return {"train": rows}
    test = [draw("split", options.seed, prompt) < options.test_share for prompt in prompts]
    numbers = {
        "train": [n for n, held in enumerate(test) if not held],
        "test": [n for n, held in enumerate(test) if held],
    }
    if empty := [name for name, chosen in numbers.items() if not chosen]:
        raise UserError(
            f"test_share is {options.test_share:g}, and of {len(set(prompts)):,} prompts none is in {empty[0]}; give "
            "another share or seed, or collect more prompts"
        )
    return {name: rows.select(chosen) for name, chosen in numbers.items()}
