"""Verdicts on the tasks of a store: preference, votes, agreement, by group, and which tasks stay open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, TypeVar, get_args

from hf_align.errors import UserError
from hf_align.feedback.aggregate.votes import EQUAL, Aggregation, majority_vote
from hf_align.feedback.records import FIRST, SECOND, TIE, Annotator, Answer, Task

Method = Literal["majority"]
Record = TypeVar("Record")
METHODS: tuple[Method, ...] = get_args(Method)
Source = Literal["dawid_skene", "weighted", "majority", "gold", "adjudicator"]


@dataclass(frozen=True)
class Verdict:
    """What the answers to a task come to.

    Attributes:
        task_id: The task.
        preference: Probability that the first response is better; a tie counts half.
        votes: Number of answers for the first response, for a tie, for the second; an adjudicator's isn't a vote.
        agreement: Share of the pairs of votes that agree; None with fewer than two.
        by_group: Mean preference of each group's votes; annotators without a group are in none.
        open: The agreement is below the limit and nobody has adjudicated.
        label: 1 (first), .5 (tie) or 0 (second), whichever is most probable; undecided is a tie.
        source: Where the preference comes from: a posterior ("dawid_skene"), shares of votes ("majority", "weighted"),
            the known answer of a gold question, or an adjudicator.
        quality: Mean quality of the answers, where qualities are given.
        agreement_by_group: Share of agreeing pairs of votes within each group; None with fewer than two.
    """

    task_id: str
    preference: float
    votes: tuple[int, int, int]
    agreement: float | None
    by_group: Mapping[str, float]
    open: bool
    label: float
    source: Source
    quality: float | None = None
    agreement_by_group: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def strength(self) -> float:
        """How far the preference is from a tie, from 0 to 1: 2 |p - .5|."""
        return 2 * abs(self.preference - 0.5)

    @property
    def vote_share(self) -> float | None:
        """Share of the votes for the first response, a tie counting half; None without votes."""
        first, tie, second = self.votes
        return (first + tie / 2) / (first + tie + second) if any(self.votes) else None


def judge_tasks(
    tasks: Mapping[str, Task] | Iterable[Task],
    answers: Iterable[Answer],
    annotators: Mapping[str, Annotator] | Iterable[Annotator] = (),
    *,
    method: Method = "majority",
    min_agreement: float = 0.7,
    qualities: Mapping[str, float] | None = None,
    adjudicators: Collection[str] = (),
) -> dict[str, Verdict]:
    """Aggregate the answers to each task.

    Args:
        tasks: Of the store. Gold questions have their known answer as verdict.
        answers: Those that stand (`PreferenceStore.answers`). A preference above .5 is a vote for the first response,
            one below a vote for the second.
        annotators: Of the store, for groups and track records.
        method: How to aggregate.
        min_agreement: Share of agreeing pairs of votes below which a task is open.
        qualities: Quality of answers by their id.
        adjudicators: Names of annotators whose answer closes a task: it becomes the verdict, and other answers stay
            votes. If several adjudicate one task, their mean preference is the verdict, and it stays open unless all
            agree.

    Returns:
        A verdict for each task that has an answer, in the order of tasks.

    Raises:
        UserError: The method is unknown, or an answer belongs to no task.

    Example:
        >>> from hf_align.feedback import Response, Task, judge_tasks
        >>> from hf_align.feedback.records import Answer
        >>> task = Task.of(Response("p", "Apple.", "a"), Response("p", "Stone.", "b"))
        >>> given = [Answer(f"click-{n}", task.id, n, "answer", 1.0, "first", None, None, None, 0.0) for n in "xyz"]
        >>> verdict = judge_tasks([task], given, method="majority")[task.id]
        >>> verdict.preference, verdict.agreement, verdict.open
        (1.0, 1.0, False)
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; use one of {', '.join(METHODS)}")
    by_id = {task.id: task for task in _values(tasks)}
    people = {who.name: who for who in _values(annotators)}
    by_task: dict[str, list[Answer]] = defaultdict(list)
    decided: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.task_id not in by_id:
            raise UserError(f"answer {answer.id!r} belongs to task {answer.task_id!r}, which isn't among the tasks")
        if answer.preference is None:
            raise UserError(f"answer {answer.id!r} has no preference: give the answers that stand, without skips")
        if answer.annotator in adjudicators:
            decided[answer.task_id].append(answer.preference)
        else:
            by_task[answer.task_id].append(answer)
    rows = [(a.task_id, a.annotator, vote_of(a.preference)) for part in by_task.values() for a in part]
    gold = {id: vote_of(task.gold) for id, task in by_id.items() if task.gold is not None}
    result = majority_vote(rows, gold) if rows else None
    verdicts = {}
    for id, task in by_id.items():
        if id in by_task or id in decided:
            verdicts[id] = _verdict(
                task, by_task[id], decided.get(id, []), result, people, min_agreement, qualities or {}
            )
    return verdicts


def _values(records: Mapping[str, Record] | Iterable[Record]) -> Iterable[Record]:
    return records.values() if isinstance(records, Mapping) else records


def vote_of(preference: float | None) -> float:
    """A preference as one of three labels."""
    assert preference is not None
    return TIE if preference == TIE else FIRST if preference > TIE else SECOND


def _verdict(
    task: Task,
    votes: list[Answer],
    decided: list[float],
    result: Aggregation | None,
    people: Mapping[str, Annotator],
    min_agreement: float,
    qualities: Mapping[str, float],
) -> Verdict:
    labels = [vote_of(answer.preference) for answer in votes]
    counts = (labels.count(FIRST), labels.count(TIE), labels.count(SECOND))
    agreement = _agreement(counts)
    groups: dict[str, list[float]] = defaultdict(list)
    for answer, label in zip(votes, labels, strict=True):
        who = people.get(answer.annotator)
        if who is not None and who.group is not None:
            groups[who.group].append(label)
    rated = [qualities[answer.id] for answer in votes if answer.id in qualities]
    is_open = agreement is not None and agreement < min_agreement
    if task.gold is not None:
        shares, source, is_open = {vote_of(task.gold): 1.0}, "gold", False
    elif decided:
        given = [vote_of(preference) for preference in decided]
        shares = {label: given.count(label) / len(given) for label in (FIRST, TIE, SECOND)}
        source, is_open = "adjudicator", len(set(given)) > 1
    else:
        assert result is not None
        shares, source = result.probabilities[task.id], result.method
    first, tie, second = (shares.get(label, 0.0) for label in (FIRST, TIE, SECOND))
    above, below = first - max(tie, second) > EQUAL, second - max(tie, first) > EQUAL
    return Verdict(
        task.id,
        first + tie / 2,
        counts,
        agreement,
        {name: fmean(part) for name, part in groups.items()},
        is_open,
        FIRST if above else SECOND if below else TIE,
        source,
        fmean(rated) if rated else None,
        {name: _agreement((p.count(FIRST), p.count(TIE), p.count(SECOND))) for name, p in groups.items()},
    )


def _agreement(counts: tuple[int, int, int]) -> float | None:
    votes = sum(counts)
    return sum(n * (n - 1) for n in counts) / (votes * (votes - 1)) if votes > 1 else None
