"""Which pairs to ask about next: at random, where an ensemble disagrees, or where an answer is expected to say most.

Sources: query by committee (Seung et al. 1992) for disagreement; the design that is optimal for predictions for
information (`hf_align.feedback.collection.information`). ActiveUltraFeedback (arXiv 2603.09692) compares further rules
on models' responses, with a policy as the aim; here the aim is a reward model that is right about the whole pool.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from hf_align.errors import UserError
from hf_align.feedback.collection.head import LinearHead
from hf_align.feedback.collection.information import Beliefs, choose_informative
from hf_align.feedback.records import Task

Selection = Literal["random", "disagreement", "information"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)
Comparison = tuple[str, str, float]
"""Ids of two responses, and the preference for the first."""
AVERAGE_PAIRS = 2
"""Times the average number of pairs that a response is in, beyond one, in which information has it at most."""
PENALTY = 1.0
"""Of the head's weights, on features of length 1: beforehand, log odds of two unrelated responses have variance 2."""


def disagreement(log_odds: ArrayLike) -> NDArray[np.float64]:
    """Variance over members of P(first is better): 0 where all say the same, 1/4 where half are sure of each side.

    Args:
        log_odds: `[M, C]` each member's log odds that the first is better.

    Returns:
        `[C]`.

    Example:
        >>> from hf_align.feedback.collection.choose import disagreement
        >>> disagreement([[0.0, 9.0, 9.0], [0.0, 9.0, -9.0]]).round(2).tolist()
        [0.0, 0.0, 0.25]
    """
    return expit(np.asarray(log_odds, dtype=float)).var(0)


def choose_tasks(
    candidates: Sequence[Task],
    member_scores: Mapping[str, Sequence[float]] | None,
    method: Selection,
    n: int,
    *,
    seed: int = 0,
    round: int = 0,
    model: str | None = None,
    features: Mapping[str, Sequence[float] | NDArray] | None = None,
    answered: Sequence[Comparison] = (),
    asked: Sequence[Task] = (),
    penalty: float = PENALTY,
) -> list[Task]:
    """Choose the tasks to ask about next.

    Args:
        candidates: Tasks that aren't asked yet.
        member_scores: Each response's score by every member of an ensemble, by the response's id; differences of a
            member's scores are log odds. Not needed at random.
        method: "random"; "disagreement": where P(first is better) varies most over the members; "information": where
            answers are expected to lower the variance of all candidates' log odds most, given the answers to those
            chosen before; no response is in more pairs than one and twice the average, the pairs `asked` included.
        n: Number to choose; all if there are fewer.
        seed: Of the random choice, and of the order among equal ones.
        round: Number of the round, kept with the choice.
        model: Name of the ensemble, or of the features' model, kept with the choice.
        features: For information in place of an ensemble's scores: each response's features by id, as of
            `EvenFeatures`. A linear head on them is fitted to the answers so far.
        answered: The answers so far: ids of two responses and the preference, from 0 (second) to 1 (first).
        asked: Tasks that were asked about before.
        penalty: Of that head's weights.

    Returns:
        The chosen ones, best first. Their `choice` tells method, round, score (None at random) and model. Where the
        limit of pairs leaves too few for information, the rest is at random.

    Raises:
        UserError: An unknown method, or one whose ensemble isn't there or lacks a response.

    Example:
        >>> from hf_align.feedback import Prompt, Response, Task
        >>> from hf_align.feedback.collection.choose import choose_tasks
        >>> prompt = Prompt("Say hello.")
        >>> a, b, c = (Response(prompt.id, text, "me") for text in ("Hello.", "Hi!", "Go away."))
        >>> scores = {a.id: [0.0, 0.0], b.id: [3.0, -3.0], c.id: [-5.0, -5.0]}
        >>> [task] = choose_tasks([Task.of(a, c), Task.of(a, b)], scores, "disagreement", 1, model="two heads")
        >>> {task.first_id, task.second_id} == {a.id, b.id}
        True
        >>> {name: task.choice[name] for name in ("method", "round", "model")}
        {'method': 'disagreement', 'round': 0, 'model': 'two heads'}
    """
    if method not in SELECTIONS:
        raise UserError(f"selection={method!r} is unknown; use one of {', '.join(SELECTIONS)}")
    tasks = sorted(candidates, key=lambda task: task.id)
    random.Random(f"{seed}/{round}/choose").shuffle(tasks)
    if not tasks:
        return []
    if method == "random":
        return [_recorded(task, method=method, round=round) for task in tasks[:n]]
    if method == "disagreement":
        found = disagreement(_log_odds(tasks, member_scores, method))
        places = np.argsort(-found, kind="stable")[:n]
        scores = found[places]
    else:
        if features is None:
            beliefs = Beliefs.of_members(_log_odds(tasks, member_scores, method))
        else:
            beliefs = _head_beliefs(tasks, features, answered, penalty)
        pairs, room = _room(tasks, asked, n)
        places, scores = choose_informative(
            beliefs, n, answers=max(task.wanted for task in tasks), pairs=pairs, room=room
        )
    chosen = [
        _recorded(tasks[place], method=method, round=round, score=float(score), model=model)
        for place, score in zip(places, scores, strict=True)
    ]
    taken = set(places.tolist())
    rest = [task for place, task in enumerate(tasks) if place not in taken]
    return chosen + [_recorded(task, method="random", round=round) for task in rest[: n - len(chosen)]]


