"""Policies loaded one after another: each writes a response to every prompt and scores tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_align.collators import encode_prompts
from hf_align.evaluation.continuations import Continuation, sample_continuations
from hf_align.evaluation.described import processor_of
from hf_align.evaluation.human_text import HumanText
from hf_align.evaluation.policy_inputs import Asked
from hf_align.models.adapters import active_adapter, evaluation_mode
from hf_align.models.decoders import positions_of
from hf_align.models.fingerprint import rewrites_base
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.scoring import Encoded, outputs_of
from hf_align.models.sources import adapter_config, load_config, load_tokenizer, plain_folder
from hf_align.models.vocabulary import embedded_tokens
from hf_align.progress import Progress
from hf_align.rollouts import Engine

CHUNK = 128
"""Texts scored per update of the progress bar."""


@dataclass(frozen=True)
class Writing:
    """How policies are loaded and sampled: at temperature 1 from the whole vocabulary.

    Attributes:
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        seed: Seed of the sampling.
        engine: As in `sample_responses`.
        quantization: Quantisation of all models.
    """

    max_new_tokens: int
    batch_size: int
    seed: int
    engine: str | Engine
    quantization: Quantization

    def load(self, name: str) -> Any:
        """A policy, on the GPU if there is one."""
        return to_gpu(load_policy(name, quantization=self.quantization), self.quantization)

    def samples(self, name: str, model: Any, asked: Asked, progress: Progress) -> list[Continuation]:
        """`[N]` a policy's responses."""
        with progress.task(f"sampling {Path(name).name}", len(asked)) as advance:
            return sample_continuations(
                model,
                load_tokenizer(name),
                asked.prompts,
                rows=asked.options,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                seed=self.seed,
                engine=self.engine,
                progress=lambda done: advance(done, ""),
            )


@dataclass
class Written:
    """What one policy wrote, and the log-probs of tokens under it and under the reference.

    Attributes:
        samples: `[N]` responses.
        encoded: `[N]` token ids of prompt and response.
        logps: `[N]` log-probs of each response's tokens under the policy.
        human: For each human text the log-probs of its tokens.
        processor: Where the model computed.
        reference_logps: `logps` under the reference; None for the reference itself, or where there are none.
        without_kl: Why there are none.
    """

    samples: list[Continuation]
    encoded: list[Encoded]
    logps: list[NDArray[np.float64]]
    human: list[NDArray[np.float64]]
    processor: str
    reference_logps: list[NDArray[np.float64]] | None = None
    without_kl: str = ""


def write_all(
    names: Sequence[str], reference: str, asked: Asked, text: HumanText, writing: Writing, progress: Progress
) -> dict[str, Written]:
    """Load every policy once: let it write, and score its own tokens and the human texts; the reference also others'.

    The reference comes last, when all have written. Where the last of the others is an adapter on the reference, its
    backbone without the adapter is the reference, which isn't loaded again. One model is in memory at a time.

    Args:
        names: The policies.
        reference: One of them.
        asked: The prompts.
        text: Human texts.
        writing: How they are loaded and sampled.
        progress: Receiver of progress.

    Returns:
        By name, in the order of `names`.
    """
    written: dict[str, Written] = {}

    def write(name: str, model: Any) -> None:
        written[name] = _write(name, model, asked, text, writing, progress)
        if name != reference:
            return
        for other, its in written.items():
            if other == reference:
                continue
            its.without_kl = _without_kl(other, reference, its.encoded)
            if not its.without_kl:
                its.reference_logps = token_logps(model, its.encoded, load_tokenizer(other), progress, "reference")

    def load_and_write(name: str, *, then_reference: bool) -> bool:
        model = writing.load(name)
        write(name, model)
        if not then_reference or embedded_tokens(model) != load_config(reference).get_text_config().vocab_size:
            return False
        with active_adapter(model, None):
            write(reference, model)
        return True

    others = sorted((name for name in names if name != reference), key=lambda name: is_adapter_on(name, reference))
    for name in others:
        last = name == others[-1] and is_adapter_on(name, reference)
        load_and_write(name, then_reference=last)
    if reference not in written:
        load_and_write(reference, then_reference=False)
    return {name: written[name] for name in names}


def is_adapter_on(name: str, reference: str) -> bool:
    """Whether a policy is an adapter without which its backbone is the reference."""
    config = adapter_config(plain_folder(name))
    if config is None or config.peft_type != "LORA" or cast(Any, config).bias != "none" or rewrites_base(config):
        return False
    base, other = (plain_folder(str(each)) for each in (config.base_model_name_or_path, reference))
    same = Path(base).exists() and Path(other).exists() and Path(base).samefile(other)
    return same or base == other


def _write(name: str, model: Any, asked: Asked, text: HumanText, writing: Writing, progress: Progress) -> Written:
    tokenizer = load_tokenizer(name)
    samples = writing.samples(name, model, asked, progress)
    prompts = encode_prompts(tokenizer, asked.prompts, "data", asked.options)
    encoded: list[Encoded] = [(prompt, sample.token_ids) for prompt, sample in zip(prompts, samples, strict=True)]
    logps = token_logps(model, encoded, tokenizer, progress, Path(name).name)
    human = [(ids[:1], ids[1:]) for ids in text.encoded[name]]
    losses = token_logps(model, human, tokenizer, progress, "human text")
    return Written(samples, encoded, logps, losses, processor_of(model))


def token_logps(
    model: Any, encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, progress: Progress, label: str
) -> list[NDArray[np.float64]]:
    """Log-probs of every response's tokens under a model, from its hidden states in chunks, without dropout.

    Args:
        model: A decoder language model or a PeftModel, whose active adapter computes.
        encoded: Token ids of prompts and responses.
        tokenizer: Names the padding.
        progress: Receiver of progress.
        label: What it is shown.
    """
    wrapper = PolicyModel(model)
    wrapper.shares_prompts = False  # one response to a prompt: plain rows

    def of_responses(branches: Any) -> list[NDArray[np.float64]]:
        parts = wrapper(branches).double().cpu().split(branches.lengths().tolist())
        return [part.numpy() for part in parts]

    logps: list[NDArray[np.float64]] = []
    with evaluation_mode(model), progress.task(f"log-probs: {label}", len(encoded)) as advance:
        for start in range(0, len(encoded), CHUNK):
            part = encoded[start : start + CHUNK]
            logps += outputs_of(wrapper, part, tokenizer.pad_token_id, of_responses)
            advance(len(logps), "")
    return logps


def _without_kl(name: str, reference: str, encoded: Sequence[Encoded]) -> str:
    """Why the reference can't score a policy's tokens; "" if it can."""
    vocabularies = sorted((load_tokenizer(each).get_vocab() for each in (name, reference)), key=len)
    small, large = vocabularies
    if any(large.get(token) != number for token, number in small.items()):
        return "its vocabulary is not the reference's, so their tokens don't compare"
    config = load_config(reference)
    if max(max((*prompt, *response)) for prompt, response in encoded) >= config.get_text_config().vocab_size:
        return "it wrote tokens that the reference doesn't have"
    positions, longest = positions_of(config), max(len(prompt) + len(response) for prompt, response in encoded)
    if positions is not None and longest > positions:
        return f"the reference has {positions} positions, and a prompt with its response takes {longest}"
    return ""
