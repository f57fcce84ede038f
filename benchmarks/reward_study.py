"""Reward models on the embedded ratings: what labels, learning rate, rank, layers and pooling do to them.

    python -m benchmarks.reward_study cache --base hf-align-quickstart/base --cache study-cache
    python -m benchmarks.reward_study run --base ... --cache study-cache --labels soft hard draw --seeds 0 1 2 --test
    python -m benchmarks.reward_study table --cache study-cache

Layers above the cached ones are trained, on rows of K texts of one domain: all pairs of a row count. Each finished run
is a line of `results/reward_study/runs.jsonl`; a run whose settings are there is skipped, so the command resumes.
Tune without `--test`: it reads the test split.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, TaskType
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from transformers import get_cosine_schedule_with_warmup, set_seed

from benchmarks.machine import describe_machine
from benchmarks.reward_cache import CachedTexts, documents, model_above, write_cache
from benchmarks.reward_figures import figures, vote_shares
from benchmarks.reward_tables import label_table, tuning_table
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.data.embedded.ratings import DOMAINS, Domain, Split
from hf_align.layout.branches import build_branches
from hf_align.models.adapters import add_lora
from hf_align.models.freezing import adapter_above
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.version import versions

RESULTS = Path(__file__).parent / "results" / "reward_study"
Labels = Literal["soft", "hard", "draw", "margin", "rating"]
Trained = Literal["lora", "all", "head"]
RATING_SCALE = 2.0
"""Rating points per unit of the reward, for labels="rating": about their standard deviation."""


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        labels: Target of a pair: "soft" (share of vote pairs, ties half), "hard" (by the means), "draw" (by one vote
            per text, drawn anew each epoch), "margin" (hard, weighted by the gap of the means, without gaps up to 0.5),
            or no pairs: "rating" (squared error to the mean rating).
        texts: Training texts per domain.
        responses: K, texts per row.
        rows: Rows per step.
        epochs: Passes over the texts.
        learning_rate: Peak, after 5% warm-up; cosine to 0.
        trained: "lora" adapters, "all" weights of the layers above the cache, or the "head" alone.
        rank: Of LoRA on all linear layers, with alpha twice as large.
        pooling: Of the reward model.
        freeze: Layers above the cache, lowest first, without adapter and gradient.
        seed: Of head, adapter, order and drawn votes.
    """

    labels: Labels = "soft"
    texts: tuple[int, int, int] = (1200, 600, 600)
    responses: int = 8
    rows: int = 4
    epochs: int = 2
    learning_rate: float = 5e-4
    trained: Trained = "lora"
    rank: int = 16
    pooling: Literal["last", "mean"] = "last"
    freeze: int = 0
    seed: int = 0


