"""Questions whose answers are known: from data sets, and from tasks on which the first annotators were of one mind.

Those of data sets are gold questions of the store: an annotator gets them at random in place of other tasks. Of tasks
of the store one more answer is asked for and compared with the first, unanimous ones; they stay ordinary tasks. An
annotator can tell neither from other tasks: the prompts have the form and the domains of the round's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

from datasets import Dataset

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import RowProblem, read_pair
from hf_align.data.layouts.recognition import trained_rows
from hf_align.errors import UserError
from hf_align.feedback.collection.assign import suits
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.domains import Classifier, domain_of
from hf_align.feedback.collection.validate import known_label
from hf_align.feedback.records import Annotator, Answer, Prompt, Response, Task
from hf_align.feedback.store.queue import draw

GOLD = "gold"
"""Strategy of gold questions."""
Rows = Dataset | list[dict[str, Any]]


@dataclass(frozen=True)
class GoldQuestion:
    """A task with a known answer, its prompt and its two responses."""

    prompt: Prompt
    responses: tuple[Response, Response]
    task: Task


def read_gold(
    data: Rows | Mapping[str, Rows], config: CollectionConfig, classify: Classifier | None = None
) -> dict[str, list[GoldQuestion]]:
    """Read gold questions.

    Args:
        data: Rows with prompt, chosen (known to be better) and rejected, and perhaps `domain` or `category`; or several
            such data sets by names of their pools.
        config: `annotators_per_task`.
        classify: Names the domain of prompts whose row has none. Default: `guess_domain`.

    Returns:
        Questions by pool.

    Raises:
        UserError: A row is no pair with a prompt, or says that neither response is better.

    Example:
        >>> from hf_align.feedback.collection.config import CollectionConfig
        >>> from hf_align.feedback.collection.gold import read_gold
        >>> rows = [{"prompt": "Is water wet?", "chosen": "Yes.", "rejected": "Bananas."}]
        >>> [question.task.strategy for question in read_gold(rows, CollectionConfig())["gold"]]
        ['gold']
    """
    pools = data if isinstance(data, Mapping) else {GOLD: data}
    read: dict[str, list[GoldQuestion]] = {}
    for name, rows in pools.items():
        place = f"gold {name!r}"
        dataset = cast(Dataset, as_dataset(trained_rows(rows, place, plain=True), place)).with_format(None)
        questions = read_rows(dataset, lambda row: _read(row, config, classify), place)
        read[name] = list({question.task.id: question for question in questions}.values())
    return read


def _read(row: Mapping[str, Any], config: CollectionConfig, classify: Classifier | None) -> GoldQuestion:
    pair = read_pair(dict(row))
    if pair.prompt is None:
        raise RowProblem("no prompt column", "missing")
    label = row.get("label")
    if label is not None and not (isinstance(label, int | float) and label > 0.5):
        raise RowProblem("a label that doesn't say that chosen is better")
    domain = next((row[name] for name in ("domain", "category") if row.get(name) is not None), None)
    prompt = Prompt(pair.prompt, domain=domain if isinstance(domain, str) else domain_of(pair.prompt, classify))
    better, worse = (Response(prompt.id, side, GOLD) for side in pair.responses)
    fields = {"gold_best": better.id, "domain": prompt.domain, "strategy": GOLD, "wanted": config.annotators_per_task}
    return GoldQuestion(prompt, (better, worse), Task.of(better, worse, **fields))


def check_form(pools: Mapping[str, Sequence[GoldQuestion]], prompts: Collection[Prompt]) -> None:
    """Refuse gold questions that could be told from others: texts among conversations, or the other way round.

    Raises:
        UserError: No prompt to collect for has the form of a gold question.
    """
    forms = {isinstance(prompt.content, str) for prompt in prompts}
    for name, questions in pools.items():
        for question in questions:
            if (is_text := isinstance(question.prompt.content, str)) not in forms:
                kinds = ("text", "messages") if is_text else ("messages", "text")
                raise UserError(
                    f"gold: the prompts of {name!r} are {kinds[0]} and those to collect for are {kinds[1]}, so that "
                    "annotators could tell them; bring both into one form"
                )


def draw_gold(
    pools: Mapping[str, Sequence[GoldQuestion]],
    count: int,
    *,
    asked: Collection[str],
    domains: Collection[str | None],
    round: int,
    seed: int,
) -> list[GoldQuestion]:
    """Draw gold questions that weren't asked yet, from each pool in turn, those of the round's domains first.

    Args:
        pools: Questions by pool.
        count: Number to draw; all that are left, if fewer.
        asked: Ids of the store's tasks.
        domains: Domains of the round's tasks.
        round: Number of the round, which decides the pool that begins.
        seed: Of the order within a pool.
    """
    turns = list(pools)
    turns = turns[round % len(turns) :] + turns[: round % len(turns)] if turns else []
    orders = [
        sorted(
            (question for question in pools[name] if question.task.id not in asked),
            key=lambda each: (each.prompt.domain not in domains, draw(seed, "gold", each.task.id)),
        )
        for name in turns
    ]
    drawn = [question for part in zip_longest(*orders) for question in part if question is not None]
    return list({question.task.id: question for question in drawn}.values())[:count]


def recheck(
    tasks: Mapping[str, Task],
    answers: Mapping[str, Sequence[Answer]],
    annotators: Sequence[Annotator],
    config: CollectionConfig,
    share: float,
) -> dict[str, int]:
    """Choose tasks on which the first annotators were of one mind, to ask one more annotator as a check.

    Args:
        tasks: Tasks of the store that are no gold questions.
        answers: Standing answers by task, in their order.
        annotators: Who there is; somebody must not have answered yet.
        config: `annotators_per_task` and `seed`.
        share: Share of the tasks that are to be checked in this way, those that are already included.

    Returns:
        Answers to ask for in all, by task.
    """
    checked, free = 0, []
    for id, task in tasks.items():
        given = answers.get(id, ())
        if known_label(task, given, config)[0] is None:
            continue
        if task.wanted > config.annotators_per_task:
            checked += 1
        elif len(given) == task.wanted:
            names = {answer.annotator for answer in given}
            free += [id] * any(each.name not in names and suits(each, task.domain) for each in annotators)
    free.sort(key=lambda id: draw(config.seed, "recheck", id))
    return {id: tasks[id].wanted + 1 for id in free[: max(0, int(share * len(tasks)) - checked)]}
