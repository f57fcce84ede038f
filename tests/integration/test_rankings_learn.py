"""A reward model trained on real rankings ranks held-out ratings of people better than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from transformers import EvalPrediction

from hf_align.data.embedded.rows import make_rankings
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.trainers.pairs import options


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["bradley_terry", "plackett_luce"])
def test_held_out_ratings_are_ranked_better_than_chance_by_more_than_noise(
    loss_type: str, base_dir: str, tmp_path: Path
):
    ordered: list[np.ndarray] = []

    def order(prediction: EvalPrediction) -> dict[str, float]:
        ordered.append(np.asarray(prediction.predictions))
        return {}

    config = RewardConfig(
        **options(
            tmp_path,
            loss_type=loss_type,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=16,
            max_steps=30,
            optim="adamw_torch",
            learning_rate=1e-3,
            row_tokens=512,
            freeze_layers=20,  # half the time
        )
    )
    trainer = RewardTrainer(
        base_dir,
        args=config,
        train_dataset=make_rankings("train", 120, 4),
        eval_dataset=make_rankings("validation", 80, 4),
        compute_metrics=order,
        peft_config=LoraConfig(r=8, target_modules="all-linear"),
    )
    trainer.train()
    trainer.evaluate()
    first, second = np.triu_indices(4, 1)
    shares = (ordered[0][:, first] > ordered[0][:, second]).mean(1)  # of each row's pairs, by people's mean rating
    error = shares.std(ddof=1) / len(shares) ** 0.5  # rows are independent, their pairs aren't
    assert shares.mean() - 3 * error > 0.5, (shares.mean(), error)
