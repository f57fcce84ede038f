"""Evaluation of a reward model on preference pairs."""

from typing import Any, cast

import numpy as np
from datasets import Dataset

from hf_align.collators import check_preferences
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import Side, read_pair
from hf_align.evaluation.scorers import score_responses
from hf_align.models.reward import RewardModel
from hf_align.progress import Progress, Silent
from hf_align.statistics import bootstrap_interval


def measure_on_pairs(
    model: RewardModel, rows: Dataset, *, resamples: int = 2000, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Share of pairs that a reward model ranks as people did, and the mean difference of its rewards.

    Args:
        model: The reward model.
        rows: Columns `chosen` and `rejected`, and `prompt` unless both begin with it.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.
        progress: Receiver of progress. Default: none.

    Returns:
        "pairs", "accuracy" and "margin" with "accuracy_interval" and "margin_interval".

    Raises:
        UserError: A row can't be used.
    """
    check_preferences(rows, name="data")
    encoder = PairEncoder(model.tokenizer)
    prompts: list[Side] = []
    responses: list[Side] = []
    for row in rows.with_format(None):
        pair = read_pair(cast(dict[str, Any], row))
        prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
        if prompt is None:  # the common beginning of chosen and rejected
            prompt, whole_chosen, whole_rejected = encoder.texts(pair, cast(dict[str, Any], row))
            chosen, rejected = whole_chosen[len(prompt) :], whole_rejected[len(prompt) :]
        prompts += [prompt, prompt]
        responses += [chosen, rejected]
    scores = np.asarray(score_responses(model, prompts, responses, progress or Silent())).reshape(-1, 2)
    margins = scores[:, 0] - scores[:, 1]
    points = (np.sign(margins) + 1) / 2  # a tie counts as half, as by chance
    return {
        "pairs": len(margins),
        "accuracy": float(points.mean()),
        "accuracy_interval": bootstrap_interval(np.mean, points, resamples=resamples, seed=seed),
        "margin": float(margins.mean()),
        "margin_interval": bootstrap_interval(np.mean, margins, resamples=resamples, seed=seed),
    }
