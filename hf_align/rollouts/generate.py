"""Sampling responses from exactly the distribution that log-probs refer to, with a chosen engine.

Settings in a Hub model's `generation_config.json` (top_k = 50 or so, a repetition penalty, a minimum length, bad words)
change the distribution but not the log-probs that a policy gradient needs. So none of them is used, except the tokens
that end a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.encoding import PairEncoder, special_tokens
from hf_align.errors import UserError
from hf_align.models.adapters import evaluation_mode
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import unwrapped
from hf_align.rollouts.continuous import continuous_engine
from hf_align.rollouts.engine import Engine, Ids, SamplingRequest, decode
from hf_align.rollouts.static import static_engine

logger = logging.get_logger(__name__)

ENGINES: dict[str, Engine] = {"static": static_engine, "continuous": continuous_engine}
"""The library's engines by name."""


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        prompt_index: Index of its prompt.
        token_ids: The sampled tokens, at least one; includes a sampled end token.
        finished: Whether the policy ended it, with an end token or a stop string; otherwise the length limit cut it.
        text: The tokens' text without special tokens; nothing follows a stop string.

    Example:
        >>> from hf_align import load_policy
        >>> from hf_align.models.sources import load_tokenizer
        >>> from hf_align.rollouts import sample_responses
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> tokenizer = load_tokenizer(name)
        >>> prompt_ids = [tokenizer("The film was")["input_ids"]]
        >>> for response in sample_responses(load_policy(name), tokenizer, prompt_ids, num_samples=2, max_new_tokens=8):
        ...     print(response.prompt_index, len(response.token_ids) <= 8)
        0 True
        0 True
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
    engine: str | Engine = "static",
) -> list[Response]:
    """Sample responses to prompts with a KV cache, without dropout or gradient checkpointing.

    The model is left as it was: modes, generation config and adapters. The same state of torch's random number
    generator gives the same responses.

    Args:
        model: A decoder language model, a PeftModel (its active adapter samples), or one of our wrappers around them;
            not wrapped in DDP.
        tokenizer: Its tokenizer; the pad token may be missing or equal EOS.
        prompt_ids: Token ids of each prompt, passed to the model unchanged.
        num_samples: Responses per prompt.
        max_new_tokens: Length limit of a response, in tokens.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_p: Sample from the most likely tokens with this total probability. Below 1, log-probs under the full
            distribution are no longer those of the sampling.
        stop_strings: Texts that end a response; the token that completes one is the response's last. Special tokens
            aren't part of the text; the name of one makes it an end token.
        generator_seed: Seed of this call's sampling, which then doesn't affect torch's generator. Default: use torch's
            generator.
        batch_size: Responses generated at a time, long prompts first. Default: all.
        engine: "static" (default), "continuous", or a custom `Engine`.

    Returns:
        `len(prompt_ids) * num_samples` responses, prompt by prompt.

    Raises:
        UserError: A value is out of range, a prompt is empty, the model is an encoder-decoder, or the engine can't do
            it.
    """
    _check(prompt_ids, num_samples, max_new_tokens, temperature, top_p, stop_strings, batch_size)
    generate = ENGINES.get(engine) if isinstance(engine, str) else engine
    if not callable(generate):
        raise UserError(f"engine is {engine!r}; use {', '.join(map(repr, ENGINES))} or a function that is an Engine.")
    model, inner = unwrapped(model, keep_peft=True), unwrapped(model)
    if inner.config.is_encoder_decoder:
        raise UserError(
            f"{type(inner).__name__} is an encoder-decoder model; responses are sampled from decoders only."
        )
    check_token_ids(inner, tokenizer, prompt_ids, "prompts")
    strings, named = _split_stops(tokenizer, stop_strings or ())
    ends = sorted({*stop_token_ids(inner, tokenizer), *named})
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    request = SamplingRequest(
        prompt_ids=prompt_ids,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        end_ids=ends,
        stop_strings=strings,
        pad_token_id=cast(int, pad),
        tokenizer=tokenizer,
        batch_size=batch_size,
    )
    devices = [inner.device] if inner.device.type == "cuda" else []
    with evaluation_mode(model), nullcontext() if generator_seed is None else torch.random.fork_rng(devices):
        if generator_seed is not None:
            torch.manual_seed(generator_seed)
        generated = generate(model, request) if prompt_ids else []
    prompt_of = request.prompt_of
    if len(generated) != len(prompt_of) or not all(map(len, generated)):
        raise UserError(
            f"The engine must return {len(prompt_of)} responses of at least one token; it returned {len(generated)} "
            f"with lengths from {min(map(len, generated), default=0)}."
        )
    return [_response(request, prompt, ids) for prompt, ids in zip(prompt_of, generated, strict=True)]


def stop_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All tokens that end a response: the tokenizer's EOS and those of the model's generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, (list, tuple)) else [configured]
    return sorted({int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None})


def warn_of_open_turns(model: Any, tokenizer: PreTrainedTokenizerBase, stop_strings: Sequence[str] = ()) -> None:
    """Warn if the chat template closes turns with a token that doesn't end a response: responses would continue."""
    end = PairEncoder(tokenizer).closing[-1]
    stops = stop_token_ids(unwrapped(model), tokenizer)
    if end not in {*stops, *_split_stops(tokenizer, stop_strings)[1]}:
        name, *names = tokenizer.convert_ids_to_tokens([end, *stops])
        logger.warning(
            f"The chat template ends a turn with {name!r} (token {end}), which is not a stop token of the model "
            f"({', '.join(names)} is): responses would continue past it. Set eos_token_id of the model's "
            "generation_config, or tokenizer.eos_token."
        )


def _split_stops(tokenizer: PreTrainedTokenizerBase, stop_strings: Sequence[str]) -> tuple[list[str], list[int]]:
    """Stop strings that are text, and the ids of those that name special tokens."""
    ids = {name: number for number, name in special_tokens(tokenizer).items()}
    return [text for text in stop_strings if text not in ids], [ids[text] for text in stop_strings if text in ids]


def _response(request: SamplingRequest, prompt: int, ids: Sequence[int]) -> Response:
    """Cut after the first end: the rest is padding, which may be any token."""
    token_ids = list(ids[: request.max_new_tokens])
    length = next((place for place in range(1, len(token_ids) + 1) if request.ends_with_last(token_ids[:place])), None)
    token_ids = token_ids[:length]
    # End tokens aren't always special tokens, but are never part of the text.
    body = token_ids[:-1] if token_ids[-1] in request.end_ids else token_ids
    text = decode(request.tokenizer, body, skip_special_tokens=True)
    string = None if length is None else request.completed_string(token_ids)
    if string is not None and string in text:
        text = text[: text.index(string) + len(string)]
    return Response(prompt, token_ids, length is not None, text)


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
        raise UserError(f"temperature is {temperature}; give a positive number, or 0 for the most likely tokens.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; give a probability above 0, up to 1.")
    if isinstance(stop_strings, str) or not all(stop_strings or ["all"]):
        raise UserError(f"stop_strings is {stop_strings!r}; give a list of non-empty texts.")
    for index, ids in enumerate(prompt_ids):
        if not len(ids):
            raise UserError(f"Prompt {index} is empty: give it at least one token that a response can follow.")
