"""Scores of sampled responses, and of their tokens by the policy and its reference.

Notation: S responses, T tokens of the longest, N tokens in all, B responses per batch.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.layout.branches import Branches
from hf_align.losses.kl import estimate_kl
from hf_align.rewards import NonFiniteReward, Reward
from hf_align.rollouts import Response
from hf_align.trainers.rollouts.config import RolloutConfig
from hf_align.trainers.rollouts.data import OWN_COLUMNS, Row
from hf_align.trainers.rollouts.rollout import Rollout
from hf_align.trainers.rollouts.schedule import micro_batch_rows, mini_batch_of

R = TypeVar("R", bound=Rollout)
OUTPUTS = ("logps", "values")
"""Outputs of the policy that losses need."""


class Scorers(Protocol):
    """The policy and its reference: those of a run (`ModelRoles`), or stand-ins."""

    def policy(self, branches: Branches) -> dict[str, Tensor]:
        """Return logps, entropy and perhaps values of the batch's tokens, `[N]` each."""
        ...

    def reference(self, branches: Branches) -> Tensor:
        """Return the reference's log-probs of the batch's tokens, `[N]`."""
        ...


class Roles(Scorers, Protocol):
    """Models that make rollouts."""

    def sample(self, rows: list[Row], num_samples: int, seed: int) -> list[Response]:
        """Sample responses to the rows' prompts, prompt by prompt."""
        ...


def score_responses(
    rows: list[Row], responses: list[Response], reward: Reward
) -> tuple[Tensor, NonFiniteReward | None]:
    """Scores `[S]` of responses to these prompts; NaN, with the error, where one isn't finite."""
    asked = [rows[response.prompt_index] for response in responses]
    try:
        scores = reward(
            [row["prompt"] for row in asked],
            [response.text for response in responses],
            prompt_ids=[row["prompt_ids"] for row in asked],
            response_ids=[response.token_ids for response in responses],
            finished=[response.finished for response in responses],
            columns={name: [row[name] for row in asked] for name in rows[0] if name not in OWN_COLUMNS},
        )
    except NonFiniteReward as found:  # the other processes are to hear of it
        return torch.full((len(responses),), math.nan), found
    return scores, None


def new_rollout(
    kind: type[R],
    rows: list[Row],
    responses: list[Response],
    scores: Tensor,
    error: NonFiniteReward | None = None,
    *,
    num_samples: int,
    **further: Any,
) -> R:
    """A rollout of responses and their scores, without per-token values yet.

    Args:
        kind: Its class.
        rows: The prompts.
        responses: Responses to these prompts, in the order for micro-batches.
        scores: `[S]` raw scores.
        error: The reward's error about them.
        num_samples: Number of adjacent responses to the same prompt.
        further: What the class needs besides.
    """
    return kind(
        prompt_ids=[list(rows[response.prompt_index]["prompt_ids"]) for response in responses],
        response_ids=[response.token_ids for response in responses],
        finished=torch.tensor([response.finished for response in responses]),  # [S]
        scores=scores,
        num_samples=num_samples,
        reward_error=error,
        **further,
    )


def kept_row(number: int, config: RolloutConfig, accelerator: Accelerator, *, needs_more: bool = False) -> int | None:
    """Start of rollout `number`'s first micro-batch, if its scoring pass is kept for training.

    The weights are unchanged then, so its loss needs no further pass. None if the loss needs more outputs than scoring
    gives (`needs_more`), or if gradients are reduced across processes by hooks that expect alternating forwards and
    backwards.
    """
    several = accelerator.num_processes > 1 or accelerator.state.deepspeed_plugin is not None
    if several or needs_more:
        return None
    return micro_batch_rows(mini_batch_of(0, number, config), 0, config).start


@torch.no_grad()
def score_tokens(
    rollout: Rollout, config: RolloutConfig, roles: Scorers, size: int, pad_token_id: int, kept_start: int | None = None
) -> None:
    """Add old_logps, ref_logps, entropy and, where the policy gives them, values, `size` responses at a time.

    The kept batch comes last, with its policy after its reference, so that its saved activations don't exist while
    others run.
    """
    flat: dict[int, dict[str, Tensor]] = {}  # by first row of the batch, [N] each
    for start in sorted(range(0, len(rollout.response_ids), size), key=lambda start: start == kept_start):
        rows = slice(start, start + size)
        branches = rollout.branches(rows, pad_token_id=pad_token_id, row_tokens=config.row_tokens).to(config.device)
        ref_logps = roles.reference(branches)
        with torch.set_grad_enabled(start == kept_start):
            output = roles.policy(branches)
        if start == kept_start:
            rollout.first_output = {name: output[name] for name in OUTPUTS if name in output}
        scored = {name: output[name].detach() for name in ("values", "entropy") if name in output}
        flat[start] = {"old_logps": output["logps"].detach(), "ref_logps": ref_logps, **scored}
    for name in flat[0]:
        rollout.tokens[name] = rollout.spread(torch.cat([flat[start][name].float().cpu() for start in sorted(flat)]))


def penalise_missing_eos(scores: Tensor, finished: Tensor, config: RolloutConfig) -> Tensor:
    """Scores `[S]` with `missing_eos_penalty` taken off where the length limit cut the response."""
    return scores if config.missing_eos_penalty is None else scores - config.missing_eos_penalty * (~finished)


def describe_responses(rollout: Rollout) -> dict[str, Tensor]:
    """KL from the reference, length and end of each response: `[S]`."""
    return {
        "objective/kl": estimate_kl(rollout.tokens["old_logps"], rollout.tokens["ref_logps"]).sum(1),
        "response/length": rollout.lengths.float(),
        "response/eos_share": rollout.finished.float(),
    }
