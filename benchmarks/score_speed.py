"""Speed of scoring a data set: `python -m benchmarks.score_speed MODEL [--pairs N]` prints figures as JSON.

The same responses to the embedded prompts are scored by `score_dataset` and by transformers' text-classification
pipeline with several batch sizes, each including its tokenisation, in turns. MODEL is a merged reward model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import AutoTokenizer, pipeline
from transformers.utils import logging

from benchmarks.results import origin
from hf_align.data.embedded.rows import make_pairs
from hf_align.evaluation import score_dataset
from hf_align.models.placement import to_gpu
from hf_align.models.scorer import load_scorer

PEER_BATCHES = (1, 8, 32)


def pipeline_scores(model: str, texts: list[str]) -> Callable[[int], list[float]]:
    """Scores of texts by transformers' pipeline, by batch size."""
    device = 0 if torch.cuda.is_available() else -1
    classify = pipeline("text-classification", model, device=device, dtype=torch.float32)

    def score(batch_size: int) -> list[float]:
        return [each["score"] for each in classify(texts, batch_size=batch_size, function_to_apply="none")]

    return score


def measure(model: str, pairs: int, runs: int) -> dict[str, Any]:
    """Seconds of each side, and the largest difference of their scores."""
    rows = make_pairs("validation", pairs)
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = [[*row["prompt"], *row[side]] for row in rows.to_list() for side in ("chosen", "rejected")]
    # As in training, a text ends with its end of turn, not with the template's line break behind it.
    texts = [tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n") for messages in turns]
    peer = pipeline_scores(model, texts)
    scorer = to_gpu(load_scorer(model, dtype=torch.float32), None)
    single = [{"messages": messages} for messages in turns]
    sides: dict[str, Callable[[], list[float]]] = {
        "pairs": lambda: [
            row[name]
            for row in score_dataset(scorer, rows).rows.to_list()
            for name in ("score_chosen", "score_rejected")
        ],
        "single rows": lambda: list(score_dataset(scorer, single).rows["score"]),
        **{f"pipeline, batch {size}": lambda size=size: peer(size) for size in PEER_BATCHES},
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, run in sides.items():
            start = time.perf_counter()
            scores[name] = run()
            seconds[name].append(time.perf_counter() - start)
    alone = scores["pipeline, batch 1"]
    return {
        "responses": len(texts),
        "tokens": sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])),
        "responses_per_second": {name: len(texts) / median(took) for name, took in seconds.items()},
        "seconds": seconds,
        "largest_difference": {
            name: max(abs(a - b) for a, b in zip(each, alone, strict=True)) for name, each in scores.items()
        },
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    logging.set_verbosity_error()
    figures = measure(options.model, options.pairs, options.runs)
    figures |= {
        "threads": torch.get_num_threads(),
        **origin(),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
