"""Making a rollout: sampling responses, their scores, and the log-probs and values of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hf_align.layout.branches import Branches
from hf_align.losses.kl import estimate_kl
from hf_align.rl.advantages import gae
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.rollouts import Response, sample_responses
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.data import OWN_COLUMNS
from hf_align.trainers.ppo.processes import gather_rows, whiten_everywhere
from hf_align.trainers.ppo.rollout import Rollout
from hf_align.trainers.ppo.schedule import micro_batch_rows, mini_batch_of

if TYPE_CHECKING:
    from hf_align.trainers.ppo.trainer import PPOTrainer


def sample(
    trainer: PPOTrainer, model: nn.Module, rows: list[dict[str, Any]], num_samples: int, seed: int
) -> list[Response]:
    """`num_samples` responses to each row's prompt, prompt by prompt."""
    args = trainer.args
    with trainer.accelerator.autocast():  # as the scoring pass computes
        return sample_responses(
            trainer.accelerator.unwrap_model(model),
            trainer.processing_class,  # type: ignore[arg-type]
            [row["prompt_ids"] for row in rows],
            num_samples=num_samples,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            stop_strings=args.stop_strings,
            generator_seed=seed,
            engine=trainer.rollout_engine,
        )


def score(
    trainer: PPOTrainer,
    model: nn.Module,
    rows: list[dict[str, Any]],
    responses: list[Response],
    num_samples: int,
    batch: int,
    kept: int | None = None,
) -> Rollout:
    """Responses with their scores, and what the policy and the reference say of their tokens.

    Args:
        trainer: Whose reward, reference and options are used.
        model: The policy as the training step holds it.
        rows: Of the data set.
        responses: To the rows' prompts, in the order in which micro-batches shall take them.
        num_samples: Responses to the same prompt that stand next to each other.
        batch: Responses scored at a time: those that are trained on together.
        kept: The first row of the batch that is trained on first, if its pass shall be kept for that.
    """
    asked = [rows[response.prompt_index] for response in responses]
    columns = {name: [row[name] for row in asked] for name in rows[0] if name not in OWN_COLUMNS}
    scores = trainer.reward(
        [row["prompt"] for row in asked],
        [response.text for response in responses],
        prompt_ids=[row["prompt_ids"] for row in asked],
        response_ids=[response.token_ids for response in responses],
        columns=columns,
    )
    rollout = Rollout(
        prompt_ids=[list(row["prompt_ids"]) for row in asked],
        response_ids=[response.token_ids for response in responses],
        finished=torch.tensor([response.finished for response in responses]),
        scores=scores,
        num_samples=num_samples,
        kl_coef=trainer.kl_controller.coef,
    )
    _score_tokens(trainer, model, rollout, batch, kept)
    return rollout


def kept_row(trainer: PPOTrainer, number: int) -> int | None:
    """Where the micro-batch begins that rollout `number`'s training begins with, if its scoring pass is kept for that.

    The weights are still the same, so its loss needs no pass of its own. None where the loss asks the model for more
    than scoring does, and where processes' gradients are reduced by hooks that expect forward and backward in turn.
    """
    args = trainer.args
    several = trainer.accelerator.num_processes > 1 or trainer.is_deepspeed_enabled
    if several or args.entropy_coef or args.kl_kind == "full":
        return None
    return micro_batch_rows(mini_batch_of(0, number, args), 0, args).start


