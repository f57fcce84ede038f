"""Normalising a reward model's rewards at the end of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.model_cards.collect import dataset_ids
from hf_align.models.reward import RewardModel

logger = logging.get_logger(__name__)


def check_reference_set(normalize_on: str | None, data: Any, name: str) -> None:
    """Refuse a missing set, or several, where `normalize_on` names this argument.

    Raises:
        UserError: There isn't one set.
    """
    if name == f"{normalize_on}_dataset" and (data is None or isinstance(data, Mapping)):
        raise UserError(f"normalize_on is {normalize_on!r} and {name} isn't one data set; give one.")


def drop_normalization(model: RewardModel) -> None:
    """Drop the offset of a model that is about to be trained, with a warning."""
    if model.normalization is not None:
        logger.warning(
            f"The model's rewards were normalised on {model.normalization.name}, which training undoes: the offset is "
            "dropped. To normalise again, set normalize_on or call model.normalize."
        )
        model.normalization = None


def normalize(model: RewardModel, rows: Dataset, name: str) -> None:
    """Normalise on a tokenised set, in all processes by the numbers of the first."""
    measured = model.measure_normalization(rows, " ".join([*dataset_ids(rows), name]))
    (measured,) = broadcast_object_list([measured])
    model.set_normalization(measured)
    logger.info(f"Rewards normalised on {measured.name}: mean {measured.mean:.4g}, std {measured.std:.4g} before.")
