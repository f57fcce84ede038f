"""Reward models with LoRA on the layers above cached states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup, set_seed

from benchmarks.study.cache import CachedTexts, documents, model_above
from benchmarks.study.heads import batches, named, reward_config, training_texts
from benchmarks.study.objective import Objective
from benchmarks.study.settings import Settings
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.layout.branches import build_branches
from hf_align.models.adapters import add_lora
from hf_align.models.freezing import adapter_above
from hf_align.models.reward import RewardModel
from hf_align.models.uncertainty import dropout_scores


def new_model(base: str, cache: CachedTexts, settings: Settings) -> RewardModel:
    """The layers above the cache with a new head, and what is trained of them."""
    model = model_above(base, cache.layers, cache.states, reward_config(settings))
    for parameter in model.parameters():
        parameter.requires_grad = settings.trained == "all"
    backbone: Any = model.model
    backbone.get_input_embeddings().requires_grad_(False)
    model.head.requires_grad_(True)
    if settings.trained == "lora":
        lora = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear")
        model.model = add_lora(backbone, adapter_above(lora, backbone, settings.freeze), TaskType.SEQ_CLS)
    return model


def train(base: str, cache: CachedTexts, settings: Settings) -> RewardModel:
    """Train the layers above the cache."""
    set_seed(1000 * settings.seed + settings.member)
    texts = [cache.texts[n] for n in training_texts(cache, settings)]
    objective = Objective(texts, settings)
    model = new_model(base, cache, settings)
    steps = list(batches(texts, settings))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(steps) // 20, len(steps))
    model.train()
    start = time.perf_counter()
    with accelerated(model, Setting.of(model, "train")):
        for number, (begins, index) in enumerate(steps):
            if begins:
                objective.start_epoch()
            rows = [[texts[n] for n in row] for row in index.tolist()]
            branches = build_branches(
                [documents(cache, row, len(row))[0] for row in rows], pad_token_id=0, row_tokens=512
            )
            outputs = named(model(branches), model.reward_config, model.head, (index.shape[0], index.shape[1]))
            loss = objective.loss(index, outputs, number / len(steps))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if number % 50 == 0:
                seconds = time.perf_counter() - start
                print(f"   step {number} of {len(steps)}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def rewards(model: RewardModel, cache: CachedTexts, rows: Sequence[dict[str, Any]]) -> Tensor:
    """Rewards `[n]` of texts of one domain, in the given order."""
    found: list[Tensor] = []
    with accelerated(model, Setting.of(model, "score")):
        for document in documents(cache, rows, 16):
            outputs = model(build_branches([document], pad_token_id=0))
            found.append(model.reward_config.split(outputs).rewards)
    return torch.cat(found)


def dropped_rewards(model: RewardModel, cache: CachedTexts, rows: Sequence[dict[str, Any]]) -> Tensor:
    """Rewards of networks drawn by dropout, `[PASSES, n]`."""
    return dropout_scores(model, lambda: rewards(model, cache, rows))


def save(model: RewardModel, path: Path) -> None:
    """Keep what was trained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: part.detach().contiguous() for name, part in model.named_parameters() if part.requires_grad}, path)


def load(base: str, cache: CachedTexts, settings: Settings, path: Path) -> RewardModel:
    """A trained model, from what was kept of it."""
    model = new_model(base, cache, settings)
    unknown = model.load_state_dict(load_file(path), strict=False).unexpected_keys
    assert not unknown, unknown
    return model.eval()