@torch.no_grad()
def _score_tokens(trainer: PPOTrainer, model: nn.Module, rollout: Rollout, size: int, kept: int | None) -> None:
    """Add old_logps, values, entropy and ref_logps, from the batches that training will see.

    The kept batch comes last, its policy after its reference: what its pass holds for the backward pass isn't there
    while others run.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for start in sorted(range(0, len(rollout.response_ids), size), key=lambda start: start == kept):
        laid_out = trainer.lay_out(rollout, slice(start, start + size))
        tensors: dict[str, Any] = {k: tensor.to(trainer.args.device) for k, tensor in laid_out.tensors().items()}
        branches = Branches(**tensors)
        with trainer.accelerator.autocast():
            ref_logps = trainer.reference.logps(model, branches)
        # A context of its own: older torch hands out casts of trained weights that were made without gradients.
        with trainer.accelerator.autocast(), torch.set_grad_enabled(start == kept):
            output, _ = trainer.run_model(model, branches, temperature=trainer.args.temperature, return_entropy=True)
        if start == kept:
            rollout.first_output = {name: output[name] for name in ("logps", "values")}
        names = {"old_logps": "logps", "values": "values", "entropy": "entropy"}
        found[start] = {"ref_logps": ref_logps} | {name: output[key].detach() for name, key in names.items()}
    for name in ("old_logps", "ref_logps", "values", "entropy"):
        rollout.tokens[name] = rollout.spread(torch.cat([found[start][name].float().cpu() for start in sorted(found)]))


def describe(rollout: Rollout, rewards: Tensor, accelerator: Accelerator) -> dict[str, Tensor]:
    """Metrics of a rollout, one number a response or, for what belongs to the whole, one in all.

    Args:
        rollout: With everything.
        rewards: `[S, T]` with the KL penalty.
        accelerator: The explained variance is over all its processes.
    """
    tokens, mask = rollout.tokens, rollout.mask
    pairs = torch.stack([tokens["returns"][mask], tokens["values"][mask]], 1)
    returns, values = torch.cat(gather_rows(pairs, accelerator)).double().unbind(1)
    unexplained = (returns - values).var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-12)
    return {
        **describe_responses(rollout),
        "objective/rlhf_reward": rewards.sum(1),
        "objective/entropy": tokens["entropy"].sum(1),
        "val/explained_variance": (1 - unexplained)[None],
        "kl_coef": torch.tensor([rollout.kl_coef]),
    }


def describe_responses(rollout: Rollout) -> dict[str, Tensor]:
    """Score, KL from the reference, length and end of each response: `[S]`."""
    return {
        "objective/scores": rollout.scores,
        "objective/kl": estimate_kl(rollout.tokens["old_logps"], rollout.tokens["ref_logps"]).sum(1),
        "response/length": rollout.lengths.float(),
        "response/eos_share": rollout.finished.float(),
    }


def named_scores(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores of each of several rewards, for the log."""
    return {f"rewards/{name}": values for name, values in parts.items()} if len(parts) > 1 else {}


def shape_scores(scores: Tensor, finished: Tensor, args: PPOConfig, running: RunningMeanStd) -> Tensor:
    """Scores `[S]` as they enter the rewards: scaled by the running deviation, clipped, cut responses penalised."""
    if args.scale_rewards:
        scores = scores / running.std
    if args.reward_clip is not None:
        scores = scores.clamp(-args.reward_clip, args.reward_clip)
    if args.missing_eos_penalty is not None:
        scores = scores - args.missing_eos_penalty * (~finished)
    return scores


def add_advantages(rollout: Rollout, scores: Tensor, args: PPOConfig, accelerator: Accelerator) -> Tensor:
    """Add `advantages` and `returns` to a rollout that has been scored.

    Args:
        rollout: With old_logps, ref_logps and values.
        scores: `[S]`, shaped; each goes to its response's last token, whether EOS or where the limit cut it.
        args: The trainer's options.
        accelerator: Whitening is over all its processes.

    Returns:
        The tokens' rewards, KL penalty included, before whitening: `[S, T]`.
    """
    mask = rollout.mask
    rewards = torch.zeros(mask.shape).scatter(1, rollout.lengths[:, None] - 1, scores[:, None])
    if args.kl_in == "reward":
        kind = args.kl_kind
        assert kind != "full"
        rewards = rewards - rollout.kl_coef * estimate_kl(
            rollout.tokens["old_logps"], rollout.tokens["ref_logps"], kind=kind
        )
    whitened = whiten_everywhere(rewards, mask, accelerator, shift_mean=False) if args.whiten_rewards else rewards
    advantages, returns = gae(whitened, rollout.tokens["values"], mask, gamma=args.gamma, lam=args.lam)
    if args.whiten_advantages:
        advantages = whiten_everywhere(advantages, mask, accelerator)
    rollout.tokens["advantages"], rollout.tokens["returns"] = advantages, returns
    return rewards
