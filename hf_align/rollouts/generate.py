"""Sampling responses with transformers' `generate`, from exactly the distribution that log-probs refer to.

What a Hub model's `generation_config.json` brings along (top_k = 50 or so, a repetition penalty, a minimum length, bad
words) changes the distribution without changing the log-probs that a policy gradient needs. So none of it is used,
except the tokens that end a response.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from hf_align.errors import UserError
from hf_align.models.adapters import evaluation_mode
from hf_align.models.branch_model import BranchModel

Ids = list[int]


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        prompt_index: Which prompt it answers.
        token_ids: The sampled tokens, at least one; the end token too, if it was sampled.
        finished: Whether the policy ended it, with an end token or a stop string; else the length limit cut it.
        text: The tokens' text without special tokens; behind a stop string nothing follows.
    """

    prompt_index: int
    token_ids: Ids
    finished: bool
    text: str


@torch.no_grad()
def sample_responses(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    *,
    num_samples: int = 1,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop_strings: Sequence[str] | None = None,
    generator_seed: int | None = None,
    batch_size: int | None = None,
) -> list[Response]:
    """Sample responses to prompts with a KV cache, without dropout or gradient checkpointing.

    The model comes out as it went in: its modes, its generation config, its adapters. The same state of torch's random
    number generator gives the same responses.

    Args:
        model: A causal language model, a PeftModel (its active adapter samples), or one of our wrappers of these;
            not wrapped for DDP.
        tokenizer: Its tokenizer; the pad token may be missing or equal EOS.
        prompt_ids: Token ids of each prompt, as the model shall see them; nothing is added.
        num_samples: Responses to each prompt.
        max_new_tokens: Length limit of a response, in tokens.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        top_p: Sample from the likeliest tokens with this much probability in all. Below 1, log-probs under the whole
            distribution are no longer those of the sampling.
        stop_strings: Texts that end a response; the token that completes one is its last.
        generator_seed: Seed of this call's sampling, which then leaves torch's generator untouched. Default: torch's
            generator as it is.
        batch_size: Responses generated at a time, long prompts first. Default: all.

    Returns:
        `len(prompt_ids) * num_samples` responses, prompt by prompt.

    Raises:
        UserError: A value out of range, or an empty prompt.
    """
    _check(prompt_ids, num_samples, max_new_tokens, temperature, top_p, stop_strings, batch_size)
    inner = _language_model(model)
    ends = stop_token_ids(inner, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = _generation_config(max_new_tokens, temperature, top_p, ends, cast(int, pad))
    rows = [index for index in range(len(prompt_ids)) for _ in range(num_samples)]
    order = list(range(len(rows)))
    if batch_size is not None:
        order.sort(key=lambda row: -len(prompt_ids[rows[row]]))
    results: dict[int, Response] = {}
    with evaluation_mode(model), _plain_generation(inner), _seeded(generator_seed, inner.device):
        for start in range(0, len(order), batch_size or max(len(order), 1)):
            batch = order[start : start + (batch_size or len(order))]
            ids, mask = pad_left([prompt_ids[rows[row]] for row in batch], cast(int, pad), inner.device)
            stop = _StopStrings(tokenizer, stop_strings, ids.shape[1]) if stop_strings else None
            output = inner.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([stop] if stop else []),
            )
            for place, (row, new) in enumerate(zip(batch, output[:, ids.shape[1] :].tolist(), strict=True)):
                found = stop.found.get(place) if stop else None
                results[row] = _response(tokenizer, rows[row], new, ends, found)
    return [results[row] for row in range(len(rows))]


def stop_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a response: the tokenizer's EOS and those of the model's generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, (list, tuple)) else [configured]
    return sorted({int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None})


def pad_left(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Prompts that end in the same column: ids and mask of real tokens, `[B, T]` int64 both."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.as_tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


class _StopStrings(StoppingCriteria):
    """Ends a row with the token that completes a stop string, and remembers where.

    `found` maps a row to the number of its response tokens up to there and the stop string.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str], prompt_width: int):
        self.tokenizer, self.strings, self.prompt_width = tokenizer, list(strings), prompt_width
        # A token is at least a byte of text. The tokens before these give the decoder its context.
        self.window = max(len(string.encode()) for string in strings) + 8
        self.found: dict[int, tuple[int, str]] = {}

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        length = input_ids.shape[1] - self.prompt_width
        tails = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.window) :].tolist()
        for row, tail in enumerate(tails):
            if row not in self.found:
                text = _decode(self.tokenizer, tail, skip_special_tokens=False)
                string = _first_of(self.strings, text)
                if string is not None:
                    self.found[row] = (length, string)
        done = [row in self.found for row in range(len(tails))]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def _first_of(strings: Sequence[str], text: str) -> str | None:
    """The string that ends first in `text`, None if none is in it."""
    ends = {string: text.find(string) + len(string) for string in strings if string in text}
    return min(ends, key=lambda string: ends[string]) if ends else None


def _response(
    tokenizer: PreTrainedTokenizerBase, prompt: int, ids: Ids, ends: Sequence[int], found: tuple[int, str] | None
) -> Response:
    """Cut behind the first end: what follows is filling, which may look like any token."""
    length = next((place + 1 for place, token in enumerate(ids) if token in ends), None)
    string = None
    if found is not None and (length is None or found[0] <= length):
        length, string = found
    kept = ids[:length]
    # End tokens aren't always special to the tokenizer, but never part of the text.
    body = kept[:-1] if kept and kept[-1] in ends else kept
    text = _decode(tokenizer, body, skip_special_tokens=True)
    if string is not None and string in text:
        text = text[: text.index(string) + len(string)]
    return Response(prompt, kept, length is not None, text)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Ids, *, skip_special_tokens: bool) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False))


def _language_model(model: nn.Module) -> Any:
    """What has the right `generate`: the model inside our wrapper and peft's, with the adapter's layers in it."""
    while isinstance(model, BranchModel):
        model = model.model
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _generation_config(max_new_tokens: int, temperature: float, top_p: float, ends: Ids, pad: int) -> GenerationConfig:
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "pad_token_id": pad, "use_cache": True}
    if ends:
        settings["eos_token_id"] = ends
    if temperature == 0:
        return GenerationConfig(do_sample=False, **settings)
    # top_k must be said: transformers' own default is 50.
    return GenerationConfig(do_sample=True, temperature=temperature, top_p=top_p, top_k=0, **settings)


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Take the model's own generation config away: `generate` fills whatever is not set from it."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with nullcontext() if seed is None else torch.random.fork_rng(devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _check(
    prompt_ids: Sequence[Sequence[int]],
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    stop_strings: Sequence[str] | None,
    batch_size: int | None,
) -> None:
    for name, number in (("num_samples", num_samples), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise UserError(f"{name} is {number}; give a number from 1.")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}; give a positive number, or 0 for the likeliest tokens.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; give a probability above 0, up to 1.")
    if isinstance(stop_strings, str) or not all(stop_strings or ["all"]):
        raise UserError(f"stop_strings is {stop_strings!r}; give a list of non-empty texts.")
    for index, ids in enumerate(prompt_ids):
        if not len(ids):
            raise UserError(f"Prompt {index} is empty: give it at least one token that a response can follow.")
