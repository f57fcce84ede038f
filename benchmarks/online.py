"""Online DPO and IPO beside offline DPO, PPO, RLOO and GRPO, at the same number of samples, on the embedded task.

Every method gets the same base, reward model, prompts, number of sampled responses, LoRA, learning rate and number of
steps. Offline DPO samples all its responses from the base before it trains. Then each policy answers the same held-out
prompts with the same random numbers; VADER, which no training saw, and the reward model score the responses.

    python -m benchmarks.online run --base out/base --reward out/reward --out runs --method online-dpo --seed 0
    python -m benchmarks.online table --out runs --save benchmarks/results/online.json

A run goes on from its last checkpoint, and one that is finished isn't done again. The base and the reward model are
those of `hf-align quickstart`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.machine import describe_machine
from benchmarks.study.resampled import rows as as_table
from hf_align.collators import encode_prompts
from hf_align.data.embedded.rows import make_prompts
from hf_align.files import ADAPTER_CONFIG, write_json
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.models.sources import load_tokenizer
from hf_align.rollouts import sample_responses
from hf_align.statistics import bootstrap_interval
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.version import versions

METHODS = ("base", "offline-dpo", "online-dpo", "online-ipo", "ppo", "rloo", "grpo", "online-dpo-sync", "ppo-sync")
MOVES = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 16}
"""Options of the methods "-sync", whose reference follows the policy: after every fourth rollout."""
SAMPLES, RESULT = "samples.json", "result.json"
NUM_SAMPLES, ROLLOUT, PASSES = 4, 32, 2
"""Responses per prompt and per rollout, and passes over each."""
MINI_BATCHES = 2
MAX_NEW_TOKENS, MISSING_EOS_PENALTY = 24, 1.0
RATE = 3e-4
WITHOUT_PAIRS: dict[str, dict[str, Any]] = {
    "ppo": {"value_learning_rate": 1e-3},
    "rloo": {"baseline": "group"},
    "grpo": {"baseline": "group", "group_scaling": True},
}
"""Methods of `PPOTrainer`, with the clipped loss, and what distinguishes them."""
FIGURES = ("judge", "reward", "objective/kl", "response/length", "response/eos_share")


def common(out: Path, seed: int) -> dict[str, Any]:
    """Options that all trainings share."""
    return {
        "output_dir": str(out),
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "row_tokens": 512,
        "per_device_eval_batch_size": 32,
        "logging_steps": PASSES * MINI_BATCHES,
        "save_steps": 4 * PASSES * MINI_BATCHES,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
    }


def sampling(samples: int) -> dict[str, Any]:
    """Options of the trainings that sample, besides."""
    return {
        "total_episodes": samples,
        "num_samples": NUM_SAMPLES,
        "per_device_train_batch_size": ROLLOUT // MINI_BATCHES,
        "num_mini_batches": MINI_BATCHES,
        "max_new_tokens": MAX_NEW_TOKENS,
        "missing_eos_penalty": MISSING_EOS_PENALTY,
    }


def offline_pairs(base: str, reward: str, folder: Path, prompts: Dataset, seed: int) -> Dataset:
    """The best and the worst of the base's responses to each prompt, sampled once and kept; ties are left out."""
    path = folder / SAMPLES
    if not path.exists():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = cast(Any, load_policy(base)).to(device), load_tokenizer(base)
        sampled = sample_responses(
            model,
            tokenizer,
            encode_prompts(tokenizer, prompts["prompt"][:]),
            num_samples=NUM_SAMPLES,
            max_new_tokens=MAX_NEW_TOKENS,
            generator_seed=seed,
            batch_size=ROLLOUT // NUM_SAMPLES,
        )
        texts = [each.text for each in sampled]
        asked = [prompts[each.prompt_index]["prompt"] for each in sampled]
        scores = load_reward_model(reward).to(device).score(asked, texts)
        cut = [MISSING_EOS_PENALTY * (not each.finished) for each in sampled]
        scored = [score - penalty for score, penalty in zip(scores, cut, strict=True)]
        write_json(path, [{"text": text, "score": score} for text, score in zip(texts, scored, strict=True)])
    samples = json.loads(path.read_text())
    pairs = []
    for number, prompt in enumerate(prompts["prompt"]):
        group = sorted(samples[number * NUM_SAMPLES : (number + 1) * NUM_SAMPLES], key=lambda each: each["score"])
        worst, best = group[0]["text"], group[-1]["text"]
        if group[0]["score"] < group[-1]["score"] and best.strip() and worst.strip() and best != worst:
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in (best, worst))
            pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(pairs)


