"""What is measured on a named set at the end of a reward model's training: its length penalty, its normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.model_cards.data import dataset_ids
from hf_align.models.length_penalty import length_slope
from hf_align.models.reward import RewardModel

logger = logging.get_logger(__name__)


OPTIONS = ("normalize_on", "length_penalty_on")
"""Options that name a set."""


def check_reference_sets(args: Any, data: Any, name: str) -> None:
    """Refuse a missing set, or several, where an option names this argument.

    Raises:
        UserError: There isn't one set.
    """
    for option in OPTIONS:
        if name == f"{getattr(args, option)}_dataset" and (data is None or isinstance(data, Mapping)):
            raise UserError(f"{option} is {getattr(args, option)!r} and {name} isn't one data set; give one.")


def check_length_set(rows: Dataset, name: str) -> None:
    """Refuse a tokenised set that can't tell a length penalty, whatever the rewards will be.

    Raises:
        UserError: As `length_slope`.
    """
    length_slope([[0.0] * len(row["response_ids"]) for row in rows], rows, name)  # type: ignore[index, arg-type]


def drop_measured(model: RewardModel) -> None:
    """Drop offset and length penalty of a model that is about to be trained, with a warning."""
    if model.reward_config.length_penalty:
        logger.warning(
            f"The model subtracts {model.reward_config.length_penalty:.4g} a token from its rewards, which training "
            "changes: the length penalty is dropped. To fit it again, set length_penalty_on or call penalize_length."
        )
        model.set_length_penalty(0.0)
    if model.normalization is not None:
        logger.warning(
            f"The model's rewards were normalised on {model.normalization.name}, which training undoes: the offset is "
            "dropped. To normalise again, set normalize_on or call model.normalize."
        )
        model.normalization = None


def penalize_length(model: RewardModel, rows: Dataset, name: str) -> None:
    """Fit and set the length penalty on a tokenised set, in all processes by the number of the first."""
    (penalty,) = broadcast_object_list([model.measure_length_penalty(rows, name)])
    model.set_length_penalty(penalty)
    logger.warning(f"At equal judgement the reward changes by {penalty:.4g} a token on {name}: subtracted from now on.")


def normalize(model: RewardModel, rows: Dataset, name: str) -> None:
    """Normalise on a tokenised set, in all processes by the numbers of the first."""
    measured = model.measure_normalization(rows, " ".join([*dataset_ids(rows), name]))
    (measured,) = broadcast_object_list([measured])
    model.set_normalization(measured)
    logger.info(f"Rewards normalised on {measured.name}: mean {measured.mean:.4g}, std {measured.std:.4g} before.")
