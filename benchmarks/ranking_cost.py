"""Cost of a ranking of K responses: `python -m benchmarks.ranking_cost MODEL|toy|1b` prints figures as JSON.

One training step (forward, Bradley-Terry over all pairs of each prompt's responses, backward, AdamW on LoRA) takes the
same K responses to each prompt in three ways, which give the same loss:

- `ranking`: a prompt once with K branches, as `RewardTrainer` lays out a row of responses,
- `separate`: K rows of prompt + response,
- `pairs`: K(K - 1)/2 pairs, each a prompt with two branches, as one would make of a ranking for a trainer on pairs.

Each way runs in a process of its own, for its peak memory; a process takes `--steps` steps after one to warm up.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.gpu import HEADS, KV_HEADS, SIZES
from benchmarks.machine import commit, describe_machine
from benchmarks.measure import memory
from hf_align.acceleration.registry import Setting, accelerated
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.losses import bradley_terry_loss
from hf_align.models.adapters import add_lora
from hf_align.models.randomness import disable_dropout
from hf_align.models.reward import RewardModel
from hf_align.version import __version__

WAYS = ("ranking", "separate", "pairs")


def documents(prompts: int, k: int, prompt: int, response: int) -> list[Document]:
    """Prompts with K responses, best first, of random tokens."""
    draw = random.Random(0)

    def ids(length: int) -> list[int]:
        return [draw.randrange(10, 1000) for _ in range(length)]

    return [(ids(prompt), [ids(response) for _ in range(k)]) for _ in range(prompts)]


def lay_out(way: str, rows: list[Document]) -> Branches:
    """A batch with the responses of all rows, laid out in one of the ways."""
    if way == "pairs":
        rows = [(prompt, pair) for prompt, responses in rows for pair in combinations(responses, 2)]
    branches = build_branches(rows, pad_token_id=0)
    return branches.as_separate() if way == "separate" else branches


def loss_of(rewards: Tensor, branches: Branches) -> Tensor:
    """Mean of Bradley-Terry over all pairs of each row."""
    by_row = rewards.view(branches.num_documents, -1)  # [B, K]
    first, second = torch.combinations(torch.arange(by_row.shape[1], device=rewards.device)).unbind(1)
    return bradley_terry_loss(by_row[:, first].flatten(), by_row[:, second].flatten()).mean()


def reward_model(name: str) -> RewardModel:
    """A reward model with LoRA, of a folder's or random weights; in bfloat16 on a GPU, otherwise float32."""
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    torch.manual_seed(0)
    if name in SIZES:
        words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
        heads = {"num_attention_heads": HEADS[name], "num_key_value_heads": KV_HEADS[name]}
        shape: dict[str, Any] = {**SIZES[name], **heads, "num_labels": 1}
        config = LlamaConfig(**shape, pad_token_id=0, eos_token_id=1)
        backbone: Any = LlamaForSequenceClassification(config)
        model = RewardModel(backbone.to(dtype), tokenizer)
    else:
        model = RewardModel.from_backbone(name, dtype=dtype)
    settings = LoraConfig(r=16, target_modules="all-linear")
    model.model = add_lora(model.model, settings, TaskType.SEQ_CLS)  # type: ignore[arg-type]
    disable_dropout(model)
    return model.to("cuda" if gpu else "cpu").train()


def measure(model: RewardModel, batch: Branches, steps: int) -> dict[str, Any]:
    """Median seconds of a step, bytes above those held before, and the first loss."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-6)
    batch, losses, seconds = batch.to(next(model.parameters()).device), [], []
    held = reset_peak()
    for _ in range(1 + steps):
        start = time.perf_counter()
        with accelerated(model, Setting.of(model, "train")):
            loss = loss_of(model(batch), batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return {
        "tokens": batch.input_ids.numel(),
        "loss": losses[0],
        "seconds": statistics.median(seconds[1:]),
        "bytes": memory()["peak"] - held,
    }


def reset_peak() -> int:
    """Forget the peak of loading; return the bytes held."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    return memory()["now"]


def main() -> None:
    """Print the figures of all ways, or of one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a language model's folder, or a size of random weights: " + ", ".join(SIZES))
    parser.add_argument("--k", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs=2, default=[110, 50], metavar=("PROMPT", "RESPONSE"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure this way alone, in this process")
    options = parser.parse_args()
    if options.way:
        batch = lay_out(options.way, documents(options.prompts, options.k[0], *options.tokens))
        print(json.dumps(measure(reward_model(options.model), batch, options.steps)))
        return
    fixed = ["--prompts", options.prompts, "--tokens", *options.tokens, "--steps", options.steps]
    figures: dict[str, Any] = {}
    for k in options.k:
        of_k: dict[str, Any] = {}
        for way in WAYS:
            arguments = [options.model, "--k", k, "--way", way, *fixed]
            command = [sys.executable, "-m", "benchmarks.ranking_cost", *map(str, arguments)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            of_k[way] = json.loads(done.stdout.splitlines()[-1])
        for figure in of_k.values():
            figure["times"] = figure["seconds"] / of_k["ranking"]["seconds"]
            figure["times_bytes"] = figure["bytes"] / of_k["ranking"]["bytes"]
        figures[f"K = {k}"] = of_k
    shown = " ".join(map(str, ["MODEL" if Path(options.model).exists() else options.model, "--k", *options.k, *fixed]))
    result = {
        "command": f"python -m benchmarks.ranking_cost {shown}",
        "machine": {**describe_machine(), "threads": torch.get_num_threads()},
        "versions": {"hf_align": __version__, "torch": torch.__version__, "commit": commit()},
        **figures,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