def make_trainer(method: str, base: str, reward: str, out: Path, samples: int, seed: int) -> Any:
    """The trainer of a method other than "base"."""
    prompts = make_prompts("train", samples // NUM_SAMPLES, seed)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    if method == "offline-dpo":
        pairs = offline_pairs(base, reward, out, prompts, seed)
        steps = PASSES * MINI_BATCHES * samples // ROLLOUT  # as many as the others take
        batch = ROLLOUT // NUM_SAMPLES // MINI_BATCHES
        args = DPOConfig(**common(out, seed), max_steps=steps, per_device_train_batch_size=batch)
        return DPOTrainer(base, args=args, train_dataset=pairs, peft_config=lora)
    options = {**common(out, seed), **sampling(samples), **(MOVES if method.endswith("-sync") else {})}
    if (name := method.removesuffix("-sync")) in WITHOUT_PAIRS:
        args = PPOConfig(
            **options,
            num_ppo_epochs=PASSES,
            target_kl=10.0,
            kl_coef=0.22,
            kl_horizon=120.0,  # those of the quickstart
            **WITHOUT_PAIRS[name],
        )
        return PPOTrainer(base, args=args, train_dataset=prompts, peft_config=lora, reward=reward)
    args = OnlineDPOConfig(**options, num_epochs=PASSES, loss_type="ipo" if method == "online-ipo" else "sigmoid")
    return OnlineDPOTrainer(base, args=args, train_dataset=prompts, peft_config=lora, reward=reward)


def measure(policy: str, base: str, reward: str, out: Path, prompts: Dataset, seed: int) -> dict[str, list[float]]:
    """Figures of a response to each held-out prompt, by name."""
    args = OnlineDPOConfig(**{**common(out / "evaluation", seed), **sampling(ROLLOUT)})
    trainer = OnlineDPOTrainer(
        policy,
        base,
        args=args,
        eval_dataset=prompts,
        reward=reward,
        eval_judge="vader",
    )
    trainer.evaluate()
    return {name: trainer.eval_rows[name].tolist() for name in FIGURES}


def train(method: str, base: str, reward: str, folder: Path, samples: int, seed: int) -> bool:
    """Train the policy of a method other than "base" into its folder; False if it goes on from a checkpoint."""
    checkpoint = get_last_checkpoint(str(folder))
    trainer = make_trainer(method, base, reward, folder, samples, seed)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    return checkpoint is None


def run(
    base: str,
    reward: str,
    out: Path,
    method: str,
    seed: int,
    samples: int,
    prompts: int,
    train: Callable[[str, str, str, Path, int, int], bool] = train,
) -> None:
    """Train what isn't trained, and measure it.

    Args:
        base: Folder of the language model.
        reward: Folder of the reward model.
        out: Folder of all runs.
        method: One of `METHODS`.
        seed: Of prompts, training and sampling.
        samples: Responses in all, a multiple of `ROLLOUT`.
        prompts: Held-out prompts.
        train: Trains it, and says whether from its start.

    Raises:
        UserError: There are fewer held-out prompts.
    """
    folder = out / str(seed) / method
    if (folder / RESULT).exists():
        print(f"{folder} is finished.")
        return
    heldout = make_prompts("test", prompts, seed)
    folder.mkdir(parents=True, exist_ok=True)
    policy = base if method == "base" else str(folder)
    seconds: float | None = None  # known only of a training without a stop
    if method != "base" and not (folder / ADAPTER_CONFIG).exists():
        started = time.perf_counter()
        whole = train(method, base, reward, folder, samples, seed)
        seconds = time.perf_counter() - started if whole else None
    figures = measure(policy, base, reward, folder, heldout, seed)
    entry = {"method": method, "seed": seed, "samples": samples, "training_seconds": seconds}
    origin = {"machine": describe_machine(), "versions": versions()}
    write_json(folder / RESULT, {**entry, **origin, "figures": figures})


Runs = dict[tuple[str, int], dict[str, Any]]
"""Finished runs by method and seed."""


def read_runs(out: Path) -> Runs:
    """The finished runs below a folder."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*/*/" + RESULT))]
    return {(each["method"], each["seed"]): each for each in results}


def summarise(by_run: Runs, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """Figures by method, over the seeds that have a finished base: gain over the base, and what else was measured.

    Intervals are over prompts: all seeds' prompts are resampled together, each with its difference from the base.
    """
    summary: dict[str, Any] = {}
    for method in methods:
        seeds = sorted(seed for name, seed in by_run if name == method and ("base", seed) in by_run)
        if not seeds:
            continue
        runs = [by_run[method, seed] for seed in seeds]
        pooled = {name: np.concatenate([each["figures"][name] for each in runs]) for name in FIGURES}
        start = {name: np.concatenate([by_run["base", seed]["figures"][name] for seed in seeds]) for name in FIGURES}
        gains = {name: pooled[name] - start[name] for name in ("judge", "reward")}
        summary[method] = {
            "seeds": seeds,
            "samples": runs[0]["samples"],
            "prompts": len(pooled["judge"]),
            "means": {name: float(values.mean()) for name, values in pooled.items()},
            "gains": {
                name: {
                    "mean": float(gain.mean()),
                    "interval": bootstrap_interval(np.mean, gain),
                    "by_seed": [float(part.mean()) for part in np.split(gain, len(seeds))],
                }
                for name, gain in gains.items()
            },
            "kl_interval": bootstrap_interval(np.mean, pooled["objective/kl"]),
            "training_seconds": [each["training_seconds"] for each in runs],
        }
    return summary


def compare(by_run: Runs, method: str, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """VADER and KL of a method minus those of each other one, over the seeds that both finished.

    Intervals are over prompts, as in `summarise`: both policies answered the same ones.
    """
    differences: dict[str, Any] = {}
    for other in methods:
        seeds = sorted(seed for name, seed in by_run if name == other != method and (method, seed) in by_run)
        if not seeds:
            continue
        differences[other] = {"seeds": seeds}
        for name in ("judge", "objective/kl"):
            ours, theirs = ([by_run[each, seed]["figures"][name] for seed in seeds] for each in (method, other))
            parts = [np.subtract(a, b) for a, b in zip(ours, theirs, strict=True)]
            pooled = np.concatenate(parts)
            differences[other][name] = {
                "mean": float(pooled.mean()),
                "interval": bootstrap_interval(np.mean, pooled),
                "by_seed": [float(part.mean()) for part in parts],
            }
    return differences


def table(summary: dict[str, Any]) -> str:
    """The summary as markdown."""
    head = ["method", "samples", "seeds", "VADER gain", "by seed", "reward gain", "KL", "tokens", "ended"]
    lines: list[list[Any]] = [head]
    for method, each in summary.items():
        judge, reward, means = each["gains"]["judge"], each["gains"]["reward"], each["means"]
        lines.append(
            [
                method,
                0 if method == "base" else each["samples"],
                len(each["seeds"]),
                _with_interval(judge["mean"], judge["interval"], 3),
                ", ".join(f"{gain:.3f}" for gain in judge["by_seed"]),
                _with_interval(reward["mean"], reward["interval"], 2),
                _with_interval(means["objective/kl"], each["kl_interval"], 1),
                f"{means['response/length']:.1f}",
                f"{means['response/eos_share']:.0%}",
            ]
        )
    return as_table(lines)


def difference_table(method: str, differences: dict[str, Any]) -> str:
    """The differences as markdown."""
    lines: list[list[Any]] = [[f"{method} minus", "seeds", "VADER", "by seed", "KL"]]
    for other, each in differences.items():
        judge, kl = each["judge"], each["objective/kl"]
        lines.append(
            [
                other,
                len(each["seeds"]),
                _with_interval(judge["mean"], judge["interval"], 3),
                ", ".join(f"{difference:+.3f}" for difference in judge["by_seed"]),
                _with_interval(kl["mean"], kl["interval"], 1),
            ]
        )
    return as_table(lines)


def _with_interval(mean: float, interval: Sequence[float], digits: int) -> str:
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def shown(by_run: Runs, method: str, methods: Sequence[str], save: Path | None) -> None:
    """Print the tables of finished runs, the second with a method's differences, and write the figures as JSON."""
    summary, differences = summarise(by_run, methods), compare(by_run, method, methods)
    print(table(summary))
    if differences:
        print(f"\n{difference_table(method, differences)}")
    if save is not None:
        origins = {json.dumps([each.get(name) for name in ("machine", "versions")]) for each in by_run.values()}
        content = {"methods": summary, f"{method} minus": differences, "origins": [*map(json.loads, sorted(origins))]}
        write_json(save, content)


def parser_of(program: str, about: str, methods: Sequence[str], samples: int, multiple: int) -> argparse.ArgumentParser:
    """The arguments of a study: `run` for methods and seeds, `table`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=about.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and measure methods")
    one.add_argument("--base", required=True, help="folder of the language model")
    one.add_argument("--reward", required=True, help="folder of the reward model")
    one.add_argument("--method", required=True, nargs="+", choices=methods)
    one.add_argument("--seed", type=int, nargs="+", default=[0])
    one.add_argument("--samples", type=int, default=samples, help=f"rows or responses in all, a multiple of {multiple}")
    one.add_argument("--prompts", type=int, default=200, help="held-out prompts")
    tables = commands.add_parser("table", help="print the table of finished runs")
    tables.add_argument("--save", type=Path, help="also write the figures as JSON")
    for command in (one, tables):
        command.add_argument("--out", type=Path, required=True, help="folder of all runs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run methods, or print the table and write the figures."""
    parser = parser_of("online", str(__doc__), METHODS, 512, ROLLOUT)
    options = parser.parse_args(arguments)
    if options.command == "table":
        shown(read_runs(options.out), "online-dpo", METHODS, options.save)
        return
    if options.samples % ROLLOUT:
        parser.error(f"--samples is {options.samples}; give a multiple of {ROLLOUT}")
    for seed in options.seed:
        for method in options.method:
            run(options.base, options.reward, options.out, method, seed, options.samples, options.prompts)


if __name__ == "__main__":
    main()
