"""What a store holds, as the loop needs it: one look at the tasks and answers, and what they amount to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hf_align.feedback.aggregate.verdicts import vote_of
from hf_align.feedback.collection.assign import assign_tasks
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.validate import Review, TrackRecord, rate_answers, review_task
from hf_align.feedback.records import Annotator, Answer, Task
from hf_align.feedback.store import PreferenceStore


@dataclass(frozen=True)
class State:
    """A look at a store.

    Attributes:
        tasks: Tasks that are no gold questions, by id, in their order.
        gold: Gold questions.
        standing: Answers and skips that stand, in their order.
        answers: Standing answers by task; those of adjudicators aren't among them.
        undos: How often answers were undone, by task's id and annotator.
        records: Track records by annotator.
        qualities: Quality of each vote that stands by its id, those on gold questions included.
        reviews: What the answers to each of `tasks` amount to.
        assigned: Whom the tasks that miss answers go to.
        round: Number of the next round.
    """

    tasks: Mapping[str, Task]
    gold: Mapping[str, Task]
    standing: Sequence[Answer]
    answers: Mapping[str, Sequence[Answer]]
    undos: Mapping[tuple[str, str], int]
    records: Mapping[str, TrackRecord]
    qualities: Mapping[str, float]
    reviews: Mapping[str, Review]
    assigned: Mapping[str, Sequence[str]]
    round: int

    def of_state(self, state: str) -> list[str]:
        """Ids of the tasks whose review says so."""
        return [id for id, review in self.reviews.items() if review.state == state]

    @cached_property
    def more(self) -> dict[str, int]:
        """Answers to ask for in all, of tasks that the store wants fewer of."""
        asked = {id: self.reviews[id].wanted for id in self.of_state("asked")}
        return {id: wanted for id, wanted in asked.items() if wanted > self.tasks[id].wanted}


def read_state(
    store: PreferenceStore,
    config: CollectionConfig,
    annotators: Sequence[Annotator],
    adjudicators: Collection[str] = (),
) -> State:
    """Look at a store.

    A task for which nobody is left to ask is open, whatever it misses.

    Args:
        store: The store.
        config: The limits.
        annotators: Who there is to ask.
        adjudicators: Names of those whose answer decides a task that is open.
    """
    everything = store.tasks()
    tasks = {id: task for id, task in everything.items() if task.gold is None}
    standing, undos = stand(store.events())
    answers: dict[str, list[Answer]] = {}
    decided: dict[str, list[Answer]] = {}
    for event in standing:
        if event.kind == "answer":
            (decided if event.annotator in adjudicators else answers).setdefault(event.task_id, []).append(event)
    given = [event for event in standing if event.kind == "answer"]
    records, qualities = rate_answers(everything, given, store.annotators(), config, adjudicators)
    reviews = {id: review_task(task, answers.get(id, ()), config, qualities) for id, task in tasks.items()}
    wanted = {id: review.wanted for id, review in reviews.items() if review.missing}
    assigned = assign_tasks(
        wanted, tasks.values(), standing, annotators, per_task=config.annotators_per_task, seed=config.seed
    )
    for id, review in reviews.items():
        if id in decided:
            verdicts = {vote_of(answer.preference) for answer in decided[id]}
            reviews[id] = replace(review, state="valid" if len(verdicts) == 1 else "open")
        elif review.state == "asked" and not assigned[id]:
            reviews[id] = replace(review, state="open")
    rounds = [task.choice["round"] for task in everything.values() if "round" in task.choice]
    gold = {id: task for id, task in everything.items() if task.gold is not None}
    next_round = 1 + max(rounds, default=-1)
    return State(tasks, gold, standing, answers, undos, records, qualities, reviews, assigned, next_round)


def stand(events: Iterable[Answer]) -> tuple[list[Answer], Counter[tuple[str, str]]]:
    """The answers and skips that no undo took back, and how often each annotator undid one of each task."""
    events = list(events)
    undone = {(event.task_id, event.annotator, event.attempt) for event in events if event.kind == "undo"}
    standing = [
        event
        for event in events
        if event.kind != "undo" and (event.task_id, event.annotator, event.attempt) not in undone
    ]
    return standing, Counter((task, annotator) for task, annotator, _ in undone)
