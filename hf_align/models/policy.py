"""Policies for training: log-probs of the responses in a batch of branches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches
from hf_align.losses.kl import full_kl_in_chunks
from hf_align.losses.logprobs import chunk_rows, response_logps, response_logps_from_head
from hf_align.models.adapters import active_adapter
from hf_align.models.logits import LogitTransform, logit_transform
from hf_align.models.wrapper import BranchModel, unwrapped


class PolicyModel(BranchModel):
    """Wrapper of a causal language model (or its PeftModel); `forward(branches)` gives log-probs `[N]`."""

    def forward(
        self,
        branches: Branches,
        *,
        temperature: float = 1.0,
        return_entropy: bool = False,
        entropy_grad: bool = False,
        return_states: bool = False,
        reference: ReferenceHead | None = None,
        full_logits: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Log-probability of every response token.

        Args:
            branches: The prompts and responses.
            temperature: Sampling temperature that the log-probs refer to.
            return_entropy: Return `logps` and `entropy`, that of each token's distribution.
            entropy_grad: Whether the entropy is differentiable (an entropy bonus) or only logged.
            return_states: Return the hidden states `[N, d]` before the LM head instead, for a `ReferenceHead`.
            reference: Return `logps` and `kl`, the exact KL from it.
            full_logits: Take the log-probs from the model's logits of each row alone: slow, for checks.

        Returns:
            `[N]` float32, in the order of `Branches.targets`. Only these N positions go through the LM head, in chunks.
        """
        if full_logits:
            return logps_of_full_logits(self, branches)
        scores = score_tokens(
            self,
            branches,
            temperature=temperature,
            return_entropy=return_entropy,
            entropy_grad=entropy_grad,
            reference=reference,
        )
        further = {"entropy": scores.entropy, "kl": scores.kl}
        if named := {name: tensor for name, tensor in further.items() if tensor is not None}:
            return {"logps": scores.logps, **named}
        return scores.states if return_states else scores.logps


class ReferenceHead(NamedTuple):
    """A reference's hidden states with its LM head, for the exact KL."""

    states: Tensor  # [N, d] before the reference's LM head, in the order of `Branches.targets`
    model: nn.Module | None  # the reference, or None: the policy's model under another adapter
    adapter: str | None = None  # its adapter, or None


class TokenScores(NamedTuple):
    """Scores of the N response tokens of a batch from one pass, in the order of `Branches.targets`."""

    logps: Tensor  # [N] float32
    entropy: Tensor | None  # [N] float32, of the token's distribution
    states: Tensor  # [N, d] hidden states that predict the tokens, the LM head's inputs
    kl: Tensor | None = None  # [N] float32, exact KL of the next-token distribution from the reference's


def score_tokens(
    wrapper: BranchModel,
    branches: Branches,
    *,
    temperature: float = 1.0,
    return_entropy: bool = False,
    entropy_grad: bool = False,
    reference: ReferenceHead | None = None,
) -> TokenScores:
    """Log-probs of the response tokens in one pass of a wrapped causal language model.

    Args:
        wrapper: Wrapper of the model; only the N predicting positions go through its LM head, in chunks.
        branches: The prompts and responses.
        temperature: Sampling temperature that the log-probs refer to.
        return_entropy: Also compute the entropies.
        entropy_grad: Whether the entropies are differentiable.
        reference: Also compute the exact KL from it, with gradient.
    """
    head = cast(Any, wrapper.model).get_output_embeddings()
    original = head.forward
    options: dict[str, Any] = {**logit_transform(wrapper).options(), "temperature": temperature}
    options |= {"return_entropy": True} if return_entropy else {}

    def scores_of(hidden: Tensor) -> TokenScores:
        states = hidden.flatten(0, 1)[branches.predictors]
        if type(head) is nn.Linear:
            if return_entropy:
                options["entropy_grad"] = entropy_grad
            scores = response_logps(states, head.weight, branches.targets, bias=head.bias, **options)
        else:  # LoRA on the head or a quantised head: only its own forward can apply its weights
            rows = chunk_rows(_vocabulary(wrapper), copies=5 if return_entropy else 3)
            scores = response_logps_from_head(states, original, branches.targets, chunk_size=rows, **options)
        logps, entropy = scores if isinstance(scores, tuple) else (scores, None)
        if entropy is not None and not entropy_grad:
            entropy = entropy.detach()
        kl = None if reference is None else _kl_from(reference, wrapper, head, original, states, temperature)
        return TokenScores(logps, entropy, states, kl)

    return wrapper.forward_to_head(branches, head, scores_of)


def _kl_from(
    reference: ReferenceHead,
    wrapper: BranchModel,
    head: nn.Module,
    original: Callable[[Tensor], Tensor],
    states: Tensor,
    temperature: float,
) -> Tensor:
    """Exact KL `[N]` from the reference of a policy with this head and these hidden states."""
    is_separate = reference.model is not None
    source = cast(Any, reference.model if is_separate else wrapper)
    other = source.get_output_embeddings() if is_separate else head

    def reference_logits(states: Tensor) -> Tensor:
        if is_separate:
            return other(states)
        with active_adapter(head, reference.adapter):  # `original`: while this runs, `head` is replaced
            return original(states)

    return full_kl_in_chunks(
        states,
        shaped_logits(original, logit_transform(wrapper), temperature),
        reference.states,
        shaped_logits(reference_logits, logit_transform(source), temperature),
        chunk_size=chunk_rows(_vocabulary(wrapper), copies=6),  # logits, log-probs and gradients of both
    )


def _vocabulary(wrapper: BranchModel) -> int:
    return cast(Any, wrapper.model).config.get_text_config().vocab_size


def shaped_logits(
    head: Callable[[Tensor], Tensor], transform: LogitTransform, temperature: float
) -> Callable[[Tensor], Tensor]:
    """An LM head including the model's scaling and capping of logits, and the sampling temperature."""
    return lambda states: transform(head(states).float()) / temperature


def logps_of_full_logits(wrapper: BranchModel, branches: Branches) -> Tensor:
    """Log-probs `[N]` of plain rows from the model's own logits: slow, for checks.

    Every row goes through the model alone, with only its ids: no padding, positions or mask.
    """
    model, width = cast(Any, wrapper.model), branches.input_ids.shape[1]
    row_of = branches.predictors // width  # [N]
    keeps = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
    logps = torch.empty(len(branches.targets), device=branches.targets.device)
    for row, real in enumerate(branches.doc_ids >= 0):
        of_row = row_of == row
        columns = branches.predictors[of_row] % width
        options = {"logits_to_keep": columns} if keeps else {}
        logits = model(input_ids=branches.input_ids[row][real][None], use_cache=False, **options).logits[0]
        logits = (logits if keeps else logits[columns]).float()  # [tokens of the row, vocab]
        logps[of_row] = logits.log_softmax(-1).gather(1, branches.targets[of_row][:, None])[:, 0]
    return logps