def _room(tasks: Sequence[Task], asked: Sequence[Task], n: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """`[C, 2]` numbers of each task's responses, and in how many of the n pairs to choose each response may be."""
    pairs = [(task.first_id, task.second_id) for task in (*asked, *tasks)]
    numbers = {id: number for number, id in enumerate(dict.fromkeys(id for pair in pairs for id in pair))}
    places = np.array([[numbers[id] for id in pair] for pair in pairs])
    used = np.bincount(places[: len(asked)].ravel(), minlength=len(numbers))
    average = 2 * (len(asked) + min(n, len(tasks))) / len(numbers)
    return places[len(asked) :], np.maximum(np.ceil(AVERAGE_PAIRS * average) + 1 - used, 0)


def _head_beliefs(
    tasks: Sequence[Task],
    features: Mapping[str, Sequence[float] | NDArray],
    answered: Sequence[Comparison],
    penalty: float,
) -> Beliefs:
    """What a head fitted to the answers expects of the tasks."""
    asked = [(first, second) for first, second, _ in answered]
    pairs = [*asked, *((task.first_id, task.second_id) for task in tasks)]
    missing = next((id for pair in pairs for id in pair if id not in features), None)
    if missing is not None:
        raise UserError(f"selection='information': response {missing} has no features; give those of every response")
    rows = np.array([np.subtract(features[first], features[second]) for first, second in pairs], dtype=float)
    head = LinearHead.fit(rows[: len(asked)], [preference for _, _, preference in answered], penalty=penalty)
    return head.beliefs(rows[len(asked) :])


def _log_odds(tasks: Sequence[Task], scores: Mapping[str, Sequence[float]] | None, method: str) -> NDArray:
    """`[M, C]` each member's log odds that the first is better."""
    if scores is None:
        raise UserError(
            f"selection={method!r} needs the scores of an ensemble; give a reward ensemble, or use 'random'"
        )
    missing = next((id for task in tasks for id in (task.first_id, task.second_id) if id not in scores), None)
    if missing is not None:
        raise UserError(f"selection={method!r}: response {missing} has no scores; score every candidate's responses")
    counts = {len(scores[id]) for task in tasks for id in (task.first_id, task.second_id)}
    if len(counts) > 1:
        raise UserError(f"selection={method!r}: responses have {sorted(counts)} scores; let as many members score each")
    if counts == {1}:
        raise UserError(f"selection={method!r} compares members, and there is one score a response; give two or more")
    first, second = (
        np.array([scores[id] for id in ids], dtype=float).reshape(len(tasks), -1).T
        for ids in ([task.first_id for task in tasks], [task.second_id for task in tasks])
    )
    if not np.isfinite(first - second).all():
        raise UserError(f"selection={method!r}: a score is not a finite number; check the ensemble")
    return first - second


def _recorded(task: Task, **choice: Any) -> Task:
    # What is wanted rises later: where answers differ, and for a check of an annotator.
    return replace(task, choice={**task.choice, "wanted": task.wanted, **choice})
