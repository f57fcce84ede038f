"""The models that a run starts from, in short, so that a run that is resumed with others is noticed.

A checkpoint of a whole model has none of the weights that its run started from, of which the reference is a copy; nor
does its data set's fingerprint tell which tokenizer made ids of the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.model_cards.names import hub_id
from hf_align.models.adapters import REFERENCE_ADAPTER
from hf_align.models.fingerprint import Sample, fingerprint_of
from hf_align.models.reference import Reference
from hf_align.models.wrapper import unwrapped

logger = logging.get_logger(__name__)

NOT_COMPARED = (
    *("_name_or_path", "name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype"),
    *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_internal", "output_attentions", "output_hidden_states", "return_dict"),
)
"""Entries of a model's config that no number depends on, or that the trainer sets."""
MODEL, VALUE_MODEL = "model", "value model"
"""Models that a run trains, as they are called in messages."""
PROBE = "The 3 films weren't too long,\n\tI'd say: ça va? 猫が好き。 Да, 100% <b>ок</b> 🙂 {'a': [1, 2.5]}"
"""A text by whose tokens tokenizers are told apart: words, digits, spaces, several scripts, signs."""


def describe_start(model: nn.Module, tokenizer: Any, reference: Reference | None) -> dict[str, Any]:
    """What the weights of a run depend on besides its options and data, as JSON has it.

    Args:
        model: The trainer's model, before anything is trained or loaded into it.
        tokenizer: The trainer's.
        reference: The reference, where there is one.

    Returns:
        `model`: its Hub id, config, quantisation, and a digest of its weights, of an adapter's base none: that one is
        compared by the file beside the adapter. `value model`: the same of a separate one. `tokenizer`: what rows
        depend on. `reference`: a digest of its weights where they are kept by no checkpoint: an explicit model's, or
        those of the policy as given.
    """
    inner: Any = unwrapped(model, keep_peft=True)
    if not isinstance(inner, PreTrainedModel | PeftModel):
        return {}
    start = {MODEL: _of_model(inner)}
    if (critic := getattr(model, "value_backbone", None)) is not None:
        start[VALUE_MODEL] = _of_model(unwrapped(critic, keep_peft=True))
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        start["tokenizer"] = _of_tokenizer(tokenizer)
    if reference is not None:
        start["reference"] = {"weights": _of_reference(reference, inner), "as_given": reference.is_as_given}
    return json.loads(json.dumps(start, default=str))


def _of_model(model: Any) -> dict[str, Any]:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = {name: value for name, value in base.config.to_dict().items() if name not in NOT_COMPARED}
    weights = None if isinstance(model, PeftModel) else _digest_of(model)
    quantization = config.pop("quantization_config", None) or {}
    bits = next((name for name in ("load_in_4bit", "load_in_8bit") if quantization.get(name)), None)
    name = hub_id(base.name_or_path)  # no local folder: checkpoints may be pushed
    return {"name": name, "config": config, "weights": weights, "quantization": bits}


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "number of tokens": len(tokenizer),
        "special tokens": tokenizer.special_tokens_map,
        "chat template": getattr(tokenizer, "chat_template", None),
        "division of text": _short(tokenizer(PROBE)["input_ids"]),
    }


def _of_reference(reference: Reference, policy: Any) -> str | None:
    """A digest of weights that a resumed run must be given again."""
    if reference.module is not None:
        return _digest_of(reference.module.model)
    if reference.is_as_given and reference.adapter == REFERENCE_ADAPTER and reference.moving is None:
        return _digest_of(policy, REFERENCE_ADAPTER)
    return None


def _digest_of(model: Any, adapter: str | None = None) -> str | None:
    """A digest of sampled numbers of a model's weights, or of one adapter's alone; None if there are none to compare.

    Those that quantisation rounds are left out.
    """
    try:
        samples = {} if adapter else dict(fingerprint_of(model).samples)
    except Exception as error:  # an unusual model: no reason not to train it
        logger.warning(f"The weights that the run starts from have no fingerprint: {type(error).__name__}: {error}")
        return None
    if isinstance(model, PeftModel):
        names = (adapter,) if adapter else tuple(model.peft_config)
        samples |= {
            name: Sample.of(weight)
            for name, weight in model.named_parameters()
            if weight.ndim and weight.numel() and not weight.is_meta and set(names) & set(name.split("."))
        }
    taken = {name: sample.to_json() for name, sample in sorted(samples.items()) if not sample.rounded}
    return _short(taken) if taken else None


def _short(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


# ---- compared ----


def start_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Differences between what two runs start from, of what both have.

    Args:
        saved: What `describe_start` said of a checkpoint's run.
        now: The same of the run that resumes.

    Returns:
        Those that would make a mixture of two runs, and those that change nothing that comes later, in words.
    """
    refused: list[str] = []
    told: list[str] = []
    another, model_differs = "", False
    for model in (VALUE_MODEL, MODEL):  # the model last: a reference is compared with it
        if model not in saved or model not in now:
            continue
        if model == VALUE_MODEL and all(each[model] == each[MODEL] for each in (saved, now)):
            continue  # a copy of the policy, which is told of
        before, after = saved[model], now[model]
        words = f"{{name}} {{before}} in the {model}'s config, not {{after}}"
        refused += _of_entries(before["config"], after["config"], words)
        if before["quantization"] != after["quantization"]:
            told.append(f"quantisation {before['quantization']!r}, not {after['quantization']!r}")
        another = f"another {model} at its start ({_names(before, after)})"
        if model_differs := _differ(before["weights"], after["weights"]):
            told.append(f"{another}, of whose weights none are left")
    if "tokenizer" in saved and "tokenizer" in now:
        refused += _of_entries(saved["tokenizer"], now["tokenizer"], "another {name} in the tokenizer")
    if "reference" in saved and "reference" in now:
        before, after = saved["reference"], now["reference"]
        if _differ(before["weights"], after["weights"]):
            if before["as_given"] and after["as_given"] and model_differs:
                refused.append(f"{another}, the reference")
                told.pop()
            else:
                refused.append("another reference, by its weights")
    return refused, told


def _differ(before: str | None, after: str | None) -> bool:
    return None not in (before, after) and before != after


def _names(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if None in (before["name"], after["name"]) or before["name"] == after["name"]:
        return "by its weights"
    return f"{before['name']!r}, not {after['name']!r}"


def _of_entries(before: Mapping[str, Any], after: Mapping[str, Any], words: str) -> list[str]:
    names = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    return [words.format(name=name, before=_shown(before[name]), after=_shown(after[name])) for name in names]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
