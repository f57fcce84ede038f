"""What a collection came to: figures by task and by annotator, as text and JSON."""

from __future__ import annotations

from collections.abc import Collection as Names, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from hf_align.feedback.aggregate.verdicts import Verdict, judge_tasks, vote_of
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.state import State
from hf_align.feedback.collection.validate import TrackRecord
from hf_align.feedback.records import TIE, Annotator, Answer
from hf_align.feedback.store import PreferenceStore
from hf_align.numbers import plural


@dataclass(frozen=True)
class OfAnnotator:
    """What one annotator did.

    Attributes:
        kind: "person", "model" or "adjudicator".
        answers: Answers that stand, gold questions included.
        skipped: Tasks skipped.
        counting: Answers, gold questions aside, whose quality suffices.
        quality: Mean quality of the answers; None without any.
        right: Questions with a known answer that were answered right, with the record that the store began with.
        wrong: Those that were answered wrong.
        with_verdict: Share of the answers to valid comparisons that are as the verdict; None without any.
    """

    kind: str
    answers: int
    skipped: int
    counting: int
    quality: float | None
    right: float
    wrong: float
    with_verdict: float | None


@dataclass(frozen=True)
class Collection:
    """What a collection came to.

    Attributes:
        asked: Valid comparisons asked for.
        verdicts: The verdict of each valid comparison, by task.
        open: Ids of tasks that somebody has to decide.
        waiting: Ids of tasks that wait for answers.
        rounds: Rounds laid out.
        gold: Gold questions in the store.
        dropped: What doesn't count, by reason.
        annotators: By name.

    Example:
        >>> from hf_align.feedback import Collection
        >>> print(Collection(9, {}, ["a task"], [], rounds=1, gold=0, dropped={}, annotators={}))
        0 of 9 valid comparisons (0 ties) in 1 round
        1 task open: annotators don't agree, or nobody is left to ask
    """

    asked: int
    verdicts: Mapping[str, Verdict]
    open: Sequence[str]
    waiting: Sequence[str]
    rounds: int
    gold: int
    dropped: Mapping[str, int]
    annotators: Mapping[str, OfAnnotator]

    @property
    def valid(self) -> int:
        """Number of valid comparisons."""
        return len(self.verdicts)

    @property
    def enough(self) -> bool:
        """Whether there are as many as asked for."""
        return self.valid >= self.asked

    @property
    def ties(self) -> int:
        """Valid comparisons in which neither response is better."""
        return sum(verdict.label == TIE for verdict in self.verdicts.values())

    def figures(self) -> dict[str, Any]:
        """All figures, as JSON can write them."""
        strengths = [verdict.strength for verdict in self.verdicts.values()]
        qualities = [verdict.quality for verdict in self.verdicts.values() if verdict.quality is not None]
        return {
            **{"asked": self.asked, "valid": self.valid, "enough": self.enough, "ties": self.ties},
            **{"open": len(self.open), "waiting": len(self.waiting), "rounds": self.rounds, "gold": self.gold},
            "strength": fmean(strengths) if strengths else None,
            "quality": fmean(qualities) if qualities else None,
            "dropped": dict(self.dropped),
            "annotators": {name: asdict(of) for name, of in self.annotators.items()},
        }

    def __str__(self) -> str:
        figures = self.figures()
        wanted = f"{self.valid:,} of {plural(self.asked, 'valid comparison')}"
        lines = [f"{wanted} ({plural(self.ties, 'tie')}) in {plural(self.rounds, 'round')}"]
        if self.waiting:
            lines.append(f"{plural(len(self.waiting), 'task')} waiting for answers")
        if self.open:
            lines.append(f"{plural(len(self.open), 'task')} open: annotators don't agree, or nobody is left to ask")
        if figures["strength"] is not None:
            quality = "" if figures["quality"] is None else f", mean quality {figures['quality']:.2f}"
            lines.append(f"mean strength {figures['strength']:.2f}{quality}")
        if self.gold:
            lines.append(plural(self.gold, "gold question"))
        lines += [f"left out: {reason} ({count:,})" for reason, count in self.dropped.items()]
        return "\n".join([*lines, *map(_line, self.annotators.items())])


def _line(item: tuple[str, OfAnnotator]) -> str:
    name, of = item
    parts = [plural(of.answers, "answer")]
    parts += [f"{of.skipped:,} skipped"] * bool(of.skipped)
    parts += [] if of.quality is None else [f"quality {of.quality:.2f}"]
    parts += [f"{of.right:g} of {of.right + of.wrong:g} known answers right"] * bool(of.right + of.wrong)
    parts += [] if of.with_verdict is None else [f"{of.with_verdict:.0%} as the verdict"]
    return f"{name} ({of.kind}): {', '.join(parts)}"


def summarise(
    store: PreferenceStore, state: State, config: CollectionConfig, n: int, adjudicators: Names[str] = ()
) -> Collection:
    """Aggregate the valid comparisons and count everything else.

    Args:
        store: The store.
        state: The last look at it.
        config: `aggregation` and limits.
        n: Valid comparisons asked for.
        adjudicators: Names of those whose answer decides.
    """
    valid = set(state.of_state("valid"))
    counting = {answer.id for review in state.reviews.values() for answer in review.counting}
    answers = [event for event in state.standing if event.kind == "answer"]
    verdicts = judge_tasks(
        {**state.tasks, **state.gold},
        [
            each
            for each in answers
            if each.id in counting or each.task_id in state.gold or each.annotator in adjudicators
        ],
        store.annotators(),
        method=config.aggregation,
        min_agreement=config.min_agreement,
        qualities=state.qualities,
        adjudicators=adjudicators,
    )
    judged = {id: verdict for id, verdict in verdicts.items() if id in valid}
    prompts = {task.prompt_id for task in (*state.tasks.values(), *state.gold.values())}
    hasty = sum(review.given - len(review.counting) for review in state.reviews.values())
    dropped = {
        "prompts without a comparison: too few different responses": len(store.prompts().keys() - prompts),
        f"answers of a quality below {config.min_quality:g}": hasty,
    }
    return Collection(
        n,
        judged,
        state.of_state("open"),
        state.of_state("asked"),
        state.round,
        len(state.gold),
        {reason: count for reason, count in dropped.items() if count},
        {name: _of_annotator(who, state, answers, judged, counting) for name, who in store.annotators().items()},
    )


def _of_annotator(
    who: Annotator,
    state: State,
    answers: Sequence[Answer],
    verdicts: Mapping[str, Verdict],
    counting: Names[str],
) -> OfAnnotator:
    theirs = [answer for answer in answers if answer.annotator == who.name]
    qualities = [state.qualities[answer.id] for answer in theirs if answer.id in state.qualities]
    judged = [answer for answer in theirs if answer.task_id in verdicts]
    agreeing = sum(vote_of(answer.preference) == verdicts[answer.task_id].label for answer in judged)
    record = state.records.get(who.name, TrackRecord())
    return OfAnnotator(
        who.kind,
        len(theirs),
        sum(event.kind == "skip" and event.annotator == who.name for event in state.standing),
        sum(answer.id in counting for answer in theirs),
        fmean(qualities) if qualities else None,
        record.right,
        record.wrong,
        agreeing / len(judged) if judged else None,
    )
