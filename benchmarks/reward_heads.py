"""Reward heads and frozen layers: `python -m benchmarks.reward_heads MODEL [--rounds N]` prints figures as JSON.

One step (forward, backward, AdamW) on pairs in the branch layout, in float32. The ways take turns, so that a
slow minute of the machine slows all of them; `times` is the median over rounds of a way's time by that of the first
way of its group in the same round.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, TaskType
from torch.nn.functional import logsigmoid

from benchmarks.machine import describe_machine
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import add_lora
from hf_align.models.freezing import adapter_above, decoder_layers, freeze_layers
from hf_align.models.randomness import disable_dropout
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig

HEADS = {
    "linear, last": RewardModelConfig(),
    "linear, mean": RewardModelConfig(pooling="mean"),
    "linear, max": RewardModelConfig(pooling="max"),
    "mlp, last": RewardModelConfig(head="mlp"),
    "attention": RewardModelConfig(head="attention"),
    "linear, last, two tasks, projection": RewardModelConfig(
        tasks={"helpful": "regression", "tone": 5}, projection=True
    ),
}


def pairs(count: int, prompt: int, response: int) -> Branches:
    """Pairs of random tokens."""
    rng = random.Random(0)

    def ids(length: int) -> list[int]:
        return [rng.randrange(10, 1000) for _ in range(length)]

    return build_branches([(ids(prompt), [ids(response), ids(response)]) for _ in range(count)], pad_token_id=0)


def way(model: str, config: RewardModelConfig, *, lora: bool, frozen: int, batch: Branches) -> Callable[[], float]:
    """A function that takes a step and returns its seconds."""
    reward = RewardModel.from_backbone(model, config, dtype=torch.float32)
    if lora:
        settings = adapter_above(LoraConfig(r=16, target_modules="all-linear"), reward.model, frozen)
        reward.model = add_lora(reward.model, settings, TaskType.SEQ_CLS)  # type: ignore[arg-type]
    if frozen:
        freeze_layers(reward.model, frozen)
    disable_dropout(reward)
    reward.train()
    optimizer = torch.optim.AdamW([parameter for parameter in reward.parameters() if parameter.requires_grad], lr=1e-6)

    def step() -> float:
        start = time.perf_counter()
        with accelerated(reward, Setting.of(reward, "train")):
            outputs = reward(batch)
            named = reward.split(outputs)
            first, second = named.rewards.view(-1, 2).unbind(1)
            (outputs.square().mean() - logsigmoid(first - second).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def measure(groups: dict[str, dict[str, Callable[[], Callable[[], float]]]], rounds: int) -> dict[str, Any]:
    """Figures of each group's ways."""
    figures: dict[str, Any] = {}
    for group, makers in groups.items():
        steps = {name: make() for name, make in makers.items()}
        for step in steps.values():
            step()
        table = [{name: step() for name, step in steps.items()} for _ in range(rounds)]
        first = next(iter(steps))
        figures[group] = {
            name: {
                "seconds": statistics.median(row[name] for row in table),
                "least": min(row[name] for row in table),
                "times": statistics.median(row[name] / row[first] for row in table),
            }
            for name in steps
        }
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--groups", nargs="+", default=["frozen, LoRA", "frozen, all weights", "heads, LoRA"])
    options = parser.parse_args()
    batch = pairs(options.pairs, 110, 50)
    half = len(decoder_layers(RewardModel.from_backbone(options.model).model)) // 2

    def maker(config: RewardModelConfig, lora: bool, frozen: int) -> Callable[[], Callable[[], float]]:
        return lambda: way(options.model, copy.deepcopy(config), lora=lora, frozen=frozen, batch=batch)

    layers = {"none": 0, f"{half} layers": half}
    groups = {
        "frozen, LoRA": {name: maker(RewardModelConfig(), True, count) for name, count in layers.items()},
        "frozen, all weights": {name: maker(RewardModelConfig(), False, count) for name, count in layers.items()},
        "heads, LoRA": {name: maker(config, True, 0) for name, config in HEADS.items()},
    }
    figures = measure({name: groups[name] for name in options.groups}, options.rounds)
    command = f"python -m benchmarks.reward_heads MODEL --rounds {options.rounds} --pairs {options.pairs}"
    machine = {**describe_machine(), "threads": torch.get_num_threads()}
    print(json.dumps({"command": command, "machine": machine, "tokens": batch.input_ids.numel(), **figures}, indent=1))


if __name__ == "__main__":
    main()
