"""A policy that answers prompts outside of training, and what its samples are kept under."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.collators import encode_prompts
from hf_align.collators.rows import Side
from hf_align.errors import UserError
from hf_align.models.decoders import positions_of
from hf_align.models.digest import weights_digest
from hf_align.models.sources import load_config, load_tokenizer
from hf_align.rollouts.generate import sample_responses, stop_token_ids, warn_of_open_turns
from hf_align.version import versions

Ids = list[int]


class Sample(NamedTuple):
    """A sampled text, and whether the policy ended it; otherwise the length limit cut it."""

    text: str
    finished: bool


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose; those of neighbouring seeds and other purposes look unrelated."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:6], "big")


class Sampler:
    """A loaded policy with its tokenizer.

    Args:
        model: A decoder language model or a PeftModel.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._warned = False

    def identity(self) -> dict[str, Any]:
        """What determines samples besides prompts and settings: weights, versions, device, end tokens."""
        stops = stop_token_ids(self.model, self.tokenizer)
        weights = weights_digest(self.model)
        return {"weights": weights, "versions": versions(), "device": str(self.model.device), "stops": stops}

    def encode(self, prompts: Sequence[Side], options: Sequence[Mapping[str, Any]], name: str = "data") -> list[Ids]:
        """Token ids of each prompt; warns once if the chat template leaves turns open.

        Args:
            prompts: Texts or messages.
            options: `tools` and `chat_template_kwargs` of each prompt, for the chat template.
            name: The prompts' name in messages.
        """
        if not self._warned and any(isinstance(prompt, list) for prompt in prompts):
            warn_of_open_turns(self.model, self.tokenizer)
            self._warned = True
        return encode_prompts(self.tokenizer, prompts, name, options)

    def accelerated(self) -> AbstractContextManager[Any]:
        """Context in which sampling is fast; entered once for many calls."""
        return accelerated(self.model, Setting.of(self.model, "sample"))

    def sample(
        self,
        prompt_ids: Sequence[Ids],
        *,
        num_samples: int,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int,
    ) -> list[list[Sample]]:
        """Samples to each prompt; see `sample_responses`."""
        responses = sample_responses(
            self.model,
            self.tokenizer,
            prompt_ids,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            generator_seed=seed,
        )
        # The limit can cut a character that takes several tokens; its first bytes decode to U+FFFD.
        samples = [Sample(each.text.rstrip("\N{REPLACEMENT CHARACTER}"), each.finished) for each in responses]
        return [samples[start : start + num_samples] for start in range(0, len(samples), num_samples)]


def check_room(
    name: str, prompts: Sequence[Side], options: Sequence[Mapping[str, Any]], max_new_tokens: int, data: str = "data"
) -> int:
    """Refuse prompts without a chat template in a policy, and responses beyond its positions, before it is loaded.

    Args:
        name: The policy's folder or Hub id.
        prompts: Texts or messages.
        options: As in `Sampler.encode`.
        max_new_tokens: Length limit of a response.
        data: The prompts' name in messages.

    Returns:
        Tokens of the longest prompt.
    """
    return check_positions(name, load_tokenizer(name), load_config(name), prompts, options, max_new_tokens, data)


def check_positions(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    config: Any,
    prompts: Sequence[Side],
    options: Sequence[Mapping[str, Any]],
    max_new_tokens: int,
    data: str = "data",
) -> int:
    """As `check_room`, for a policy whose tokenizer and config are loaded."""
    if not tokenizer.chat_template and any(isinstance(prompt, list) for prompt in prompts):
        raise UserError(f"{data} has messages as prompts, and the tokenizer of {name} has no chat template for them")
    positions = positions_of(config)
    longest = max(map(len, encode_prompts(tokenizer, prompts, data, options)))
    takes = f"{name} has {positions} positions and the longest prompt takes {longest}"
    if positions is not None and longest >= positions:
        raise UserError(f"{data}: {takes}, which leaves no room for a response; shorten or drop such prompts")
    if positions is not None and longest + max_new_tokens > positions:
        raise UserError(f"max_new_tokens is {max_new_tokens}; {takes}, so give at most {positions - longest}")
    return longest
