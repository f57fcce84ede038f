"""Saved adapter configs that are the same in every process."""

from __future__ import annotations

import json
import os
from pathlib import Path

from peft import PeftConfig

from hf_align.files import ADAPTER_CONFIG, write_text


def sort_names(config: PeftConfig, folder: str | os.PathLike[str]) -> None:
    """Sort what is a set, such as `target_modules`, in the config of an adapter that was just saved.

    peft writes a set in its own order, which differs by process: equal adapters would have different files.

    Args:
        config: The adapter's config.
        folder: Where it was saved.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align.models.adapter_config import sort_names
        >>> config = LoraConfig(target_modules=["v_proj", "q_proj"])
        >>> config.save_pretrained("adapter")
        >>> sort_names(config, "adapter")
    """
    path = Path(folder) / ADAPTER_CONFIG
    names = {name: sorted(value) for name, value in vars(config).items() if isinstance(value, set)}
    content = json.loads(path.read_text(encoding="utf-8")) | names
    write_text(path, json.dumps(content, indent=2, sort_keys=True))