def train(base: str, layers: int, cache: CachedTexts, settings: Settings) -> RewardModel:
    """Train the layers above the cache."""
    set_seed(settings.seed)
    model = model_above(base, layers, cache.states)
    model.reward_config = RewardModelConfig(pooling=settings.pooling)
    for parameter in model.parameters():
        parameter.requires_grad = settings.trained == "all"
    backbone: Any = model.model
    backbone.get_input_embeddings().requires_grad_(False)
    model.head.requires_grad_(True)
    if settings.trained == "lora":
        lora = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear")
        model.model = add_lora(backbone, adapter_above(lora, backbone, settings.freeze), TaskType.SEQ_CLS)
    steps = list(batches(cache, settings))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(steps) // 20, len(steps))
    model.train()
    with accelerated(model, Setting.of(model, "train")):
        for number, (rows, targets) in enumerate(steps):
            branches = build_branches(
                [documents(cache, row, len(row))[0] for row in rows], pad_token_id=0, row_tokens=512
            )
            rewards = model(branches).split([len(row) for row in rows])
            loss = torch.stack(
                [row_loss(reward, target, settings) for reward, target in zip(rewards, targets, strict=True)]
            ).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if number % 25 == 0:
                print(f"   step {number} of {len(steps)}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def batches(cache: CachedTexts, settings: Settings) -> Iterator[tuple[list[list[dict[str, Any]]], list[Tensor]]]:
    """The steps of a run: rows of K texts, and each row's targets."""
    rng = random.Random(settings.seed)
    for _ in range(settings.epochs):
        rows: list[list[dict[str, Any]]] = []
        for domain, count in zip(DOMAINS, settings.texts, strict=True):
            texts = cache.rows("train", domain)
            texts = random.Random(0).sample(texts, count)
            rng.shuffle(texts)
            size = settings.responses
            rows += [texts[start : start + size] for start in range(0, count - size + 1, size)]
        rng.shuffle(rows)
        for start in range(0, len(rows) - settings.rows + 1, settings.rows):
            batch = rows[start : start + settings.rows]
            yield batch, [targets_of(row, settings.labels, rng) for row in batch]


def targets_of(row: Sequence[dict[str, Any]], labels: Labels, rng: random.Random) -> Tensor:
    """`[K, K]` P(i better than j) of a row's texts; for "rating" their `[K]` means, and for "margin" their gaps."""
    means = torch.tensor([text["mean"] for text in row])
    if labels in ("rating", "margin"):
        return means
    if labels == "soft":
        return torch.tensor(vote_shares([text["ratings"] for text in row]), dtype=torch.float32)
    values = means if labels == "hard" else torch.tensor([float(rng.choice(text["ratings"])) for text in row])
    return ((values[:, None] - values[None]).sign() + 1) / 2


def row_loss(rewards: Tensor, targets: Tensor, settings: Settings) -> Tensor:
    """Mean over a row's pairs of the cross-entropy of Bradley-Terry with the target."""
    if settings.labels == "rating":
        return mse_loss(rewards, targets / RATING_SCALE)
    i, j = torch.triu_indices(len(rewards), len(rewards), 1)
    difference = rewards[i] - rewards[j]
    if settings.labels == "margin":
        gaps = targets[i] - targets[j]
        weight = gaps.abs() * (gaps.abs() > 0.5)
        return (weight * binary_cross_entropy_with_logits(difference, (gaps > 0).float(), reduction="none")).mean()
    return binary_cross_entropy_with_logits(difference, targets[i, j])


@torch.no_grad()
def scores_of(model: RewardModel, cache: CachedTexts, split: Split, domain: Domain) -> tuple[NDArray, list[Any]]:
    """Rewards of a held-out domain's texts and their rows, in the cache's order (by length)."""
    rows = cache.rows(split, domain)
    found: list[float] = []
    with accelerated(model, Setting.of(model, "score")):
        for document in documents(cache, rows, 16):
            found += model(build_branches([document], pad_token_id=0)).tolist()
    return np.array(found), rows


def run(arguments: argparse.Namespace) -> None:
    """Do all runs asked for that aren't in the results."""
    cache = CachedTexts.load(arguments.cache)
    layers = json.loads((arguments.cache / "texts.json").read_text())["layers"]
    path = arguments.results / "runs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    for values in product(*(getattr(arguments, name) for name in GRID)):
        settings = Settings(**dict(zip(GRID, values, strict=True)), texts=tuple(arguments.texts))
        key = json.loads(json.dumps({**asdict(settings), "frozen_layers": layers, "test": arguments.test}))
        if any(row["settings"] == key for row in read(path)):
            continue
        print(key, flush=True)
        start = time.perf_counter()
        model = train(arguments.base, layers, cache, settings)
        seconds = time.perf_counter() - start
        entry: dict[str, Any] = {"settings": key, "seconds": round(seconds, 1)}
        for split in ("validation", "test") if arguments.test else ("validation",):
            temperature: dict[str, float] | None = (
                None
                if split == "validation"
                else {domain: entry["validation"][domain]["temperature"] for domain in DOMAINS}
            )
            entry[split] = {}
            for domain in DOMAINS:
                scores, rows = scores_of(model, cache, split, domain)
                given = None if temperature is None else temperature[domain]
                entry[split][domain] = figures(scores, [row["ratings"] for row in rows], temperature=given)
        entry |= {
            "command": "python -m benchmarks.reward_study " + shlex.join(sys.argv[1:]),
            "versions": versions(),
            "machine": describe_machine(),
        }
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        for split in ("validation", "test"):
            for domain, each in entry.get(split, {}).items():
                short = {k: round(v, 3) for k, v in each.items() if isinstance(v, float)}
                print(f"   {split} {domain}: {short}", flush=True)
        print(f"   {seconds:.0f} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


GRID = tuple(name for name in Settings.__dataclass_fields__ if name != "texts")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("cache", "run", "table"):
        command = commands.add_parser(name)
        command.add_argument("--base", required=name != "table", help="folder of the language model (a quickstart's)")
        command.add_argument("--cache", type=Path, required=True, help="folder of the cached states")
        command.add_argument(
            "--texts", type=int, nargs=3, default=Settings.texts, help=f"texts of {', '.join(DOMAINS)}"
        )
    commands.choices["cache"].add_argument("--layers", type=int, default=24, help="frozen lower layers")
    commands.choices["cache"].add_argument("--validation", type=int, help="validation texts per domain; default: all")
    run_command = commands.choices["run"]
    for name in ("run", "table"):
        commands.choices[name].add_argument("--results", type=Path, default=RESULTS)
    run_command.add_argument("--test", action="store_true", help="measure on the test split, too: final rows only")
    defaults = asdict(Settings())
    choices = {"labels": get_args(Labels), "trained": get_args(Trained), "pooling": ("last", "mean")}
    for name in GRID:
        plural = name if name == "labels" else {"seed": "seeds"}.get(name, name)
        run_command.add_argument(
            f"--{plural.replace('_', '-')}",
            dest=name,
            nargs="+",
            type=type(defaults[name]),
            default=[defaults[name]],
            choices=choices.get(name),
        )
    arguments = parser.parse_args()
    if arguments.command == "cache":
        texts: dict[Domain, int] = dict(zip(DOMAINS, arguments.texts, strict=True))
        write_cache(arguments.base, arguments.cache, arguments.layers, texts, arguments.validation)
    elif arguments.command == "run":
        run(arguments)
    else:
        runs = read(arguments.results / "runs.jsonl")
        print(tuning_table(runs), label_table(runs, CachedTexts.load(arguments.cache)), sep="\n\n")


if __name__ == "__main__":
    main()
