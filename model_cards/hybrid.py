"""Facts of the card of a policy that several algorithms trained one after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_align.model_cards.facts import CardFacts, listed

SHOWN = (
    *("learning_rate", "beta", "loss_type", "policy_loss", "baseline", "group_scaling", "num_samples"),
    *("target_kl", "kl_coef", "kl_in", "max_new_tokens", "per_device_train_batch_size"),
)
"""Options of a stage that the card's list of stages shows."""


def hybrid_facts(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    of_stages: Sequence[CardFacts],
    *,
    merged: bool,
    base_model: str | None = None,
    language: str | Iterable[str] | None = None,
    license: str | None = None,
    tags: str | Iterable[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    dataset_tags: str | Iterable[str] | None = None,
    dataset: str | Iterable[str] | None = None,
) -> CardFacts:
    """The facts about a hybrid run's final policy.

    Args:
        folder: The run's folder.
        records: The records of its stages (`hybrid.json`).
        of_stages: The facts of those that are done, each from its own trainer.
        merged: Whether the last adapter was merged for the final policy.
        base_model: Hub id of the base model.
        language: ISO code or codes of the texts.
        license: The Hub's identifier.
        tags: More tags.
        model_name: Default: the name of the folder.
        finetuned_from: Hub id of the base model, before `base_model`.
        dataset_tags: Hub ids of the training data. Default: the ids that the stages' data was downloaded from.
        dataset: The training data in words.
    """
    first, last = of_stages[0], of_stages[-1]
    ids = [name for facts in of_stages for name in facts.dataset_ids]
    stages = [_stage(record, facts) for record, facts in zip(records, of_stages, strict=False)]
    return replace(
        last,
        kind="hybrid",
        name=model_name or folder.resolve().name,
        base_model=finetuned_from or base_model or first.base_model,
        base_description=first.base_description,
        library="transformers" if merged else last.library,
        adapter=None if merged else last.adapter,
        merged=merged,
        stages=stages,
        rewards={name: keys for facts in of_stages for name, keys in facts.rewards.items()},
        language=listed(language),
        license=license,
        tags=listed(tags),
        dataset_ids=listed(dataset_tags) or sorted(set(ids)),
        datasets=listed(dataset),
        data={},
        hyperparameters={},
        run={name: value for name, value in last.run.items() if name in ("Hardware", "Peak memory")},
        curves=False,
        algorithm={},
    )


def _stage(record: Mapping[str, Any], facts: CardFacts) -> dict[str, Any]:
    """What the card says about a stage."""
    words = record["hand_over"]
    return {
        "number": record["number"],
        "algorithm": record["algorithm"],
        "steps": record["steps"],
        "of_steps": record["of_steps"],
        "ended": record["ended"],
        "starts_from": words["policy"],
        "trains": words["trains"],
        "reference": words.get("reference", "none"),
        "kl": record.get("kl_at_end"),
        "rows": facts.data.get("Rows"),
        "reward": facts.run.get("Reward") or facts.run.get("Judge"),
        "options": {name: facts.hyperparameters[name] for name in SHOWN if name in facts.hyperparameters},
    }
