"""Options of an export, checked."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from hf_align.errors import UserError
from hf_align.feedback.aggregate import AggregationMethod
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.numbers import number_problem

Rows = Literal["tasks", "votes", "answers"]
Choice = Literal["drop", "keep"]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        method: How the answers to a task become one preference: "dawid_skene", "skill_weighted" by the skills that
            it estimates, "weighted" by the annotators' quality, or "majority".
        rows: "tasks": a row a task, the better response as chosen. "votes": the same with every vote in a list, which
            the reward trainer takes as their share or, with `label_mode="draw"`, draws one from in each epoch.
            "answers": a row an answer, each as its annotator gave it.
        soft_labels: Give the probability that chosen is better as `preference` instead of a margin.
        ties: "drop" leaves tasks without a better response out; "keep" makes both orders, each with weight .5, or with
            soft labels or votes one row. A tie is a task of which no response is the likelier one; with soft labels and
            votes, one of which both are as likely.
        min_agreement: Leave out tasks with a smaller share of the commonest vote, unless one was adjudicated.
        min_quality: Leave out votes of a lower quality, as if they hadn't been given; an adjudicator's answer is none.
        limits: What the quality of answers is measured by, as collecting does (`answer_quality`).
        adjudicators: Names of annotators whose answer is the verdict on a task, beside those whom the store knows as
            adjudicators.
        open_tasks: "drop" leaves out tasks that wait for more answers, "keep" takes the answers that are there.
        gold: Whether to export gold questions, with the preference that is known.
        names: Whether annotators stand by name; else each by a digest, the same in every export of the store.
        reasons: Whether to give the reasons, whose free text may name people.
        test_share: Share of prompts that go to the split `test`, by their ids: a prompt stays in its split however the
            store grows.
        seed: Seed of the split.

    Raises:
        UserError: A value is unknown or out of range, or two options contradict each other.

    Example:
        >>> from hf_align.feedback.export import ExportOptions
        >>> ExportOptions(soft_labels=True, ties="keep").rows
        'tasks'
    """

    method: AggregationMethod = "dawid_skene"
    rows: Rows = "tasks"
    soft_labels: bool = False
    ties: Choice = "drop"
    min_agreement: float = 0.0
    min_quality: float = 0.0
    limits: CollectionConfig = field(default_factory=CollectionConfig)
    adjudicators: tuple[str, ...] = ()
    open_tasks: Choice = "drop"
    gold: bool = False
    names: bool = False
    reasons: bool = True
    test_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("method", AggregationMethod), ("rows", Rows), ("ties", Choice), ("open_tasks", Choice)):
            value = getattr(self, name)
            if value not in get_args(kind):
                near = difflib.get_close_matches(str(value), get_args(kind), n=1)
                hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(get_args(kind))}"
                raise UserError(f"{name} is {value!r}; {hint}")
        for name, end in (("min_agreement", "1"), ("min_quality", "1"), ("test_share", "below 1")):
            value = getattr(self, name)
            if number_problem(value) or not 0 <= value <= 1 or (value == 1 and name == "test_share"):
                raise UserError(f"{name} is {value!r}; give a number from 0 to {end}")
        if self.soft_labels and self.rows == "votes":
            raise UserError("soft_labels and rows='votes' are two ways to say the same; leave one out")

    @property
    def has_margin(self) -> bool:
        """Whether rows have a margin: neither another label nor ties, which a margin of 0 would leave unlearned."""
        return not self.soft_labels and self.rows != "votes" and self.ties == "drop"

    @classmethod
    def of(cls, **values: Any) -> ExportOptions:
        """Options by name.

        Raises:
            UserError: There is no option of a name.
        """
        names = [each.name for each in fields(cls)]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"options are {', '.join(names)}"
                raise UserError(f"export has no option {name}; {hint}")
        return cls(**values)
