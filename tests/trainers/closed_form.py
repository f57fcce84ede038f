"""Training on the toy language, whose optimum is known in closed form; `docs/closed-form.md` explains it.

Notation: R responses, all that the language has. A distance is the total variation over them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback

from hf_align.rl.toy_mdp import LanguageMDP, Policy, Response
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options
from tests.trainers.toy import EOS, PROMPT, WORDS, policy_of, prompts, toy_mdp, toy_reward, toy_tokenizer

LENGTH = 2  # tokens of the longest response: 21 responses in all
BETA, TAU = 0.5, 0.2
COMPARISONS = 200_000


@dataclass
class Course:
    """A training run's distance from its optimum.

    Attributes:
        optimum: `[R]` probabilities.
        start: `[R]` of the policy as given, which is the reference.
        end: `[R]` of the trained policy.
        steps: At which the distance was taken.
        distances: At these steps.
    """

    optimum: Tensor
    start: Tensor
    end: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


class Watch(TrainerCallback):
    """Record the distance at the start and every `every` steps."""

    def __init__(self, course: Course, mdp: LanguageMDP, model: Any, every: int):
        self.course, self.mdp, self.model, self.every = course, mdp, model, every

    def take(self, step: int) -> None:
        self.course.end = distribution(self.mdp, self.model)
        self.course.steps.append(step)
        self.course.distances.append(total_variation(self.course.end, self.course.optimum))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.take(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            self.take(state.global_step)


def policy_model(seed: int) -> GPT2LMHeadModel:
    """A random GPT-2 of one layer that can represent any policy over the responses.

    A Llama can't: without BOS it doesn't tell "a" from "a a", since its attention averages equal values and positions
    turn only what is compared.
    """
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=16,
        n_embd=64,
        n_layer=1,
        n_head=2,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return GPT2LMHeadModel(config).eval()  # the trainers switch its dropout off


def distribution(mdp: LanguageMDP, model: Any) -> Tensor:
    """Probability of every response, `[R]` float64."""
    return mdp.response_logps(policy_of(model)).exp().detach()


def total_variation(left: Tensor, right: Tensor) -> float:
    """Half the summed absolute difference."""
    return float(0.5 * (left - right).abs().sum())


def run_ppo(out: Path, seed: int, every: int = 50, **changes: Any) -> Course:
    """Train with PPO at a fixed KL coefficient BETA: to pi_ref * exp(r / BETA) / Z, or to `token_optimum`."""
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 128,
        "num_samples": 64,
        "max_new_tokens": LENGTH,
        "max_steps": 150,
        "num_ppo_epochs": 2,
        "kl_coef": BETA,
        "kl_controller": "fixed",
        "whiten_advantages": False,  # at the optimum advantages vanish, and whitening would scale noise up
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "logging_steps": 50,
        "seed": seed,
    }
    if changes.get("baseline", "value") == "value":
        settings |= {"value_clip_range": None, "value_coef": 0.5, "lam": 1.0}
    model, mdp = policy_model(seed), toy_mdp(LENGTH)
    reference = policy_of(copy.deepcopy(model))
    if changes.get("kl_in") == "loss":
        optimum = token_optimum(mdp, reference, BETA)
    else:
        optimum = mdp.optimal_response_logps(reference, BETA)[0].exp().detach()
    course = Course(optimum, distribution(mdp, model))
    PPOTrainer(
        model,
        args=PPOConfig(**options(out, **{**settings, **changes})),
        train_dataset=prompts(2),
        processing_class=toy_tokenizer(),
        reward=toy_reward(LENGTH),
        callbacks=[Watch(course, mdp, model, every)],
    ).train()
    return course


def run_direct(out: Path, seed: int, every: int = 50, **changes: Any) -> Course:
    """Train with DPO, or IPO if `loss_type` says so, on COMPARISONS drawn from the reward.

    Two responses, each drawn uniformly from all R, are compared, and y beats y' with probability sigmoid(r(y) - r(y')).
    Equal comparisons make one row with their number as its weight, and a step sees all rows.
    """
    ipo = changes.get("loss_type") == "ipo"
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 1000,  # all rows
        "max_steps": 100,
        "beta": TAU if ipo else BETA,
        "optim": "adamw_torch",
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 1e9,
        "logging_steps": 50,
        "seed": seed,
    }
    args = DPOConfig(**options(out, **{**settings, **changes}))
    model, mdp = policy_model(seed), toy_mdp(LENGTH)
    start = distribution(mdp, model)
    if ipo:
        optimum = ipo_optimum(mdp, start, args.beta, per_token=args.ipo_reduction == "mean")
    else:
        optimum = mdp.optimal_response_logps(policy_of(copy.deepcopy(model)), args.beta)[0].exp().detach()
    course = Course(optimum, start)
    placeholder = [{"prompt": "a", "chosen": " b", "rejected": " c"}]
    trainer = DPOTrainer(
        model,
        args=args,
        train_dataset=Dataset.from_list(placeholder),
        processing_class=toy_tokenizer(),
        callbacks=[Watch(course, mdp, model, every)],
    )
    # As ids: text can express neither the empty response (EOS alone) nor one cut by the length limit.
    trainer.train_dataset = comparisons(mdp, seed)
    trainer.data_collator = Once(trainer.data_collator)
    trainer.train()
    return course


def run_online(out: Path, seed: int, every: int = 50, **changes: Any) -> Course:
    """Train with online DPO or IPO on pairs of the policy's samples, labelled by the reward.

    With soft labels DPO's optimum is that of PPO, and IPO's is `nash_optimum`.
    """
    ipo = changes.get("loss_type") == "ipo"
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 128,
        "num_samples": 64,
        "pairs": "all",
        "labels": "soft",
        "max_new_tokens": LENGTH,
        "max_steps": 100,
        "beta": TAU if ipo else BETA,
        "optim": "adamw_torch",
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 1e9,
        "logging_steps": 50,
        "seed": seed,
        **({"ipo_reduction": "sum"} if ipo else {}),
    }
    args = OnlineDPOConfig(**options(out, **{**settings, **changes}))
    model, mdp = policy_model(seed), toy_mdp(LENGTH)
    start = distribution(mdp, model)
    if ipo:
        optimum = nash_optimum(win_probabilities(mdp), start, args.beta)
    else:
        optimum = mdp.optimal_response_logps(policy_of(copy.deepcopy(model)), args.beta)[0].exp().detach()
    course = Course(optimum, start)
    OnlineDPOTrainer(
        model,
        args=args,
        train_dataset=prompts(2),
        processing_class=toy_tokenizer(),
        reward=toy_reward(LENGTH),
        callbacks=[Watch(course, mdp, model, every)],
    ).train()
    return course


def nash_optimum(wins: Tensor, reference: Tensor, tau: float) -> Tensor:
    """Where online IPO on sums ends, with both responses drawn from the policy: `[R]` probabilities.

    With h(y) the log-ratio, its gradient is 0 where for every y, over y' drawn from pi, the mean of
    `h(y) - h(y') - (2 P(y > y') - 1) / (2 tau)` is: at `pi(y) = ref(y) exp(P(y > pi) / tau) / Z`, the Nash equilibrium
    of the preference, regularised by the KL from the reference (Calandriello et al. 2024). Found by averaging steps.

    Args:
        wins: `[R, R]` probability that the response of the row beats that of the column.
        reference: `[R]` probabilities.
        tau: IPO's beta.
    """
    policy = reference
    for _ in range(2000):
        best = (reference.log() + wins @ policy / tau).softmax(0)
        policy = 0.9 * policy + 0.1 * best
    return policy


def token_optimum(mdp: LanguageMDP, reference: Policy, beta: float) -> Tensor:
    """Optimum of a per-token KL in the loss: `[R]` probabilities.

    Such a KL affects only its own token; a token isn't penalised for leading to states with more KL. So in each state
    `pi(a) = pi_ref(a) * exp(Q(a) / beta) / Z`, with Q(a) the expected reward alone, from the end backwards.
    """
    rewards = dict(zip(mdp.responses, mdp.rewards().tolist(), strict=True))

    def solve(prefix: Response) -> tuple[dict[Response, float], float]:
        if prefix in rewards:
            return {prefix: 1.0}, rewards[prefix]
        parts = [solve((*prefix, token)) for token in range(mdp.vocab_size)]
        q = torch.tensor([value for _, value in parts], dtype=torch.float64)
        p = (reference((*mdp.prompt, *prefix)).log_softmax(-1) + q / beta).softmax(-1)
        actual = {y: float(p[token]) * share for token, (shares, _) in enumerate(parts) for y, share in shares.items()}
        return actual, float(p @ q)

    actual, _ = solve(())
    return torch.tensor([actual[response] for response in mdp.responses], dtype=torch.float64)


def grpo_optimum(mdp: LanguageMDP, reference: Policy, beta: float) -> Tensor:
    """Where GRPO of large groups ends with a per-token KL in the loss: `[R]` probabilities.

    The score's advantages are divided by its deviation s under the policy, so that the KL counts beta * s:
    pi = `token_optimum(beta * s(pi))`, found by averaging steps. Where s falls to 0, the best response alone is left.
    """
    policy, rewards = token_optimum(mdp, reference, beta), mdp.rewards()
    for _ in range(300):
        deviation = float((policy @ (rewards - policy @ rewards).square()).sqrt())
        policy = 0.9 * policy + 0.1 * token_optimum(mdp, reference, max(beta * deviation, 1e-3))
    return policy


class Once:
    """A collator for a data set that is one batch: lays it out once."""

    def __init__(self, collator: Any):
        self.collator, self.batch = collator, None

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        if self.batch is None:
            self.batch = self.collator(rows)
        return self.batch


def comparisons(mdp: LanguageMDP, seed: int) -> Dataset:
    """The drawn comparisons as tokenised rows with weights; a response compared with itself says nothing."""
    generator, count = np.random.default_rng(seed), len(mdp.responses)
    drawn = generator.multinomial(COMPARISONS, np.full(count**2, 1 / count**2)).reshape(count, count)
    won = generator.binomial(drawn, win_probabilities(mdp).numpy())
    counts = won + (drawn - won).T  # [chosen, rejected]
    rows = [
        {
            "prompt_ids": list(PROMPT),
            "response_ids": [list(mdp.responses[chosen]), list(mdp.responses[rejected])],
            "weight": float(counts[chosen, rejected]),
        }
        for chosen, rejected in np.argwhere(counts)
        if chosen != rejected
    ]
    return Dataset.from_list(rows)


def win_probabilities(mdp: LanguageMDP) -> Tensor:
    """`[R, R]`: the probability that the first response beats the second, by the Bradley-Terry model."""
    rewards = mdp.rewards()
    return torch.sigmoid(rewards[:, None] - rewards)


def ipo_optimum(mdp: LanguageMDP, reference: Tensor, tau: float, *, per_token: bool) -> Tensor:
    """IPO's optimum on pairs whose two responses are drawn uniformly from all.

    With g(y) the log-ratio, or the log-ratio per token, the expected loss is, up to a constant, the sum over pairs of
    `(g(y) - g(y') - (P(y > y') - 1/2) / tau)^2`, weighted by how often they are drawn; it is least at
    `g(y) = P(y > a random one) / tau + c`, and c is what makes the probabilities sum to 1 (Azar et al. 2023, eq. 7).

    Args:
        mdp: The language.
        reference: `[R]` probabilities.
        tau: IPO's beta.
        per_token: The authors' form, `ipo_reduction="mean"`; else sums.

    Returns:
        `[R]` probabilities.
    """
    gain = win_probabilities(mdp).mean(1) / tau
    tokens = mdp.mask().sum(1).double() if per_token else torch.ones_like(reference)
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        if float((reference.log() + tokens * (gain + middle)).logsumexp(0)) < 0:
            low = middle
        else:
            high = middle
    return reference * (tokens * (gain + low)).exp()
