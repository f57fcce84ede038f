"""The interface between `sample_responses` and engines: requests, and the end of a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators.encoding import special_tokens

Ids = list[int]


class Engine(Protocol):
    """A callable that generates responses; see docs/how-to/rollouts.md.

    Example:
        >>> from hf_align import load_policy
        >>> from hf_align.models.sources import load_tokenizer
        >>> from hf_align.rollouts import sample_responses
        >>> def always_yes(model, request):
        ...     ids = request.tokenizer(" yes")["input_ids"]
        ...     return [[*ids, request.end_ids[0]] for _ in request.prompt_of]
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> tokenizer = load_tokenizer(name)
        >>> prompt_ids = [tokenizer("Is it good?")["input_ids"]]
        >>> responses = sample_responses(load_policy(name), tokenizer, prompt_ids, max_new_tokens=8, engine=always_yes)
        >>> responses[0].text, responses[0].finished
        (' yes', True)
    """

    def __call__(self, model: nn.Module, request: SamplingRequest) -> Sequence[Sequence[int]]:
        """Generate `request.num_samples` responses to each prompt.

        Args:
            model: The policy in evaluation mode, without gradients: a transformers model, or a PeftModel whose active
                adapter is to sample.
            request: The request. The caller has seeded torch's generators.

        Returns:
            Token ids of the responses, prompt by prompt, without the prompts. Each is sampled from
            softmax(logits / temperature), restricted by `top_p`, up to `max_new_tokens`. Tokens after a response's
            first end are dropped, so an engine may stop there but doesn't have to.
        """
        ...


@dataclass(frozen=True)
class SamplingRequest:
    """A request of `sample_responses` to an engine.

    Attributes:
        prompt_ids: Token ids of each prompt.
        num_samples: Responses per prompt.
        max_new_tokens: Length limit of a response.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_p: Sample from the most likely tokens with this total probability.
        end_ids: Tokens that end a response.
        stop_strings: Texts that end a response, without special tokens.
        pad_token_id: Fills the rows; may equal an end token.
        tokenizer: The policy's.
        batch_size: Maximum number of responses to generate at a time; None: the engine's choice.

    Example:
        >>> from hf_align.models.sources import load_tokenizer
        >>> from hf_align.rollouts import SamplingRequest
        >>> tokenizer = load_tokenizer("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> request = SamplingRequest(
        ...     prompt_ids=[[504, 1884]], num_samples=2, max_new_tokens=8, temperature=1.0, top_p=1.0,
        ...     end_ids=[2], stop_strings=[], pad_token_id=2, tokenizer=tokenizer,
        ... )
        >>> request.prompt_of, request.ends_with_last([260, 2])
        ([0, 0], True)
    """

    prompt_ids: Sequence[Sequence[int]]
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    end_ids: Sequence[int]
    stop_strings: Sequence[str]
    pad_token_id: int
    tokenizer: PreTrainedTokenizerBase
    batch_size: int | None = None

    @property
    def prompt_of(self) -> list[int]:
        """Index of each response's prompt: 0, 0, 1, 1, ... for two samples each."""
        return [prompt for prompt in range(len(self.prompt_ids)) for _ in range(self.num_samples)]

    def ends_with_last(self, ids: Ids) -> bool:
        """Whether the last token of a response so far ends it: an end token, or one that completes a stop string."""
        return ids[-1] in self.end_ids or self.completed_string(ids) is not None

    def completed_string(self, ids: Ids) -> str | None:
        """The stop string in the text of a response so far, or None; of several, the one that ends first.

        Special tokens aren't text: their names don't count.
        """
        if not self.stop_strings:
            return None
        last = list(islice((token for token in reversed(ids) if token not in self._specials), self._window))
        text = decode(self.tokenizer, last[::-1], skip_special_tokens=True)
        ends = {string: text.find(string) + len(string) for string in self.stop_strings if string in text}
        return min(ends, key=lambda string: ends[string]) if ends else None

    @cached_property
    def _window(self) -> int:
        # Each token is at least a byte of text. A few more tokens give the decoder context.
        return max(len(string.encode()) for string in self.stop_strings) + 8

    @cached_property
    def _specials(self) -> set[int]:
        return set(special_tokens(self.tokenizer))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    """The text of token ids, without clean-up."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False))


def pad_left(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Left-pad prompts: ids and mask of real tokens, both `[B, T]` int64."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.as_tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
