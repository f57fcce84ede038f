"""Online DPO on the toy language on one or two processes: `online_script.py KIND MODEL OUT BATCH`; MODEL is not used.

Responses are determined by the prompt, so that two processes train on the same data as one; sampling would differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.rollouts import SamplingRequest
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from tests.distributed.ending import train_and_report
from tests.trainers.pairs import options
from tests.trainers.toy import EOS, WORDS, toy_model, toy_reward, toy_tokenizer

kind, out, batch = sys.argv[1], Path(sys.argv[3]), int(sys.argv[4])


def fixed_responses(model: Any, request: SamplingRequest) -> list[list[int]]:
    """Two responses a prompt, by the prompt; every third prompt's are the same, so that some batches have no pair."""
    responses = []
    for ids in request.prompt_ids:
        first = [1 + sum(ids) % 4, EOS]
        second = first if sum(ids) % 3 == 0 else [1 + (sum(ids) + 1) % 4, 1 + ids[0] % 4, EOS]
        responses += [first, second][: request.num_samples]
    return responses


words = [" ".join(WORDS[1 + (number + place) % 4] for place in range(1 + number % 5)) for number in range(16)]
trainer = OnlineDPOTrainer(
    toy_model(),
    args=OnlineDPOConfig(
        **options(
            out,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=2,
            num_epochs=3,
            max_new_tokens=3,
            max_steps=9,
            learning_rate=0.1,
            loss_type=kind,
            early_stop_kl=0.05,
        )
    ),
    train_dataset=Dataset.from_list([{"prompt": word} for word in words]),
    eval_dataset=Dataset.from_list([{"prompt": word} for word in words[:7]]),
    processing_class=toy_tokenizer(),
    reward=toy_reward(3),
)
trainer.rollout_engine = fixed_responses
train_and_report(trainer, out)
