"""What a card says about the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hf_align.model_cards.facts import Labels

LABEL = "Label (P(first response better))"


def read_columns(data: Any, args: Any) -> Any:
    """Training rows with the columns that the trainer reads: of prompts all others are the reward's."""
    prompts_alone = getattr(args, "checkpoint_kind", None) in ("ppo", "online")
    return data.select_columns(["prompt_ids"]) if prompts_alone and "prompt_ids" in columns_of(data) else data


def columns_of(data: Any) -> set[str]:
    """Columns of tokenised training data, as far as they are known."""
    return set(getattr(data, "column_names", None) or ())


def labels_of(args: Any, columns: set[str]) -> Labels:
    """How a reward model's loss took people's judgement; Plackett-Luce takes only an order."""
    if args.label_mode == "draw" and columns & {"votes", "ratings"}:
        return "drawn"
    return "soft" if columns & {"label", "ratings"} and args.loss_type != "plackett_luce" else "hard"


def data_statistics(data: Any, made: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Rows, lengths in tokens, labels, scores and margins of tokenised training data.

    Args:
        data: The rows; None or without columns gives nothing, and a stream its `first` rows.
        made: Of them, number of rows by the kind of augmentation that made them.
    """
    if data is None or not hasattr(data, "column_names"):
        return {}
    first = getattr(data, "first", None)
    facts: dict[str, Any] = {"Rows": len(data) if first is None else f"a stream; figures of its first {len(first):,}"}
    data = data if first is None else first
    if made:
        facts["Of these, made"] = ", ".join(f"{count:,} by {kind.replace('_', ' ')}" for kind, count in made.items())
    for label, lengths in token_lengths(data).items():
        middle, high, most = np.percentile(lengths, [50, 95, 100])
        facts[f"Tokens of a {label}"] = f"median {middle:.0f}, 95% below {high:.0f}, at most {most:.0f}"
    if "ranks" in data.column_names:
        facts |= ranking_statistics(data["ranks"][:])
    for column, label in (("label", LABEL), ("margin", "Margin")):
        if column in data.column_names:
            facts[label] = _summary(data[column][:])
    if "scores" in data.column_names:
        facts["Score"] = _summary([score for row in data["scores"] for score in row])
    return facts


def _summary(values: Any) -> str:
    """Mean and range of numbers; NaN doesn't count."""
    numbers = np.asarray(values, float)
    return f"mean {np.nanmean(numbers):.3g}, from {np.nanmin(numbers):.3g} to {np.nanmax(numbers):.3g}"


def ranking_statistics(ranks: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Responses of ranked prompts, and how many of them share a rank or aren't ranked."""
    counts = [len(row) for row in ranks]
    ranked = [[rank for rank in row if rank >= 0] for row in ranks]
    tied = sum(sum(row.count(rank) > 1 for rank in row) for row in ranked)
    facts: dict[str, Any] = {
        "Responses of a prompt": f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    }
    if tied:
        facts["Responses that share a rank"] = f"{tied:,} of {sum(counts):,}"
    if unranked := sum(counts) - sum(map(len, ranked)):
        facts["Responses below all ranked ones"] = f"{unranked:,} of {sum(counts):,}"
    return facts


def token_lengths(data: Any) -> dict[str, np.ndarray]:
    """Lengths of the prompts and responses of tokenised rows; pairs have a chosen and a rejected response."""
    table, indices = data.data, getattr(data, "_indices", None)
    rows = np.arange(len(table)) if indices is None else indices.column(0).to_numpy()

    def lengths_of(column: Any) -> np.ndarray:
        return pc.list_value_length(column).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]

    lengths_by_part = {}
    if "prompt_ids" in data.column_names:
        lengths_by_part["prompt"] = lengths_of(table.column("prompt_ids"))[rows]
    if "response_ids" in data.column_names:
        column = table.column("response_ids")
        counts, lengths = lengths_of(column), lengths_of(pc.list_flatten(column))  # type: ignore[attr-defined]
        if (counts == 2).all() and "ranks" not in data.column_names:
            lengths_by_part["chosen response"], lengths_by_part["rejected response"] = lengths.reshape(-1, 2)[rows].T
        else:
            of_rows = np.split(lengths, counts.cumsum()[:-1])
            lengths_by_part["response"] = np.concatenate([of_rows[row] for row in rows])
    return lengths_by_part


def dataset_ids(data: Any) -> list[str]:
    """Hub ids that a data set was downloaded from, as far as recorded."""
    sources = getattr(getattr(data, "info", None), "download_checksums", None) or {}
    prefix = "hf://datasets/"
    return sorted({name[len(prefix) :].split("@")[0] for name in sources if name.startswith(prefix) and "@" in name})
