"""Cards of the data that a constitution makes: README.md with the head that the Hub and `datasets` read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from hf_align.files import write_text
from hf_align.model_cards.datasets import SIZES
from hf_align.model_cards.files import CARD
from hf_align.model_cards.render import render_text

CONFIGS = {"sft.jsonl": "sft", "preferences.jsonl": "preferences", "revision_pairs.jsonl": "revision_pairs"}
"""Name of each file's rows in `load_dataset`."""


def constitution_metadata(files: Mapping[str, int], license: str | None) -> DatasetCardData:
    """The YAML head: a config for each file of rows.

    Args:
        files: Number of rows of each file.
        license: The Hub's identifier; None: not chosen yet.
    """
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": file}]}
        for file, name in CONFIGS.items()
        if file in files
    ]
    rows = sum(count for file, count in files.items() if file in CONFIGS)
    return DatasetCardData(
        license=license or "unknown",
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        size_categories=[next((size for limit, size in SIZES if rows < limit), "1M<n<10M")],
        tags=["hf-align", "preference-learning", "constitutional-ai", "synthetic"],
        configs=configs,
    )


def save_constitution_card(
    folder: str | os.PathLike[str], figures: Mapping[str, Any], files: Mapping[str, int], license: str | None = None
) -> None:
    """Write the card into the folder of the data.

    Args:
        folder: The folder.
        figures: Statistics, as `hf_align.feedback.constitution` makes them.
        files: Number of rows of each file.
        license: The Hub's identifier. Default: not chosen yet.
    """
    head = constitution_metadata(files, license).to_yaml()
    named = {CONFIGS[file]: count for file, count in files.items() if file in CONFIGS}
    text = render_text("constitution.md.j2", head, figures=figures, files=files, configs=named, license=license)
    write_text(Path(folder) / CARD, text)
