"""Every loss on pairs on the embedded task: held-out pairs ranked right before and after, and what a reference costs.

Each loss gets the same base, LoRA, pairs from human ratings, learning rate, batches and number of steps, for several
seeds; its other options are those of its paper (`SETTINGS`). The same held-out pairs are scored before and after, by
the summed log-probs of both responses, on a CPU or a GPU:

    python -m benchmarks.preference_losses run --base out/base --out runs [--loss simpo ipo] [--seed 0 1 2] [--part 0/4]
    python -m benchmarks.preference_losses table --out runs --save losses.json
    python -m benchmarks.preference_losses memory --base out/base --save memory.json

A run that is finished isn't done again; `--part I/N` does the I-th of N shares, for processes side by side. The base is
that of `hf-align quickstart`. `memory` trains all weights, each way in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig

from benchmarks.machine import commit, describe_machine
from benchmarks.measure import memory
from benchmarks.ranking_cost import reset_peak
from benchmarks.study.resampled import rows as as_table
from hf_align.data.embedded.rows import make_pairs
from hf_align.files import write_json
from hf_align.losses import PREFERENCE_LOSSES
from hf_align.models.loading import load_policy
from hf_align.statistics import bootstrap_interval
from hf_align.trainers.dpo import DPOConfig, DPOTrainer

SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "sigmoid_norm": {"beta": 5.0},
    "hinge": {},
    "ipo": {},
    "robust": {"label_smoothing": 0.1},
    "exo_pair": {"label_smoothing": 1e-3},
    "discopop": {},
    "nca_pair": {},
    "bco_pair": {},
    "sppo_hard": {},
    "apo_zero": {},
    "apo_down": {},
    "simpo": {"beta": 2.0, "simpo_gamma": 1.0},
    "sft": {},
    "sigmoid+sft": {"loss_type": ["sigmoid", "sft"]},
}
"""Options of each loss besides beta 0.1; the last is RPO."""
TRAINING: dict[str, Any] = {
    "learning_rate": 3e-4,
    "lr_scheduler_type": "linear",
    "row_tokens": 512,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
HELD_OUT_SEED = 0
"""Of the held-out pairs, the same for all losses and seeds."""
WAYS: dict[str, dict[str, Any]] = {
    "simpo": {"loss_type": "simpo", "beta": 2.0},
    "dpo, reference scored before": {"precompute_ref_log_probs": True},
    "dpo": {},
}
"""Trainings whose memory is compared; a reference that has scored all rows before isn't kept."""
MEMORY_STEPS, MEMORY_BATCH = 3, 4


def trainer_of(base: str, loss: str, out: Path, rows: int, steps: int, seed: int) -> DPOTrainer:
    """The trainer of one loss."""
    options = {"loss_type": loss, **SETTINGS[loss]}
    args = DPOConfig(str(out), **{**TRAINING, **options}, max_steps=steps, seed=seed)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    model = load_policy(base)  # as an object, which keeps its attention: on a GPU, choosing takes as long as a run
    return DPOTrainer(model, args=args, train_dataset=make_pairs("train", rows, seed), peft_config=lora)


@torch.no_grad()
def logps_of(trainer: DPOTrainer, pairs: Dataset) -> list[list[float]]:
    """Summed log-probs `[n, 2]` of chosen and rejected under the policy."""
    scored = []
    with trainer.accelerator.autocast():
        for batch in trainer.get_eval_dataloader(pairs):
            branches = cast(Any, trainer._prepare_inputs(batch))["branches"]
            tokens = trainer.token_logps(trainer.model.eval(), branches)
            scored += branches.sum_by_branch(tokens).view(-1, 2).tolist()
    return scored


