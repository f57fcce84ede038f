"""The data: embedded human-written sentences, joined to a workload's number of words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_align.data import load_ratings
from hf_align.data.embedded.rows import make_prompts


@dataclass(frozen=True)
class Workload:
    """Lengths of preference rows, in words: one word of this data is about 1.3 tokens of SmolLM2."""

    prompt_words: int
    response_words: int


WORKLOADS = {
    "chat": Workload(110, 50),
    "summary": Workload(220, 28),
    "long": Workload(110, 160),
}


def preference_rows(workload: Workload, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Text rows of exactly the workload's lengths: prompt, chosen and rejected are runs of whole sentences, cut.

    Args:
        workload: The lengths.
        count: Number of rows; sentences are reused only after all have been used.
        seed: Seed of the order of the sentences.
    """
    words = _words(seed)

    def text(length: int) -> str:
        return " ".join(next(words) for _ in range(length))

    size, response = workload.prompt_words, workload.response_words
    return [
        {"prompt": text(size), "chosen": f" {text(response)}", "rejected": f" {text(response)}"} for _ in range(count)
    ]


def prompt_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` distinct prompts, each a chat message that asks for a sentence and gives its opening words."""
    return [{"prompt": row["prompt"]} for row in make_prompts("test", count, seed)]  # type: ignore[index]


def long_prompt_rows(words: int, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` chat prompts of `words` words each."""
    stream = _words(seed)
    texts = [" ".join(next(stream) for _ in range(words)) for _ in range(count)]
    return [{"prompt": [{"role": "user", "content": text}]} for text in texts]


def _words(seed: int) -> Iterator[str]:
    sentences = load_ratings("train")["text"][:]
    rng = random.Random(f"benchmarks/{seed}")
    while True:
        rng.shuffle(sentences)
        for sentence in sentences:
            yield from sentence.split()
