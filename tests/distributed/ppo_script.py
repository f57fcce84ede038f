"""PPO on the toy language on one or two processes: `ppo_script.py KIND MODEL OUT BATCH`; MODEL is not used.

Responses are determined by the prompt, so that two processes train on the same data as one; sampling would differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.rollouts import SamplingRequest
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.distributed.ending import train_and_report
from tests.trainers.pairs import options
from tests.trainers.toy import EOS, WORDS, toy_model, toy_reward, toy_tokenizer

kind, out, batch = sys.argv[1], Path(sys.argv[3]), int(sys.argv[4])


def fixed_responses(model: Any, request: SamplingRequest) -> list[list[int]]:
    """One to three tokens, by the prompt's and the sample's number; an engine."""
    responses = []
    for number, prompt in enumerate(request.prompt_of):
        ids, sample = request.prompt_ids[prompt], number % request.num_samples
        body = [1 + (sum(ids) + sample) % 4, 1 + ids[0] % 4][: len(ids) % 3]
        responses.append([*body, EOS] if len(ids) % 2 == 0 or not body else body)
    return responses


words = [" ".join(WORDS[1 + (number + place) % 4] for place in range(1 + number % 5)) for number in range(16)]
settings = {
    "kl": {"kl_in": "loss"},
    "group": {"baseline": "group", "group_scaling": True, "num_samples": 2, "scale_rewards": "shift"},
    "reward": {
        "scale_rewards": True,
        "whiten_rewards": True,
        "target_kl": 0.01,
        "kl_horizon": 50,
        "early_stop_kl": 5e-3,
    },
}
trainer = PPOTrainer(
    toy_model(),
    args=PPOConfig(
        **options(
            out,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=2,
            num_ppo_epochs=3,
            max_new_tokens=3,
            max_steps=9,
            learning_rate=0.1,
            **settings[kind],
        )
    ),
    train_dataset=Dataset.from_list([{"prompt": word} for word in words]),
    eval_dataset=Dataset.from_list([{"prompt": word} for word in words[:7]]),
    processing_class=toy_tokenizer(),
    reward=toy_reward(3),
)
trainer.rollout_engine = fixed_responses
train_and_report(
    trainer,
    out,
    lambda: {
        "samples": trainer.eval_samples,
        "controller": trainer.kl_controller.state_dict(),
        "scores": {name: trainer.score_statistics.state_dict()[name] for name in ("count", "mean", "squares")},
    },
)
