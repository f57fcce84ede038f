"""What a report says about its model: the template in which it read the rows, its output, the processor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from hf_align.data.comparisons import Comparisons
from hf_align.errors import UserError
from hf_align.evaluation.benchmark_rows import Benchmark
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import TOKENIZERS_OWN, Scorer, read_scorer
from hf_align.models.sources import is_ensemble
from hf_align.models.text_classifier import TextClassifier
from hf_align.report.remarks import Remark
from hf_align.rewards.vader import vader_judge
from hf_align.version import versions

NO_TEMPLATE = "none"
"""The `chat_template` that leaves plain text as it is even where a benchmark writes it as a conversation."""


def open_model(
    name: str,
    data: Comparisons,
    benchmark: Benchmark | None,
    *,
    output: str | int | None = None,
    chat_template: str | None = None,
    quantization: Quantization = None,
) -> Scorer | RewardEnsemble:
    """Load any reward model, or an ensemble, for these rows, on the GPU if there is one.

    Args:
        name: Folder or Hub id.
        data: The rows; messages need a chat template.
        benchmark: The benchmark that they are of, which may write plain text as conversations.
        output: As in `load_scorer`.
        chat_template: As in `load_scorer`, and "none".
        quantization: As in `load_policy`.
    """
    given = None if chat_template == NO_TEMPLATE else chat_template
    if is_ensemble(name):
        if output is not None or given is not None:
            raise UserError(
                f"{name} is an ensemble, whose members have one output and templates of their own; leave output and "
                "chat_template out."
            )
        return to_gpu(RewardEnsemble.from_pretrained(name, quantization=quantization), quantization)
    messages = any(isinstance(prompt, list) for prompt in data.prompts)
    files = read_scorer(name, output=output, chat_template=given, messages=messages)
    as_conversations = chat_template is None and benchmark is not None and benchmark.conversations and not messages
    if as_conversations and files.tokenizer.chat_template:
        files = replace(files, template=TOKENIZERS_OWN)
    return to_gpu(files.load(quantization=quantization), quantization)


def describe_model(model: Any, judge: Any, data: Comparisons, name: str | None = None) -> dict[str, Any]:
    """Facts about model, judge and machine; `name` is the model's, if it was given by name."""
    facts: dict[str, Any] = {"model": name or name_of(model), "judge": None if judge is None else name_of(judge)}
    if isinstance(model, Scorer):
        facts["template"] = model.template_of(data.prompts)
        facts["output"] = str(model.output) if model.output.count > 1 else None
    if isinstance(model, RewardEnsemble):
        facts["ensemble"] = {"members": len(model.members), "method": model.method}
    return {**facts, "processor": processor_of(model), "versions": versions()}


def name_of(model: Any) -> str | None:
    """What a report calls a model, a judge or a function."""
    if model is None or isinstance(model, str):
        return model
    if model is vader_judge:
        return "VADER"
    name = getattr(model, "name", None) or getattr(model, "name_or_path", None) or getattr(model, "__name__", None)
    return name if isinstance(name, str) and name else type(model).__name__


def processor_of(model: Any) -> str:
    """The GPU or the CPU cores on which a model computes, and the numbers it computes in."""
    inner = model.model if isinstance(model, Scorer) else model
    device = getattr(inner, "device", None)
    on_gpu = isinstance(device, torch.device) and device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{os.cpu_count()} CPU cores"
    dtype = getattr(getattr(inner, "model", None), "dtype", None)
    return f"{name}, {str(dtype).removeprefix('torch.')}" if isinstance(dtype, torch.dtype) else name


def remarks_on_model(model: Any, data: Comparisons, benchmark: Benchmark | None) -> Iterator[Remark]:
    """Remarks on the way in which a model read the rows."""
    if isinstance(model, RewardEnsemble) and model.normalization is not None and model.method != "stacking":
        log_odds = fmean(member.log_odds for member in model.members)
        yield Remark("normalized", _normalized(log_odds))
    if not isinstance(model, Scorer):
        return
    if benchmark is not None and model.template == TOKENIZERS_OWN and isinstance(data.prompts[0], str):
        yield Remark(
            "as_conversations",
            f"The rows are plain text; as {benchmark.name} does, the tokenizer's chat template writes them as "
            "conversations (chat_template 'none' leaves them as they are).",
        )
    elif model.leaves_template_unused(data.prompts):
        yield Remark(
            "template_unused",
            "The rows are plain text, so the tokenizer's chat template isn't used: right for a model trained on plain "
            "text; for one trained on conversations, set chat_template to 'tokenizer'.",
        )
    if model.padded_with_end:
        yield Remark(
            "padded_with_end",
            "The model's files pad with EOS, so transformers' own class would not score the end of a text; here the "
            "last token is scored.",
        )
    if isinstance(model.model, RewardModel) and model.model.normalization is not None:
        yield Remark("normalized", _normalized(model.model.log_odds))
    if isinstance(model.model, TextClassifier) and model.model.cut:
        yield Remark(
            "cut", f"The model reads {model.model.positions} tokens: the beginnings of longer prompts were cut."
        )


def _normalized(log_odds: float) -> str:
    return (
        "The scores are normalised, so calibration as it is takes standard deviations for log odds; with a temperature "
        f"of {1 / log_odds:.3g} they are what training made them."
    )
