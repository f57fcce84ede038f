"""The keys of recipes with their types: those that name models and data, and the fields of a config."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, get_type_hints

from hf_align.algorithms import Need, Rows

SOURCE_KEYS: dict[str, Any] = {
    "model": str,
    "train_dataset": str,
    "eval_dataset": str | None,
    "quantization": str | None,
    "lora": bool | dict | None,
}
"""Keys of every algorithm that name its model and data."""
KEYS_OF_NEEDS: dict[str, dict[str, Any]] = {
    "reference": {"ref_model": str | None},
    "reward": {"reward": str | list, "judge": str | list | None},
    "label": {"reward": str | list | None, "judge": str | list | dict | None, "eval_judge": str | list | None},
}
"""Further such keys, by the need that they meet."""
STREAMING: dict[str, Any] = {"streaming": bool | None, "shuffle_buffer": int | None}
"""Keys of algorithms that train on streams: whether the rows are one, and how many it is shuffled among."""
KEYS_OF_ROWS: dict[Rows, dict[str, Any]] = {
    "pairs": {"augment": dict | None, **STREAMING},
    "comparisons": {"augment": dict | None, **STREAMING},
    "demonstrations": {"train_dataset": str | list[str], "prepare": bool | dict | None},
}
"""Further such keys, or other types of them, by the kind of rows."""
AUGMENT_KEYS: dict[str, Any] = {
    "transitivity": bool | float,
    "interpolation": bool | float,
    "paraphrase": str | None,
    "back_translation": str | None,
}
"""Keys of `augment`: arguments of `hf_align.data.augment`, functions as `FILE.py:FUNCTION` or `MODULE:FUNCTION`."""
PREPARE_KEYS: dict[str, Any] = {
    "clean": bool,
    "quality": str | None,
    "min_quality": float,
    "duplicates": float | None,
    "contamination": Literal["prompt", "row"],
    "balance": str | None,
    "most": int | None,
    "ratio": float | None,
}
"""Keys of `prepare`: arguments of `hf_align.data.prepare_sft`; a function for `quality` is named as above."""


def source_keys(needs: Iterable[Need], rows: Rows | None = None) -> dict[str, Any]:
    """List the keys that name models and data, with their types, for an algorithm with these needs and rows."""
    of_needs = {key: hint for need in needs for key, hint in KEYS_OF_NEEDS.get(need, {}).items()}
    return {**SOURCE_KEYS, **of_needs, **({} if rows is None else KEYS_OF_ROWS.get(rows, {}))}


def field_hints(config_class: type) -> dict[str, Any]:
    """Types of the fields that a config's constructor accepts."""
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init}
