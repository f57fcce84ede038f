"""Facts of the card of a model that was trained on demonstrations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from hf_align.data.sft.report import REASONS, SFT_REPORT
from hf_align.model_cards.collect import adapter_settings, describe_model, foreign_algorithm, quantization_of, run_facts
from hf_align.model_cards.data import dataset_ids
from hf_align.model_cards.evaluations import logged_evaluation
from hf_align.model_cards.facts import CardFacts, listed
from hf_align.model_cards.names import hub_id
from hf_align.model_cards.options import hyperparameters
from hf_align.version import versions

OPTIONS = ("max_length", "packing", "completion_only_loss", "assistant_only_loss", "loss_type", "merge")
"""TRL's options to show besides the usual ones; some of the others name local files."""


def collect_sft_facts(
    trainer: Any,
    *,
    model_name: str | None = None,
    dataset_tags: str | Iterable[str] | None = None,
    tags: str | Iterable[str] | None = None,
    finetuned_from: str | None = None,
) -> CardFacts:
    """The facts about a model trained on demonstrations.

    If the rows were prepared, and the report lies in `output_dir`, the card names their sources and counts what was
    dropped.

    Args:
        trainer: An `SFTTrainer`.
        model_name: Default: the last part of `hub_model_id`, else of `output_dir`.
        dataset_tags: Hub ids of the training data. Default: the id it was downloaded from, if any.
        tags: More tags.
        finetuned_from: Hub id of the base model. Default: `hub_base_model`, else the model's source.
    """
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    base, adapter = model, None
    if isinstance(model, PeftModel):
        base, adapter = model.get_base_model(), model.peft_config[model.active_adapters[0]]
    ids = listed(dataset_tags) or dataset_ids(trainer.train_dataset)
    sources, data = _preparation(Path(args.output_dir, SFT_REPORT))
    return CardFacts(
        kind="sft",
        algorithm=foreign_algorithm(trainer),
        name=model_name or str(args.hub_model_id or Path(args.output_dir).resolve().name).split("/")[-1],
        base_model=finetuned_from or args.hub_base_model or hub_id(getattr(base, "name_or_path", None)),
        base_description=describe_model(base),
        library="transformers" if adapter is None else "peft",
        adapter=None if adapter is None else adapter_settings(adapter),
        quantization=quantization_of(base),
        conversational=bool(getattr(trainer.processing_class, "chat_template", None)),
        tags=listed(tags),
        dataset_ids=ids,
        datasets=sources,
        data={**data, **_tokens(trainer.train_dataset)},
        hyperparameters=hyperparameters(args, OPTIONS),
        run=run_facts(trainer),
        # Shares of tokens, not of rows, so without the intervals of rows.
        evaluation=[
            replace(each, interval=None) for each in logged_evaluation(trainer, ids) if each.metric != "num_tokens"
        ],
        versions=versions(),
    )


def _tokens(rows: Any) -> dict[str, Any]:
    """Number and lengths of the tokenised rows."""
    if rows is None or "input_ids" not in getattr(rows, "column_names", ()):
        return {}
    middle, high, most = np.percentile([len(ids) for ids in rows["input_ids"]], [50, 95, 100])
    lengths = f"median {middle:.0f}, 95% below {high:.0f}, at most {most:.0f}"
    return {"Rows trained on": len(rows), "Tokens of a row": lengths}


def _preparation(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Sources of prepared rows in words, and what was dropped; empty without a report."""
    if not path.exists():
        return [], {}
    report = json.loads(path.read_text(encoding="utf-8"))
    sources = [f"{name}: {each['kept']:,} of {each['rows']:,} rows" for name, each in report["sources"].items()]
    data: dict[str, Any] = {"Rows before the preparation": report["rows"]}
    data |= {f"Dropped: {REASONS[reason]}": count for reason, count in report["reasons"].items()}
    if quality := report["quality"]:
        data["Quality score"] = f"mean {quality['mean']:.2f}, from {quality['lowest']:.2f} to {quality['highest']:.2f}"
    return sources, data
