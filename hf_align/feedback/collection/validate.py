"""Which answers count, and when a task's comparison is valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from hf_align.feedback.aggregate.verdicts import vote_of
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.records import TIE, Annotator, Answer, Task

PRIOR_RIGHT, PRIOR_WRONG = 4.0, 1.0
"""A new annotator counts as one who answered 4 of 5 gold questions right."""
State = Literal["valid", "asked", "open"]


@dataclass(frozen=True)
class TrackRecord:
    """Gold questions that an annotator answered right and wrong."""

    right: float = 0.0
    wrong: float = 0.0

    @property
    def reliability(self) -> float:
        """Mean of the posterior of the share answered right: (4 + right) / (5 + right + wrong)."""
        return (PRIOR_RIGHT + self.right) / (PRIOR_RIGHT + PRIOR_WRONG + self.right + self.wrong)

    def after(self, right: bool) -> TrackRecord:
        """The record with one more question."""
        return TrackRecord(self.right + right, self.wrong + (not right))


@dataclass(frozen=True)
class Review:
    """What the answers to a task amount to.

    Attributes:
        state: "valid"; "asked": more answers are wanted; "open": no more are asked for, somebody has to decide.
        given: Answers that stand.
        counting: Those of them whose quality suffices.
        agreement: Share of the counting answers that hold the commonest preference; None without any.
        quality: Mean quality of the counting answers; None without any.
        wanted: Answers to ask for in all.
    """

    state: State
    given: int
    counting: tuple[Answer, ...]
    agreement: float | None
    quality: float | None
    wanted: int

    @property
    def missing(self) -> bool:
        """Whether more answers are to come, of a valid one as a check of an annotator."""
        return self.state != "open" and self.given < self.wanted


def rate_answers(
    tasks: Mapping[str, Task],
    answers: Iterable[Answer],
    annotators: Mapping[str, Annotator],
    config: CollectionConfig,
    adjudicators: Collection[str] = (),
) -> tuple[dict[str, TrackRecord], dict[str, float]]:
    """Track record of each annotator, and quality of each vote by its id.

    An adjudicator's answer is no vote: it has no quality, counts whatever it would have, and is no evidence on the
    annotators.

    Args:
        tasks: Tasks by id.
        answers: The answers that stand, in their order.
        annotators: Annotators by name, with their earlier record.
        config: The limits.
        adjudicators: Names of those whose answer decides.
    """
    votes = [answer for answer in answers if answer.annotator not in adjudicators]
    records = track_records(tasks, votes, annotators, config)
    return records, {each.id: answer_quality(each, config, records[each.annotator]) for each in votes}


def answer_quality(answer: Answer, config: CollectionConfig, record: TrackRecord) -> float:
    """Quality of an answer, from 0 to 1: the mean of four parts.

    - time: 1 from `min_seconds` to `max_seconds`; seconds / `min_seconds` below, `max_seconds` / seconds above;
    - confidence: confidence / `min_confidence`, at most 1;
    - track record: `TrackRecord.reliability`;
    - reasoning: characters / `min_reason_length`, at most 1.

    A part that the answer doesn't have is left out of the mean: time for models, which are shown nothing, confidence
    and reasoning for whoever gave none. The track record is always there.

    Args:
        answer: The answer.
        config: The limits.
        record: The annotator's track record.

    Example:
        >>> from hf_align.feedback import CollectionConfig, PreferenceStore, Prompt, Response, Task
        >>> from hf_align.feedback.collection.validate import TrackRecord, answer_quality
        >>> store, prompt = PreferenceStore("sqlite://"), Prompt("Name a fruit.")
        >>> task = Task.of(Response(prompt.id, "Apple.", "a"), one := Response(prompt.id, "Stone.", "b"))
        >>> store.add(prompts=[prompt], responses=[Response(prompt.id, "Apple.", "a"), one], tasks=[task])
        >>> answer = store.record(task.id, "judge", 1.0, id="1", confidence=0.3)
        >>> answer_quality(answer, CollectionConfig(), TrackRecord())  # mean of .3 / .6 and 4 / 5
        0.65
    """
    parts = [record.reliability]
    if answer.seconds is not None:
        seconds = max(answer.seconds, 1e-9)
        fast = seconds / config.min_seconds if config.min_seconds else 1.0
        parts.append(min(1.0, fast, config.max_seconds / seconds))
    if answer.confidence is not None:
        parts.append(min(1.0, answer.confidence / config.min_confidence) if config.min_confidence else 1.0)
    if answer.reason and answer.reason.strip():
        length = len(answer.reason.strip())
        parts.append(min(1.0, length / config.min_reason_length) if config.min_reason_length else 1.0)
    return fmean(parts)


def review_task(
    task: Task, given: Sequence[Answer], config: CollectionConfig, qualities: Mapping[str, float]
) -> Review:
    """Say whether a task's comparison is valid.

    It is valid with `annotators_per_task` counting answers of which a share of `min_agreement` holds one preference (a
    tie is a preference). Otherwise one more answer is asked for, up to `max_annotators` in all; then it is open. The
    share is that of the commonest preference. Of pairs of answers only two thirds agree where one of six differs: a
    limit of .7 on those would leave every task open whose first three answers differ.

    Args:
        task: The task.
        given: Its answers that stand, in their order.
        config: The limits.
        qualities: Quality of the answers by their id (`answer_quality`).
    """
    counting = tuple(answer for answer in given if qualities[answer.id] >= config.min_quality)
    mean = fmean(qualities[answer.id] for answer in counting) if counting else None
    agreement = majority_share(answer.preference for answer in counting if answer.preference is not None)
    settled = len(counting) >= config.annotators_per_task and (agreement or 0.0) >= config.min_agreement
    wanted = max(task.wanted, config.annotators_per_task)
    if settled:
        state: State = "valid"
    elif len(given) < max(wanted, config.max_annotators):
        state, wanted = "asked", max(wanted, len(given) + 1)
    else:
        state = "open"
    return Review(state, len(given), counting, agreement, mean, wanted)


def majority_share(preferences: Iterable[float]) -> float | None:
    """Share of the commonest of first, tie and second; None without any.

    Example:
        >>> from hf_align.feedback.collection.validate import majority_share
        >>> majority_share([1.0, 0.9, 0.5, 1.0])
        0.75
    """
    counts = Counter(map(vote_of, preferences))
    return max(counts.values()) / counts.total() if counts else None


def track_records(
    tasks: Mapping[str, Task], answers: Iterable[Answer], annotators: Mapping[str, Annotator], config: CollectionConfig
) -> dict[str, TrackRecord]:
    """Count what annotators answered right and wrong, on top of the record that the store holds for them.

    Two kinds of questions count: gold questions, and tasks that were asked again to check (`gold.recheck`): the
    answers behind the first `annotators_per_task` if those all hold one preference that isn't a tie.

    Args:
        tasks: Tasks by id.
        answers: The answers that stand, in their order.
        annotators: Annotators by name, with their earlier record.
        config: The limits.
    """
    records = {name: TrackRecord(annotator.right, annotator.wrong) for name, annotator in annotators.items()}
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.task_id, []).append(answer)
    for task_id, given in by_task.items():
        truth, measured = known_label(tasks[task_id], given, config)
        for answer in measured:
            assert answer.preference is not None
            records[answer.annotator] = records[answer.annotator].after(vote_of(answer.preference) == truth)
    return records


def known_label(task: Task, given: Sequence[Answer], config: CollectionConfig) -> tuple[float | None, Sequence[Answer]]:
    """What is known to be right for a task, and the answers that this measures."""
    if task.gold is not None:
        return vote_of(task.gold), given
    first = given[: config.annotators_per_task]
    labels = {vote_of(answer.preference) for answer in first if answer.preference is not None}
    if len(first) < max(config.annotators_per_task, 3) or len(labels) != 1 or labels == {TIE}:
        return None, ()
    return labels.pop(), given[len(first) :]