def run(base: str, out: Path, loss: str, seed: int, rows: int, steps: int, held_out: int) -> None:
    """Train with one loss and score the held-out pairs before and after.

    Args:
        base: Folder of the language model.
        out: Folder of all runs.
        loss: One of `SETTINGS`.
        seed: Of pairs and training.
        rows: Pairs to train on.
        steps: Optimizer steps, of 16 pairs each.
        held_out: Held-out pairs.
    """
    path = out / loss / f"{seed}.json"
    if path.exists():
        print(f"{path} is finished.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs, started = make_pairs("test", held_out, HELD_OUT_SEED), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(base, loss, Path(folder), rows, steps, seed)
        before = logps_of(trainer, pairs)
        trainer.train()
        after = logps_of(trainer, pairs)
        batch = trainer.get_eval_dataloader(pairs)
        lengths = [length for part in batch for length in part["branches"].lengths().view(-1, 2).tolist()]
    entry = {"loss": loss, "seed": seed, "rows": rows, "steps": steps, "settings": SETTINGS[loss]}
    figures = {
        "before": before,
        "after": after,
        "lengths": lengths,
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        "seconds": time.perf_counter() - started,
        "machine": describe_machine(),
        "commit": commit(),
    }
    write_json(path, {**entry, **figures})


# ---- table ----


def ranked_right(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the chosen response is ahead, 0 where it is behind, 1/2 for ties."""
    return (np.sign(margins) + 1) / 2


def figures_of(result: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Figures of each held-out pair `[n]` of a run.

    `implicit` is the order by the log-ratios of policy to base; `before` and `after` by the mean log-prob of a
    response's tokens; `chosen` and `rejected` the change of that mean, in nats per token.
    """
    before, after, lengths = (np.array(result[name], dtype=np.float64) for name in ("before", "after", "lengths"))
    ratios, means = after - before, (before / lengths, after / lengths)
    change = means[1] - means[0]
    return {
        "implicit": ranked_right(ratios[:, 0] - ratios[:, 1]),
        "before": ranked_right(means[0][:, 0] - means[0][:, 1]),
        "after": ranked_right(means[1][:, 0] - means[1][:, 1]),
        "chosen": change[:, 0],
        "rejected": change[:, 1],
    }


def summarise(out: Path) -> dict[str, Any]:
    """Figures by loss. Intervals resample the held-out pairs, each with its mean over the seeds."""
    summary: dict[str, Any] = {}
    for loss in SETTINGS:
        paths = sorted(out.glob(f"{loss}/*.json"), key=lambda path: int(path.stem))
        results = [json.loads(path.read_text()) for path in paths]
        if not results:
            continue
        by_seed = [figures_of(each) for each in results]
        pooled = {name: np.mean([each[name] for each in by_seed], 0) for name in by_seed[0]}  # [n]
        values = {**pooled, "gain": pooled["after"] - pooled["before"]}
        names = loss.split("+")
        summary[loss] = {
            "reference": not all(PREFERENCE_LOSSES[name].reference_free for name in names),
            "settings": results[0]["settings"],
            "seeds": [each["seed"] for each in results],
            "rows": results[0]["rows"],
            "steps": results[0]["steps"],
            "pairs": len(pooled["after"]),
            "figures": {
                name: {
                    "mean": float(each.mean()),
                    "interval": bootstrap_interval(np.mean, each),
                    "by_seed": [float(seed[name].mean()) for seed in by_seed] if name in pooled else None,
                }
                for name, each in values.items()
            },
            "loss": {
                "first": statistics.fmean(each["losses"][0] for each in results),
                "last": statistics.fmean(_end(each["losses"]) for each in results),
            },
            "seconds": statistics.fmean(each["seconds"] for each in results),
            "machine": results[0]["machine"],
        }
    return summary


def _end(losses: Sequence[float]) -> float:
    """Mean of the last eighth of a run's losses: single batches differ by more than they fall."""
    return statistics.fmean(losses[-max(1, len(losses) // 8) :])


def table(summary: dict[str, Any]) -> str:
    """The summary as markdown."""
    head = ["loss", "reference", "by implicit reward", "by log-prob, before", "after", "gain"]
    lines: list[list[Any]] = [[*head, "chosen, nats/token", "rejected", "loss, first", "last", "seeds"]]
    for loss, each in summary.items():
        figures = each["figures"]
        shown = [_with_interval(figures[name], 3) for name in ("implicit", "before", "after", "gain")]
        changes = [_with_interval(figures[name], 2) for name in ("chosen", "rejected")]
        ends = [f"{each['loss'][end]:.3g}" for end in ("first", "last")]
        lines.append([loss, "yes" if each["reference"] else "no", *shown, *changes, *ends, len(each["seeds"])])
    return as_table(lines)


def _with_interval(figure: dict[str, Any], digits: int) -> str:
    low, high = figure["interval"]
    return f"{figure['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# ---- memory ----


def measure(base: str, way: str) -> dict[str, Any]:
    """Peak bytes of one full fine-tuning in float32 in this process, from before its first step, without loading."""
    fixed = {"per_device_train_batch_size": MEMORY_BATCH, "row_tokens": None, "learning_rate": 1e-6, "bf16": False}
    options = {**TRAINING, **fixed, **WAYS[way]}
    with tempfile.TemporaryDirectory() as folder:
        args = DPOConfig(folder, **options, max_steps=MEMORY_STEPS)
        trainer = DPOTrainer(base, args=args, train_dataset=make_pairs("train", 64))
        weights = sum(weight.numel() * weight.element_size() for weight in trainer.model.parameters())
        held = reset_peak()
        trainer.train()
    return {"peak": memory()["peak"], "held": held, "weights": weights}


def compare_memory(base: str, repeats: int) -> dict[str, Any]:
    """Peaks of all ways, each in processes of its own."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.preference_losses", "memory", "--base", base, "--way", way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    simpo = statistics.median(each["peak"] for each in found["simpo"])
    ways = {
        way: {
            "peak": (peak := statistics.median(each["peak"] for each in runs)),
            "peaks": [each["peak"] for each in runs],
            "above_simpo": (peak - simpo) / runs[0]["weights"],
        }
        for way, runs in found.items()
    }
    return {
        "command": f"python -m benchmarks.preference_losses memory --base BASE --repeats {repeats}",
        "weights": found["simpo"][0]["weights"],
        "pairs": MEMORY_BATCH,
        "ways": ways,
        "machine": describe_machine(),
        "commit": commit(),
    }


def memory_table(found: dict[str, Any]) -> str:
    """The peaks as markdown."""
    lines: list[list[Any]] = [["full fine-tuning", "peak, GB", "above SimPO's, in copies of the weights"]]
    for way, each in found["ways"].items():
        lines.append([way, f"{each['peak'] / 1e9:.2f}", f"{each['above_simpo']:.2f}"])
    return as_table(lines)


def jobs_of(losses: Sequence[str], seeds: Sequence[int], part: str) -> list[tuple[str, int]]:
    """The runs of one share, seed by seed.

    Raises:
        ValueError: `part` isn't I/N with I below N.
    """
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise ValueError(f"--part is {part!r}; give I/N with I from 0 to N - 1, such as 0/4")
    return [(loss, seed) for seed in seeds for loss in losses][int(number) :: int(count)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run losses, print their table, or compare memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preference_losses", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and score losses")
    one.add_argument("--loss", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    one.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--rows", type=int, default=768, help="pairs to train on")
    one.add_argument("--steps", type=int, default=48, help="of 16 pairs each")
    one.add_argument("--held-out", type=int, default=240, help="held-out pairs")
    one.add_argument("--part", default="0/1", metavar="I/N", help="the I-th of N shares of the runs")
    shown = commands.add_parser("table", help="print the table of finished runs")
    for command in (one, shown):
        command.add_argument("--out", type=Path, required=True, help="folder of all runs")
    peaks = commands.add_parser("memory", help="compare peak memory with and without a reference")
    peaks.add_argument("--repeats", type=int, default=3, help="processes of each way")
    peaks.add_argument("--way", choices=WAYS, help="measure this way alone, in this process")
    for command in (one, peaks):
        command.add_argument("--base", required=True, help="folder of the language model")
    for command in (shown, peaks):
        command.add_argument("--save", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    if options.command == "run":
        try:
            jobs = jobs_of(options.loss, options.seed, options.part)
        except ValueError as error:
            parser.error(str(error))
        for loss, seed in jobs:
            run(options.base, options.out, loss, seed, options.rows, options.steps, options.held_out)
        return
    if options.command == "memory" and options.way:
        print(json.dumps(measure(options.base, options.way)))
        return
    found = summarise(options.out) if options.command == "table" else compare_memory(options.base, options.repeats)
    print(table(found) if options.command == "table" else memory_table(found))
    if options.save is not None:
        write_json(options.save, found)


if __name__ == "__main__":
    main()
