"""Kinds of models, determined from their configs without loading weights."""

from __future__ import annotations

import json
import os
from typing import Any

from peft import PeftModel, TaskType
from torch import nn

from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, CONFIG, REWARD_HEAD
from hf_align.models.adapters import adapter_name
from hf_align.models.sources import find_file, is_ensemble
from hf_align.models.wrapper import unwrapped

CLASSIFIER = "ForSequenceClassification"


def is_classifier(model: Any) -> bool | None:
    """Whether this is a sequence-classification model, or an adapter for one, like reward models.

    Args:
        model: A model, a Hub id or a folder. A language model loaded from a classifier's folder counts as one: its head
            was never trained.

    Returns:
        None if unknown: no config, or one without architecture or task.
    """
    if isinstance(model, nn.Module):
        model = unwrapped(model, keep_peft=True)
        if isinstance(model, PeftModel) and model.peft_config[adapter_name(model)].task_type == TaskType.SEQ_CLS:
            return True
        model = unwrapped(model)
        architectures = getattr(getattr(model, "config", None), "architectures", None) or ()
        return any(name.endswith(CLASSIFIER) for name in (type(model).__name__, *architectures))
    path = str(model)
    if (adapter := _read(path, ADAPTER_CONFIG)) is not None:
        task = adapter.get("task_type")
        return None if task is None else task == TaskType.SEQ_CLS.value
    architectures = (_read(path, CONFIG) or {}).get("architectures")
    return any(name.endswith(CLASSIFIER) for name in architectures) if architectures else None


def check_head(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuse a language model, or an adapter for one, as a reward model.

    Raises:
        UserError: It would score with a head that was never trained.
    """
    path = str(path_or_hub_id)
    if is_classifier(path) is False and not find_file(path, REWARD_HEAD):
        raise no_head(path)


def no_head(path: str | os.PathLike[str]) -> UserError:
    """Error to raise for a reward model without a trained head."""
    return UserError(f"{path} has no reward head and would score at random; train it with RewardTrainer.")


def _read(path: str, name: str) -> dict[str, Any] | None:
    file = find_file(path, name)
    try:
        values = None if file is None else json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # broken: loading the model reports it
        return None
    return values if isinstance(values, dict) else None


def check_is_policy(model: Any, name: str, *, ask_hub: bool = False) -> None:
    """Refuse a reward model where a language model is wanted: it would get an untrained LM head.

    Args:
        model: The user's argument: an object, a Hub id, a folder or None.
        name: The argument's name.
        ask_hub: Also check Hub ids now, instead of when they are loaded.

    Raises:
        UserError: It is a sequence-classification model, or an adapter for one.
    """
    if isinstance(model, str) and not ask_hub and not os.path.isdir(model):
        return
    if isinstance(model, str) and is_ensemble(model):
        raise UserError(
            f"{name}: {model} is an ensemble of reward models, which can't write text; give a language model."
        )
    if model is not None and is_classifier(model):
        given = model if isinstance(model, str) else f"a {type(model).__name__}"
        raise UserError(
            f"{name}: {given} is a reward model (sequence classification), which can't write text; give a language "
            "model, such as the one it was trained from."
        )
