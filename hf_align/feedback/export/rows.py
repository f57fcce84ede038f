"""Rows of judged tasks, as the trainers read them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from hf_align.collators.rows import Pair, RowProblem, as_turns, read_pair
from hf_align.collators.tools import NESTED, to_dataset
from hf_align.data.layouts.layout import READ
from hf_align.feedback.aggregate.verdicts import Verdict
from hf_align.feedback.export.options import ExportOptions
from hf_align.feedback.records import TIE, Annotator, Answer, Prompt, Response, Task

logger = logging.getLogger(__name__)

Row = dict[str, Any]
TEXT, NUMBER, COUNT = Value("string"), Value("float64"), Value("int64")
ANSWER: dict[str, Any] = {
    **{"annotator": TEXT, "group": TEXT, "kind": TEXT, "answer": NUMBER},
    **{"confidence": NUMBER, "reason": TEXT, "seconds": NUMBER, "left": TEXT},
    "answer_quality": NUMBER,
}
"""What is known of an answer; `answer` is 1 for chosen, .5 for a tie, 0 for rejected."""
COLUMNS: dict[str, Any] = {
    **{"margin": NUMBER, "preference": NUMBER, "weight": NUMBER, "votes": List(NUMBER), "annotators": List(TEXT)},
    **{"p_chosen": NUMBER, "strength": NUMBER, "agreement": NUMBER, "quality": NUMBER},
    "vote_counts": {"chosen": COUNT, "tie": COUNT, "rejected": COUNT},
    "by_group": List({"group": TEXT, "p_chosen": NUMBER, "agreement": NUMBER}),
    "answers": List(ANSWER),
    **ANSWER,
    **{"chosen_source": TEXT, "rejected_source": TEXT, "pool": TEXT, "domain": TEXT},
    "provenance": {
        **{"task": TEXT, "gold": Value("bool"), "strategy": TEXT, "choice": TEXT, "verdict": TEXT},
        **{"chosen_settings": TEXT, "rejected_settings": TEXT, "store": TEXT, "method": TEXT, "hf_align": TEXT},
    },
}
"""Columns that an export adds, in their order, with their types; which of them depends on the options."""
TAKEN = {*READ, *COLUMNS} - set(NESTED)
"""Names that a prompt's column can't keep."""


@dataclass(frozen=True)
class Judged:
    """A task with all that is exported of it.

    Attributes:
        task: The task.
        prompt: Its prompt.
        first: One response.
        second: The other.
        answers: The answers that stand, in their order.
        verdict: What they come to.
        tie: Whether neither response is better.
        pair: Prompt and both responses as the trainers read them, the first one as chosen.
    """

    task: Task
    prompt: Prompt
    first: Response
    second: Response
    answers: Sequence[Answer]
    verdict: Verdict
    tie: bool
    pair: Pair

    @property
    def preference(self) -> float:
        """P(first is better); a tie counts half."""
        return self.verdict.preference

    def votes(self, options: ExportOptions) -> list[Answer]:
        """The answers without those of adjudicators."""
        return [answer for answer in self.answers if answer.annotator not in options.adjudicators]

    @property
    def domain(self) -> str | None:
        """The task's, or else the prompt's."""
        return self.task.domain or self.prompt.domain


def readable(prompt: Prompt, first: Response, second: Response) -> Pair | str:
    """Prompt and responses as the trainers read them, or what is wrong with them."""
    try:
        return read_pair({"prompt": prompt.content, "chosen": first.content, "rejected": second.content})
    except RowProblem as problem:
        return str(problem)


@dataclass(frozen=True)
class RowMaker:
    """Makes rows of tasks.

    Attributes:
        options: See there.
        annotators: By name.
        quality: Quality of each vote by its id; an adjudicator's answer has none.
        call: Gives what an annotator is called in the rows.
        made_by: Store, method and version of hf_align, for the provenance.
        columns: Names of the prompts' columns in the rows (`name_columns`).
    """

    options: ExportOptions
    annotators: Mapping[str, Annotator]
    quality: Mapping[str, float]
    call: Callable[[str], str]
    made_by: Mapping[str, str]
    columns: Mapping[str, str]

    def rows(self, judged: Judged) -> Iterator[Row]:
        """Rows of a task: one, or one an answer; of a kept tie both orders, unless a label says that it is one."""
        if self.options.rows != "answers":
            yield from self._orders(judged, judged.preference, judged.tie, None)
            return
        for answer in judged.answers:
            preference = preference_of(answer)
            if preference != TIE or self.options.ties == "keep":
                yield from self._orders(judged, preference, preference == TIE, answer)

    def _orders(self, judged: Judged, preference: float, tie: bool, answer: Answer | None) -> Iterator[Row]:
        both = tie and not self.options.soft_labels and self.options.rows != "votes"
        for forward in (True, False) if both else (preference >= TIE,):
            sides = (judged.pair.chosen, judged.pair.rejected)
            row: Row = {"prompt": judged.pair.prompt}
            row["chosen"], row["rejected"] = sides if forward else sides[::-1]
            row |= self._label(judged, preference, forward, both)
            row |= {"p_chosen": turned(judged.preference, forward), "strength": 2 * abs(preference - TIE)}
            row |= self._verdict(judged.verdict, forward)
            if answer is None:
                row["answers"] = [self._answer(each, forward) for each in judged.answers]
            else:
                row |= self._answer(answer, forward)
            own = {self.columns[name]: value for name, value in judged.prompt.columns.items()}
            yield row | self._provenance(judged, forward) | own

    def _label(self, judged: Judged, preference: float, forward: bool, both: bool) -> Row:
        """What the trainers learn from beside the order."""
        if self.options.rows == "votes":
            given = judged.votes(self.options)
            votes = [turned(preference_of(answer), forward) for answer in given]
            return {"votes": votes, "annotators": [self.call(answer.annotator) for answer in given]}
        if self.options.soft_labels:
            return {"preference": turned(preference, forward)}
        return {"margin": 2 * abs(preference - TIE)} if self.options.has_margin else {"weight": 0.5 if both else 1.0}

    def _verdict(self, verdict: Verdict, forward: bool) -> Row:
        votes = verdict.votes if forward else verdict.votes[::-1]
        return {
            **{"agreement": verdict.agreement, "quality": verdict.quality},
            "vote_counts": dict(zip(("chosen", "tie", "rejected"), votes, strict=True)),
            "by_group": [
                {"group": group, "p_chosen": turned(p, forward), "agreement": verdict.agreement_by_group.get(group)}
                for group, p in sorted(verdict.by_group.items())
            ],
        }

    def _answer(self, answer: Answer, forward: bool) -> Row:
        who = self.annotators[answer.annotator]
        left = None if answer.left is None else "chosen" if (answer.left == "first") == forward else "rejected"
        return {
            **{"annotator": self.call(answer.annotator), "group": who.group, "kind": who.kind},
            **{"answer": turned(preference_of(answer), forward), "confidence": answer.confidence},
            **{"reason": answer.reason if self.options.reasons else None, "seconds": answer.seconds, "left": left},
            "answer_quality": self.quality.get(answer.id),
        }

    def _provenance(self, judged: Judged, forward: bool) -> Row:
        task, sides = judged.task, [judged.first, judged.second]
        chosen, rejected = sides if forward else sides[::-1]
        provenance = {
            **{"task": task.id, "gold": task.gold is not None, "strategy": task.strategy, "choice": _json(task.choice)},
            "verdict": judged.verdict.source,
            **{"chosen_settings": _json(chosen.settings), "rejected_settings": _json(rejected.settings)},
            **self.made_by,
        }
        sources = {"chosen_source": chosen.source, "rejected_source": rejected.source}
        return {**sources, "pool": judged.prompt.pool, "domain": judged.domain, "provenance": provenance}


def preference_of(answer: Answer) -> float:
    """The preference of an event that is an answer."""
    assert answer.preference is not None
    return answer.preference


def turned(preference: float, forward: bool) -> float:
    """P(chosen is better), with the first response as chosen (`forward`) or the second."""
    return preference if forward else 1 - preference


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True, ensure_ascii=False, default=str)


def name_columns(prompts: Iterable[Prompt]) -> dict[str, str]:
    """Names of the prompts' columns in the rows; those that mean something else here get `prompt_` before them.

    They get it as often as it takes to be no column of another prompt, either.
    """
    columns = dict.fromkeys(name for prompt in prompts for name in prompt.columns)
    names = {}
    for name in columns:
        new = name
        while new in TAKEN or (new != name and new in columns):
            new = f"prompt_{new}"
        names[name] = new
    return names


def make_dataset(rows: Sequence[Row]) -> Dataset:
    """Rows as a data set with the types of `COLUMNS`, whatever values are missing.

    Texts become conversations where other rows are conversations, and a prompt's column with values of several types
    becomes JSON text; both are logged.
    """
    rows = _one_kind(rows)
    added = [name for name in COLUMNS if name in rows[0]]
    others = [{name: value for name, value in row.items() if name not in COLUMNS} for row in rows]
    try:
        data = to_dataset(others)
    except (TypeError, ValueError, OverflowError):  # Arrow's
        data = to_dataset(_as_text(others))
    types = Features({name: COLUMNS[name] for name in added})
    made = Dataset.from_list([{name: row[name] for name in added} for row in rows], features=types)
    sides = ("prompt", "chosen", "rejected")
    order = [*sides, *added, *(name for name in data.column_names if name not in sides)]
    return concatenate_datasets([data, made], axis=1).select_columns(order)


def _one_kind(rows: Sequence[Row]) -> Sequence[Row]:
    texts = sum(isinstance(row["prompt"], str) for row in rows)
    if texts in (0, len(rows)):
        return rows
    logger.warning("%d of %d rows are text and become conversations, as the others are", texts, len(rows))

    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [row | {name: as_turns(row[name], role) for name, role in roles.items()} for row in rows]


def _as_text(rows: Sequence[Row]) -> Sequence[Row]:
    mixed = []
    for name in dict.fromkeys(chain.from_iterable(rows)):
        if name not in ("prompt", "chosen", "rejected"):
            try:
                Dataset.from_dict({name: [row.get(name) for row in rows]})
            except (TypeError, ValueError, OverflowError):
                mixed.append(name)
    logger.warning("columns of prompts with values of several types become JSON text: %s", ", ".join(mixed))
    return [
        row | {name: json.dumps(row[name], ensure_ascii=False, default=str) for name in mixed if name in row}
        for row in rows
    ]
