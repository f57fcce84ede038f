"""Verdicts on the tasks of a store: preference, votes, agreement, by group, and which tasks stay open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import log
from statistics import fmean
from typing import Literal, TypeVar, get_args

from hf_align.errors import UserError
from hf_align.feedback.aggregate.dawid_skene import SMOOTHING, dawid_skene
from hf_align.feedback.aggregate.votes import EQUAL, Aggregation, AggregationMethod, majority_vote, weighted_vote
from hf_align.feedback.records import FIRST, SECOND, TIE, Annotator, Answer, Task

Record = TypeVar("Record")
METHODS: tuple[AggregationMethod, ...] = get_args(AggregationMethod)
Source = Literal["dawid_skene", "skill_weighted", "weighted", "majority", "gold", "adjudicator"]
MIRROR = {FIRST: SECOND, SECOND: FIRST}
"""Labels with the two responses exchanged: which of them is called the first says nothing."""


@dataclass(frozen=True)
class Verdict:
    """What the answers to a task come to.

    Attributes:
        task_id: The task.
        preference: Probability that the first response is better; a tie counts half.
        votes: Number of answers for the first response, for a tie, for the second; an adjudicator's isn't a vote.
        agreement: Share of the pairs of votes that agree; None with fewer than two.
        by_group: Mean preference of each group's votes; annotators without a group are in none.
        open: The commonest vote has less than `min_agreement` of the votes, and nobody has adjudicated. (Of pairs of
            votes at most two thirds agree among six of which one differs, so the limit isn't one on `agreement`.)
        label: 1 (first), .5 (tie) or 0 (second), whichever is most probable; undecided is a tie.
        source: Where the preference comes from: a posterior ("dawid_skene"), shares of votes ("majority", "weighted",
            "skill_weighted"), the known answer of a gold question, or an adjudicator.
        quality: Mean quality of the answers, where qualities are given.
        agreement_by_group: Share of agreeing pairs of votes within each group; None with fewer than two.

    Example:
        >>> from hf_align.feedback import Verdict
        >>> verdict = Verdict("task", 0.9, (2, 1, 0), 1 / 3, {"experts": 1.0}, True, 1.0, "dawid_skene")
        >>> round(verdict.strength, 2), round(verdict.vote_share, 2)
        (0.8, 0.83)
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
    method: AggregationMethod = "dawid_skene",
    min_agreement: float = 0.7,
    qualities: Mapping[str, float] | None = None,
    adjudicators: Collection[str] = (),
) -> dict[str, Verdict]:
    """Verdict on each task that has an answer.

    Args:
        tasks: Of the store. Gold questions have their known answer as verdict.
        answers: Those that stand (`PreferenceStore.answers`). A preference above .5 is a vote for the first response,
            one below a vote for the second.
        annotators: Of the store, for groups and track records.
        method: "dawid_skene": posterior, by skills estimated from all answers, gold questions, adjudicated tasks and
            track records; errors are the same for the first and the second response, which stand in random order.
            "skill_weighted": shares of votes, weighted by how much more often their annotator prefers the better
            response than the worse one, by the same estimate; who is mostly wrong is read the other way round.
            "weighted": shares of votes, weighted by the mean quality of the annotator's answers, or without qualities
            by log(skill / (1 - skill)) of their gold questions and track record. "majority": shares of equal votes.
        min_agreement: Share of the commonest vote below which a task is open; a further answer that raises the share
            closes it.
        qualities: Quality of answers by their id, from 0 to 1.
        adjudicators: Names of annotators whose answer closes a task: it becomes the verdict, and other answers stay
            votes. If several adjudicate one task, their shares are the verdict, and it stays open unless all agree.

    Returns:
        Verdicts in the order of tasks.

    Raises:
        UserError: The method is unknown, an answer belongs to no task, or qualities are missing where they are weights.

    Example:
        >>> from hf_align.feedback import Answer, Response, Task, judge_tasks
        >>> task = Task.of(Response("p", "Apple.", "a"), Response("p", "Stone.", "b"))
        >>> given = [Answer(f"click-{n}", task.id, n, "answer", 1.0, "first", None, None, None, 0.0) for n in "xyz"]
        >>> verdict = judge_tasks([task], given, method="majority")[task.id]
        >>> verdict.preference, verdict.agreement, verdict.open
        (1.0, 1.0, False)
    """
    by_id = {task.id: task for task in _values(tasks)}
    people = {who.name: who for who in _values(annotators)}
    given = list(answers)
    result = aggregate_answers(by_id, given, people, method=method, qualities=qualities, adjudicators=adjudicators)
    by_task: dict[str, list[Answer]] = defaultdict(list)
    for answer in given:
        by_task[answer.task_id].append(answer)
    verdicts = {}
    for id, task in by_id.items():
        if id in by_task:
            decided = [answer for answer in by_task[id] if answer.annotator in adjudicators]
            votes = [answer for answer in by_task[id] if answer.annotator not in adjudicators]
            verdicts[id] = _verdict(task, votes, decided, result, people, min_agreement, qualities or {})
    return verdicts


