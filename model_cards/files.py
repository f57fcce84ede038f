"""Cards in model folders: README.md, the curves, and the facts to write the card again for the Hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import safe_open

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, CONFIG, ENSEMBLE, REWARD_CONFIG, VALUE_HEAD, write_text
from hf_align.full_disk import DiskFull
from hf_align.model_cards.facts import CardFacts, Evaluation
from hf_align.model_cards.names import hub_id
from hf_align.model_cards.render import render_card
from hf_align.report.curves import draw_curves
from hf_align.report.over_optimization import PICTURE, draw_course
from hf_align.version import versions

logger = logging.getLogger(__name__)

CARD, CURVES, FACTS = "README.md", "training_curves.png", "model_card.json"
CARD_FILES = (CARD, CURVES, PICTURE)
"""Files to push; the facts aren't pushed, since the card contains them all."""


def save_card(
    folder: str | os.PathLike[str],
    facts: CardFacts,
    history: Sequence[Mapping[str, Any]] = (),
    *,
    repo_id: str | None = None,
) -> bool:
    """Write a card, its curves and its facts into a model folder, each whole or not at all.

    A README.md that was written or edited by hand is kept.

    Args:
        folder: The model's folder.
        facts: Facts for the card.
        history: The trainer's log history, for the curves; without it, existing curves are kept.
        repo_id: The model's repository.

    Returns:
        Whether the card was written.
    """
    folder = Path(folder)
    name = facts.algorithm.get("name", facts.kind)
    algorithm = ALGORITHMS[name] if facts.algorithm and name in ALGORITHMS else ALGORITHMS.builtin.get(name)
    drawn = algorithm is not None and draw_curves(history, algorithm.curves, folder / CURVES)
    facts.curves = drawn or (folder / CURVES).exists()
    if facts.over_optimization:
        draw_course(facts.over_optimization, folder / PICTURE)
    if is_own_text(folder):
        logger.warning(f"{folder / CARD} was edited and is kept; delete it to get a new one.")
        return False
    text = render_card(facts, repo_id)
    record = {"readme_sha256": text_digest(text), "facts": facts.to_dict()}
    write_text(folder / FACTS, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, text)
    return True


@contextmanager
def card_told(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Warn in one sentence of what fails in the block, which writes the card of a model that is saved already.

    Args:
        folder: The model's folder.

    Raises:
        DiskFull: The disk is full.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        logger.warning(f"The model in {folder} is saved, but its card can't be written: {cause}")
        logger.debug("the card's error", exc_info=True)


def add_evaluations(folder: str | os.PathLike[str], evaluation: Sequence[Evaluation]) -> bool:
    """Put figures into the card of a saved model, in place of earlier ones of the same metrics and data.

    Args:
        folder: The model's folder.
        evaluation: The figures; nothing checks that they are of this model.

    Returns:
        As `save_card`.
    """
    facts = load_facts(folder) or describe_folder(folder)
    replaced = {(row.metric, row.dataset, row.dataset_id) for row in evaluation}
    kept = [row for row in facts.evaluation if (row.metric, row.dataset, row.dataset_id) not in replaced]
    facts.evaluation = [*kept, *evaluation]
    return save_card(folder, facts)


def load_facts(folder: str | os.PathLike[str]) -> CardFacts | None:
    """The facts that `save_card` wrote into a folder, or None."""
    path = Path(folder) / FACTS
    try:
        return CardFacts.from_dict(json.loads(path.read_text(encoding="utf-8"))["facts"]) if path.exists() else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is broken ({type(error).__name__}: {error}); delete it for a new card.") from error


def is_own_text(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder's README.md was written by hand: neither our unedited card nor peft's, nor unreadable."""
    card, facts = Path(folder) / CARD, Path(folder) / FACTS
    if not card.exists():
        return False
    try:
        text = card.read_text(encoding="utf-8")
        if facts.exists():
            return text_digest(text) != json.loads(facts.read_text(encoding="utf-8"))["readme_sha256"]
    except (ValueError, KeyError, TypeError):  # not UTF-8, or facts that were cut short: who wrote it isn't known
        return True
    return not _is_generated(text)


def _is_generated(text: str) -> bool:
    """Whether peft or Trainer wrote the card, which names a local base model by its path."""
    try:
        data = ModelCard(text, ignore_metadata_errors=True).data
    except ValueError:
        return False
    base = data.get("base_model")
    return "[More Information Needed]" in text or (isinstance(base, str) and hub_id(base) is None)


def describe_folder(folder: str | os.PathLike[str]) -> CardFacts:
    """The facts in a model folder's own files, for a model saved without a card, or an ensemble."""
    folder = Path(folder)
    if (folder / ENSEMBLE).exists():
        return _describe_ensemble(folder)
    adapter, config = _json(folder / ADAPTER_CONFIG), _json(folder / CONFIG)
    reward, tokenizer = _json(folder / REWARD_CONFIG), _json(folder / "tokenizer_config.json")
    architecture = (config.get("architectures") or [""])[0]
    is_reward = bool(reward) or adapter.get("task_type") == "SEQ_CLS" or architecture.endswith("SequenceClassification")
    value_head = folder / VALUE_HEAD
    settings = {name: adapter.get(name) for name in ("r", "lora_alpha", "target_modules") if adapter.get(name)}
    return CardFacts(
        kind="reward" if is_reward else "ppo" if value_head.exists() else "model",
        name=folder.resolve().name,
        base_model=hub_id(adapter.get("base_model_name_or_path")),
        library="peft" if adapter else "transformers",
        adapter=settings or None,
        conversational=(folder / "chat_template.jinja").exists() or bool(tokenizer.get("chat_template")),
        head=reward.get("head", "linear"),
        pooling=reward.get("pooling", "last"),
        outputs=reward.get("tasks", {}),
        projection=reward.get("projection", False),
        length_penalty=reward.get("length_penalty", 0.0),
        normalization=reward.get("normalization"),
        own_class=bool(reward.get("own_class")),
        value_head=_value_model(value_head) if value_head.exists() else None,
    )


def _describe_ensemble(folder: Path) -> CardFacts:
    combination, members = _json(folder / ENSEMBLE), []
    described = {name: describe_folder(folder / name) for name in combination["members"]}
    for name, facts in described.items():
        settings = facts.adapter or {}
        members.append(
            {
                "folder": name,
                "base_model": facts.base_model,
                "kind": "adapter" if facts.library == "peft" else "whole",
                "rank": settings.get("r"),
                "head": facts.head,
                "pooling": facts.pooling,
                "normalization": facts.normalization,
            }
        )
    bases = list(dict.fromkeys(member["base_model"] for member in members))
    return CardFacts(
        kind="ensemble",
        name=folder.resolve().name,
        base_model=bases[0] if len(bases) == 1 else None,
        base_description="different models" if len(bases) > 1 else "",
        library="hf-align",
        conversational=all(facts.conversational for facts in described.values()),
        members=members,
        combination=combination,
        versions=versions(),
    )


def _value_model(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("value_model", "shared")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def text_digest(text: str) -> str:
    """Digest of a card, to see whether it was edited."""
    return hashlib.sha256(text.encode()).hexdigest()
