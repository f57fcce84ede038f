"""DPO, PPO and IPO as one hybrid run beside each of them alone, at the same number of rows, on the embedded task.

A row is a pair that people rated, for DPO and IPO, or a sampled response, for PPO. Each method sees as many rows, as
often, in as many optimizer steps, with the same LoRA and learning rate; the hybrid's stages have a third each, and none
sees another's pairs. Then each policy answers the same held-out prompts with the same random numbers; VADER, which no
training saw, and the reward model score the responses.

    python -m benchmarks.hybrid run --base out/base --reward out/reward --out runs \
        --method base dpo ppo ipo hybrid hybrid-previous --seed 0 1 2
    python -m benchmarks.hybrid table --out runs --save benchmarks/results/hybrid.json

A run goes on where it stood, and one that is finished isn't done again. The base and the reward model are those of
`hf-align quickstart`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.online import (
    MINI_BATCHES,
    NUM_SAMPLES,
    PASSES,
    ROLLOUT,
    common,
    parser_of,
    read_runs,
    run,
    sampling,
    shown,
)
from hf_align.data.embedded.rows import make_pairs, make_prompts
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.hybrid.config import HybridConfig, Stage
from hf_align.trainers.hybrid.state import STATE
from hf_align.trainers.hybrid.trainer import HybridTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer

STAGES = ("dpo", "ppo", "ipo")
REFERENCES = {"hybrid": "start", "hybrid-previous": "previous"}
"""Hybrids by name, with the reference of each stage."""
METHODS = ("base", *STAGES, *REFERENCES)
ROWS_A_STEP = ROLLOUT // MINI_BATCHES
MULTIPLE = ROLLOUT * len(STAGES)
PPO_OPTIONS = {
    "num_ppo_epochs": PASSES,
    "value_learning_rate": 1e-3,
    "target_kl": 10.0,
    "kl_coef": 0.22,
    "kl_horizon": 120.0,  # those of the quickstart
}


def options_of(algorithm: str, folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """Options of an algorithm's training on so many rows, each seen `PASSES` times."""
    if algorithm == "ppo":
        return {**common(folder, seed), **sampling(rows), **PPO_OPTIONS}
    steps = PASSES * rows // ROWS_A_STEP
    return {**common(folder, seed), "max_steps": steps, "per_device_train_batch_size": ROWS_A_STEP}


def rows_of(algorithm: str, rows: int, seed: int, parts: int = 1, place: int = 0) -> Dataset:
    """The rows of an algorithm; of pairs those of one of so many equal parts."""
    if algorithm == "ppo":
        return make_prompts("train", rows // NUM_SAMPLES, seed)
    return make_pairs("train", parts * rows, seed).select(range(place * rows, (place + 1) * rows))


def stages_of(method: str, folder: Path, rows: int, seed: int) -> list[Stage]:
    """The stages of a hybrid, a third of the rows each."""
    part, made = rows // len(STAGES), []
    for algorithm in STAGES:
        options = options_of(algorithm, folder, part, seed)
        args = {name: value for name, value in options.items() if name not in ("output_dir", "seed")}
        data = rows_of(algorithm, part, seed, len(STAGES), place=STAGES.index(algorithm))
        made.append(Stage(algorithm, args, train_dataset=data, reference=REFERENCES[method]))
    return made


def train(method: str, base: str, reward: str, folder: Path, samples: int, seed: int) -> bool:
    """Train the policy of a method other than "base" into its folder, from where it stood; whether from its start."""
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    if method in REFERENCES:
        stages, config = stages_of(method, folder, samples, seed), HybridConfig(str(folder), seed=seed)
        hybrid = HybridTrainer(base, stages, config, reward=reward, peft_config=lora)
        resumes = (folder / STATE).exists()
        hybrid.train(resume_from_checkpoint=resumes or None)
        return not resumes
    options, data = options_of(method, folder, samples, seed), rows_of(method, samples, seed)
    if method == "ppo":
        trainer: Any = PPOTrainer(base, args=PPOConfig(**options), train_dataset=data, peft_config=lora, reward=reward)
    else:
        kind, config_class = (DPOTrainer, DPOConfig) if method == "dpo" else (IPOTrainer, IPOConfig)
        trainer = kind(base, args=config_class(**options), train_dataset=data, peft_config=lora)
    checkpoint = get_last_checkpoint(str(folder))
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    return checkpoint is None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run methods, or print the tables and write the figures."""
    parser = parser_of("hybrid", str(__doc__), METHODS, 768, MULTIPLE)
    options = parser.parse_args(arguments)
    if options.command == "table":
        shown(read_runs(options.out), "hybrid", METHODS, options.save)
        return
    if options.samples % MULTIPLE:
        parser.error(f"--samples is {options.samples}; give a multiple of {MULTIPLE}")
    for seed in options.seed:
        for method in options.method:
            run(options.base, options.reward, options.out, method, seed, options.samples, options.prompts, train)


if __name__ == "__main__":
    main()
