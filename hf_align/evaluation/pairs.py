"""Evaluation of a reward model on preference pairs."""

from typing import Any

import numpy as np
from datasets import Dataset

from hf_align.collators import check_preferences, tokenize_preferences
from hf_align.evaluation.scorers import score_encoded
from hf_align.models.reward import RewardModel
from hf_align.progress import Progress, Silent
from hf_align.statistics import bootstrap_interval


def measure_on_pairs(
    model: RewardModel, rows: Dataset, *, resamples: int = 2000, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Share of pairs that a reward model ranks as people did, and the mean difference of its rewards.

    Args:
        model: The reward model.
        rows: Columns `chosen` and `rejected`, and `prompt` unless both begin with it; they get the token ids that
            training gives them, uncut.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.
        progress: Receiver of progress. Default: none.

    Returns:
        "pairs", "accuracy" and "margin" with "accuracy_interval" and "margin_interval".

    Raises:
        UserError: A row can't be used.
    """
    encoded = tokenize_preferences(
        check_preferences(rows, name="data", plain=True), model.tokenizer, name="data", plain=True
    )
    prompts = [ids for ids in encoded["prompt_ids"] for _ in range(2)]
    responses = [ids for pair in encoded["response_ids"] for ids in pair]
    scores = np.asarray(score_encoded(model, prompts, responses, progress or Silent())).reshape(-1, 2)
    margins = scores[:, 0] - scores[:, 1]
    points = (np.sign(margins) + 1) / 2  # a tie counts as half, as by chance
    return {
        "pairs": len(margins),
        "accuracy": float(points.mean()),
        "accuracy_interval": bootstrap_interval(np.mean, points, resamples=resamples, seed=seed),
        "margin": float(margins.mean()),
        "margin_interval": bootstrap_interval(np.mean, margins, resamples=resamples, seed=seed),
    }
