"""Sampled responses to the same prompts from any policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.collators import encode_prompts
from hf_align.collators.rows import Side
from hf_align.rollouts import Engine, sample_responses, warn_of_open_turns


@dataclass(frozen=True)
class Continuation:
    """One sampled response.

    Attributes:
        text: The response without special tokens.
        tokens: Its length in tokens, EOS not counted.
        ended: Whether the policy ended it with EOS (otherwise the length limit cut it).
        token_ids: The sampled tokens, a sampled EOS included.

    Example:
        >>> from hf_align import load_policy
        >>> from hf_align.evaluation import sample_continuations
        >>> from hf_align.models.sources import load_tokenizer
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> policy, tokenizer = load_policy(name), load_tokenizer(name)
        >>> continuations = sample_continuations(policy, tokenizer, ["The film was"], max_new_tokens=8)
        >>> continuations[0].tokens <= 8
        True
    """

    text: str
    tokens: int
    ended: bool
    token_ids: tuple[int, ...] = field(default=(), repr=False, compare=False)


def sample_continuations(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Side],
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    seed: int = 0,
    engine: str | Engine = "static",
    progress: Callable[[int], None] | None = None,
) -> list[Continuation]:
    """Sample one response per prompt at temperature 1 from the whole vocabulary (no top-k, no top-p).

    Batches hold prompts of similar length, and each batch has its own seed: two policies that get the same prompts
    draw every token from the same random number, which makes their paired difference less noisy.

    Args:
        model: A decoder language model or a PeftModel.
        tokenizer: Its tokenizer.
        prompts: `[N]` texts or chat messages.
        rows: `[N]`, with `tools` and `chat_template_kwargs` for the chat template. Default: none has any.
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        seed: Seed of the sampling.
        engine: As in `sample_responses`: "static", "continuous", or a custom `Engine`.
        progress: Called with the number of prompts finished after every batch.

    Returns:
        `[N]` responses in the order of the prompts.
    """
    encoded = encode_prompts(tokenizer, prompts, rows=rows)
    if any(isinstance(prompt, list) for prompt in prompts):
        warn_of_open_turns(model, tokenizer)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    results: dict[int, Continuation] = {}
    with accelerated(model, Setting.of(model, "sample")):  # once for all batches
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            responses = sample_responses(
                model,
                tokenizer,
                [encoded[row] for row in batch],
                max_new_tokens=max_new_tokens,
                generator_seed=seed + start,
                engine=engine,
            )
            for row, response in zip(batch, responses, strict=True):
                # The length limit can cut a character that takes several tokens; its first bytes decode to U+FFFD.
                text = response.text.rstrip("\N{REPLACEMENT CHARACTER}").strip()
                ids = tuple(response.token_ids)
                results[row] = Continuation(text, len(ids) - response.finished, response.finished, ids)
            if progress is not None:
                progress(len(results))
    return [results[row] for row in range(len(prompts))]
