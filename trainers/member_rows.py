"""The rows of an ensemble's members: checked and tokenised once for all members that read them alike, then drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset
from transformers.utils import logging

from hf_align.collators.checks import as_preferences
from hf_align.data.augment import MADE
from hf_align.data.fingerprint import rows_digest
from hf_align.data.layouts.recognition import trained_rows
from hf_align.errors import UserError
from hf_align.models.sources import load_tokenizer
from hf_align.trainers.bagging import Bag, draw_bag, row_groups
from hf_align.trainers.checks import check_evaluation
from hf_align.trainers.data import sampled
from hf_align.trainers.ensemble_config import Member
from hf_align.trainers.reward_setup import config_of, describe_use, prepare_comparisons

logger = logging.get_logger(__name__)

REFERENCE_ROWS = 1000
"""Training rows that rewards are normalised on where there are no others."""


@dataclass
class EnsembleData:
    """The rows of an ensemble's training.

    Attributes:
        train: Rows to draw from.
        held_out: Rows that no member is trained on, or None.
        reference: Rows to normalise on, or None: the held-out ones, else some of the training rows.
    """

    train: Dataset
    held_out: Dataset | None = None
    reference: Dataset | None = None

    @classmethod
    def read(cls, train_dataset: Any, eval_dataset: Any, reference: Any) -> EnsembleData:
        """Check what the arguments are.

        Raises:
            UserError: One isn't a data set of pairs or rankings.
        """
        given = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "reference": reference}
        rows = {
            name: as_preferences(trained_rows(data, name), name) for name, data in given.items() if data is not None
        }
        if "train_dataset" not in rows:
            raise UserError("train_dataset is missing; give pairs or rankings.")
        return cls(rows["train_dataset"], rows.get("eval_dataset"), rows.get("reference"))

    def digests(self) -> dict[str, str | None]:
        """Digests of the rows for the members' records."""
        given = {"train_dataset": self.train, "eval_dataset": self.held_out, "reference": self.reference}
        return {name: None if rows is None else rows_digest(rows) for name, rows in given.items()}


@dataclass(frozen=True)
class MemberRows:
    """A member's tokenised rows.

    Attributes:
        train: Those it is trained on.
        evaluation: Those it is evaluated on, or None.
        reference: Those its rewards are normalised on.
        reference_name: Their name.
        bag: What was drawn.
    """

    train: Dataset
    evaluation: Dataset | None
    reference: Dataset
    reference_name: str
    bag: Bag


class Preparation:
    """Checks and tokenises the rows once for all members that read them alike."""

    def __init__(self, data: EnsembleData, bootstrap: float | None) -> None:
        self.data, self.bootstrap = data, bootstrap
        self._key: Any = None
        self._rows: dict[str, Dataset | None] = {}
        self._groups: list[list[int]] = []
        sources = data.train["source"] if "source" in data.train.column_names else ()
        # Rows that `augment` made are trained on, and nothing is measured on them.
        self._made = {number for number, source in enumerate(sources) if str(source).startswith(MADE)}

    def rows_of(self, member: Member) -> MemberRows:
        """Draw a member's rows.

        Raises:
            UserError: A row can't be used, or none is left to evaluate on.
        """
        self._tokenize(member)
        train = cast(Dataset, self._rows["train_dataset"])
        bag = draw_bag(self._groups, self.bootstrap, member.args.seed)
        drawn, evaluation = train.select(bag.rows), self._rows["eval_dataset"]
        if member.args.label_mode == "draw":  # a row's votes are drawn by its number
            drawn = drawn.add_column("index", list(range(len(drawn))))  # type: ignore[call-arg]
        if evaluation is None and (left_out := [row for row in bag.left_out if row not in self._made]):
            evaluation = train.select(left_out)
        elif evaluation is None:
            check_evaluation(member.args, None)
        reference, name = self._rows["reference"], "reference"
        if reference is None:
            reference, name = self._rows["eval_dataset"], "eval_dataset"
        if reference is None:
            reference, name = sampled(train, REFERENCE_ROWS), "train_dataset"
        return MemberRows(drawn, evaluation, reference, name, bag)

    def _tokenize(self, member: Member) -> None:
        varied = {key: value for key, value in member.varied.items() if not key.startswith(("lora.", "learning_rate"))}
        if self._key == (member.model, varied):
            return
        config, tokenizer = config_of(member.model, member.args), load_tokenizer(member.model)
        given = {
            "train_dataset": self.data.train,
            "eval_dataset": self.data.held_out,
            "reference": self.data.reference,
        }
        self._rows = {
            name: prepare_comparisons(data, tokenizer, member.args, name, config.tasks) for name, data in given.items()
        }
        prompts = cast(Dataset, self._rows["train_dataset"])["prompt_ids"]
        self._groups = row_groups(map(tuple, prompts))
        for sentence in describe_use(cast(Dataset, self._rows["train_dataset"]), member.args):
            logger.warning(sentence)
        self._key = member.model, varied