def aggregate_answers(
    tasks: Mapping[str, Task] | Iterable[Task],
    answers: Iterable[Answer],
    annotators: Mapping[str, Annotator] | Iterable[Annotator] = (),
    *,
    method: AggregationMethod = "dawid_skene",
    qualities: Mapping[str, float] | None = None,
    adjudicators: Collection[str] = (),
) -> Aggregation | None:
    """Labels of a store's tasks and skills of its annotators, by the votes; see `judge_tasks`.

    Returns:
        Probabilities of the labels 1 (first), .5 (tie, if anybody gave one) and 0 (second); None without votes.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; use one of {', '.join(METHODS)}")
    by_id = {task.id: task for task in _values(tasks)}
    votes: list[Answer] = []
    decisions: dict[str, set[float]] = defaultdict(set)
    for answer in answers:
        if answer.task_id not in by_id:
            raise UserError(f"answer {answer.id!r} belongs to task {answer.task_id!r}, which isn't among the tasks")
        if answer.preference is None:
            raise UserError(f"answer {answer.id!r} has no preference: give the answers that stand, without skips")
        if answer.annotator in adjudicators:
            decisions[answer.task_id].add(vote_of(answer.preference))
        else:
            votes.append(answer)
    if not votes:
        return None
    rows = [(vote.task_id, vote.annotator, vote_of(vote.preference)) for vote in votes]
    gold = _known_labels(by_id, decisions, {vote.task_id for vote in votes})
    if method == "majority":
        return majority_vote(rows, gold)
    names = dict.fromkeys(vote.annotator for vote in votes)
    records = {who.name: (who.right, who.wrong) for who in _values(annotators) if who.name in names}
    if method == "weighted":
        weights = (
            _weights_of_records(rows, gold, records) if qualities is None else _weights_of_qualities(votes, qualities)
        )
        return weighted_vote(rows, weights, gold)
    prior = {name: record for name, record in records.items() if any(record)}
    tie = {TIE: TIE} if TIE in gold.values() or any(row[2] == TIE for row in rows) else {}
    estimate = dawid_skene(rows, gold, prior=prior, mirror={**MIRROR, **tie})
    return estimate if method == "dawid_skene" else _weighted_by_skill(rows, gold, estimate)


def _known_labels(
    tasks: Mapping[str, Task], decisions: Mapping[str, set[float]], asked: Collection[str]
) -> dict[str, float]:
    """Labels of the tasks that were voted on and that are known: gold, or what all adjudicators say."""
    agreed = {id: min(labels) for id, labels in decisions.items() if len(labels) == 1}
    known = {**agreed, **{id: vote_of(task.gold) for id, task in tasks.items() if task.gold is not None}}
    return {id: label for id, label in known.items() if id in asked}


def _weighted_by_skill(
    rows: list[tuple[str, str, float]], gold: Mapping[str, float], estimate: Aggregation
) -> Aggregation:
    """Shares of votes weighted by Youden's index, P(says first | first) - P(says first | second), from an estimate.

    It is 0 for who answers without looking, by clicks or always by ties. Below 0 the vote is turned round.
    """
    index = {name: errors[FIRST][FIRST] - errors[SECOND][FIRST] for name, errors in estimate.confusion.items()}
    turned = [(task, name, 1 - label if index[name] < 0 else label) for task, name, label in rows]
    vote = weighted_vote(turned, {name: abs(value) for name, value in index.items()}, gold)
    # Every label has its probability, also one that nobody gives any more.
    shares = {
        task: {label: given.get(label, 0.0) for label in estimate.priors} for task, given in vote.probabilities.items()
    }
    return replace(estimate, method="skill_weighted", labels=vote.labels, probabilities=shares)


def _weights_of_records(
    rows: list[tuple[str, str, float]], gold: Mapping[str, float], records: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """log(skill / (1 - skill)) by gold questions, track record and the same smoothing as `dawid_skene`; at least 0."""
    counts = {name: [a + b for a, b in zip(records.get(name, (0, 0)), SMOOTHING, strict=True)] for _, name, _ in rows}
    for task, name, label in rows:
        if task in gold:
            counts[name][label != gold[task]] += 1
    return {name: max(0.0, log(right / wrong)) for name, (right, wrong) in counts.items()}


def _weights_of_qualities(votes: Iterable[Answer], qualities: Mapping[str, float]) -> dict[str, float]:
    """Mean quality of each annotator's answers.

    Raises:
        UserError: There is none for an annotator's.
    """
    rated: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        rated[vote.annotator] += [qualities[vote.id]] if vote.id in qualities else []
    if missing := [name for name, given in rated.items() if not given]:
        raise UserError(f"qualities has none for the answers of {missing[0]!r}, which they weigh")
    return {name: fmean(given) for name, given in rated.items()}


def _values(records: Mapping[str, Record] | Iterable[Record]) -> Iterable[Record]:
    return records.values() if isinstance(records, Mapping) else records


def vote_of(preference: float | None) -> float:
    """A preference as one of three labels."""
    assert preference is not None
    return TIE if preference == TIE else FIRST if preference > TIE else SECOND


def _verdict(
    task: Task,
    votes: list[Answer],
    decided: list[Answer],
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
    is_open = bool(votes) and max(counts) < min_agreement * len(votes) - EQUAL
    if task.gold is not None:
        shares, source, is_open = {vote_of(task.gold): 1.0}, "gold", False
    elif decided:
        given = [vote_of(answer.preference) for answer in decided]
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
