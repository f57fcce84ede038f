"""Hidden states of frozen lower layers, cached so that only the layers above them are computed in training.

A cached token's id is its place in the cache, and the embeddings of the model above are the cached states. So
everything that takes token ids (branches, patches, heads) works on it unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.collators.encoding import PairEncoder
from hf_align.data.embedded.ratings import DOMAINS, Domain, Split
from hf_align.data.embedded.rows import heldout_sentences
from hf_align.layout.branches import Document, build_branches
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig

BRANCHES = 16
"""Texts that share one pass over their prompt while states are computed."""
STATES, TEXTS = "states.safetensors", "texts.json"


@dataclass(frozen=True)
class CachedTexts:
    """Texts as ids of cached states.

    Attributes:
        states: `[N, d]` hidden states after the frozen layers.
        prompts: Ids of each domain's prompt.
        texts: Rows with `split`, `domain`, `ids` (of the response's tokens), `ratings` and `mean`.
        layers: Number of frozen layers; 0: the states are embeddings.
    """

    states: Tensor
    prompts: dict[str, list[int]]
    texts: list[dict[str, Any]]
    layers: int = 0

    @classmethod
    def load(cls, folder: Path) -> CachedTexts:
        """Read a cache."""
        stored = json.loads((folder / TEXTS).read_text())
        return cls(load_file(folder / STATES)["states"], stored["prompts"], stored["texts"], stored["layers"])

    def rows(self, split: Split, domain: Domain | None = None) -> list[dict[str, Any]]:
        """The texts of a split, and of one domain."""
        return [row for row in self.texts if row["split"] == split and domain in (None, row["domain"])]


def layers_of(base: str, first: int, stop: int | None, config: RewardModelConfig | None = None) -> RewardModel:
    """A reward model with a new head on some of the base's layers, in float32."""
    model = RewardModel.from_backbone(base, config, dtype=torch.float32)
    base_model: Any = model.model
    decoder = base_model.model
    decoder.layers = decoder.layers[first:stop]
    base_model.config.num_hidden_layers = len(decoder.layers)
    return model


@torch.no_grad()
def write_cache(
    base: str, folder: Path, layers: int, train_texts: dict[Domain, int], validation_texts: int | None = None
) -> None:
    """Compute and store the states of training and validation texts, drawn at random, and of all test texts.

    Args:
        base: Folder of the language model.
        folder: The cache's folder.
        layers: Layers whose states are cached.
        train_texts: Number of training texts per domain.
        validation_texts: At most so many validation texts of each domain; None for all.
    """
    model = layers_of(base, 0, layers).eval()
    decoder: Any = model.model.model
    decoder.norm = nn.Identity()  # it belongs to the layers above
    encoder = PairEncoder(model.tokenizer)
    states: list[Tensor] = []
    prompts: dict[str, list[int]] = {}
    texts: list[dict[str, Any]] = []
    size = 0
    with accelerated(model, Setting.of(model, "score")):
        for domain in DOMAINS:
            rows = []
            for split in ("train", "validation", "test"):
                part: Any = heldout_sentences(split, domain)
                wanted = {"train": train_texts[domain], "validation": validation_texts, "test": None}[split]
                part = part if wanted is None else part.shuffle(seed=0).select(range(min(wanted, len(part))))
                rows += [{**row, "split": split} for row in part]
            pairs = [encoder.prompt_and_response(row["prompt"], row["response"], {}) for row in rows]
            order = sorted(range(len(rows)), key=lambda n: len(pairs[n][1]))
            prompt = pairs[0][0]
            for start in range(0, len(order), BRANCHES):
                chosen = order[start : start + BRANCHES]
                hidden = hidden_states(model, (prompt, [pairs[n][1] for n in chosen]))
                if domain not in prompts:
                    states.append(hidden[: len(prompt)])
                    prompts[domain] = list(range(size, size + len(prompt)))
                    size += len(prompt)
                states.append(hidden[len(prompt) :])
                for n in chosen:
                    row, count = rows[n], len(pairs[n][1])
                    names = ("split", "domain", "ratings", "mean")
                    texts.append({"ids": list(range(size, size + count)), **{name: row[name] for name in names}})
                    size += count
            print(f"{domain}: {len(rows)} texts", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"states": torch.cat(states)}, folder / STATES)
    (folder / TEXTS).write_text(json.dumps({"layers": layers, "prompts": prompts, "texts": texts}))


def hidden_states(model: RewardModel, document: Document) -> Tensor:
    """`[tokens, d]` states that the head gets, of a prompt and then its responses, token by token."""
    branches = build_branches([document], pad_token_id=0)
    return model.forward_to_head(branches, model.head, lambda hidden: hidden[0].clone())


def model_above(base: str, layers: int, states: Tensor, config: RewardModelConfig | None = None) -> RewardModel:
    """A reward model on the layers above the cached ones, whose token ids are places in the cache."""
    model = layers_of(base, layers, None, config)
    cast(Any, model.model).set_input_embeddings(nn.Embedding.from_pretrained(states, freeze=True))
    return model


def documents(cache: CachedTexts, rows: Sequence[dict[str, Any]], branches: int = 8) -> list[Document]:
    """Rows of one domain as documents of up to `branches` responses, in the given order."""
    prompt = cache.prompts[rows[0]["domain"]]
    return [(prompt, [row["ids"] for row in rows[start : start + branches]]) for start in range(0, len(rows), branches)]
