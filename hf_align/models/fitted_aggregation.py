"""Members' scores combined as held-out preferences say: by fixed weights, or by weights that depend on the prompt.

Notation: M members, R responses, P preferences (pairs of responses to one prompt), d = the backbone's hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from hf_align.collators.rankings import preferences_of
from hf_align.errors import UserError
from hf_align.losses import bradley_terry_loss
from hf_align.models.aggregation import weighted_sum


@dataclass(frozen=True)
class Preferences:
    """People's preferences between R responses, on which an aggregation is fitted.

    Attributes:
        first, second: `[P]` numbers of each pair's responses.
        label: `[P]` P(first is better).
        weight: `[P]` the row's weight divided by the number of its pairs, so that a ranking counts as one row.
        prompt: `[P]` number of the prompt; rows with the same prompt share it.
    """

    first: Tensor
    second: Tensor
    label: Tensor
    weight: Tensor
    prompt: Tensor

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Preferences:
        """All pairs within each row of `tokenize_preferences`; responses are numbered through the rows, in order.

        Labels are soft where rows have votes or ratings. Margins have no influence.

        Raises:
            UserError: No row prefers any response.
        """
        pairs: list[tuple[int, int, float, float, int]] = []
        prompts: dict[tuple[int, ...], int] = {}
        start = 0
        for row in rows:
            count, prompt = len(row["response_ids"]), prompts.setdefault(tuple(row["prompt_ids"]), len(prompts))
            if "ranks" in row:
                labels = preferences_of(row["ranks"], row.get("ratings"))
            else:
                labels = [float(row.get("label", 1.0))]
            compared = [
                (start + i, start + j, label)
                for (i, j), label in zip(combinations(range(count), 2), labels, strict=True)
                if not isnan(label)
            ]
            weight = float(row.get("weight", 1.0)) / max(1, len(compared))
            pairs += [(*each, weight, prompt) for each in compared]
            start += count
        if not any(label != 0.5 for _, _, label, _, _ in pairs):
            raise UserError("fit: in no row is one response preferred; give held-out pairs or rankings.")
        first, second, label, weight, prompt = zip(*pairs, strict=True)
        shares, weights = (torch.tensor(numbers, dtype=torch.float64) for numbers in (label, weight))
        return cls(torch.tensor(first), torch.tensor(second), shares, weights, torch.tensor(prompt))

    def loss(self, rewards: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Weighted mean of the Bradley-Terry loss of rewards `[R]`, over all or the `chosen` `[P]` pairs."""
        keep = torch.ones_like(self.prompt, dtype=torch.bool) if chosen is None else chosen
        losses = bradley_terry_loss(
            rewards[self.first[keep]], rewards[self.second[keep]], label=self.label[keep].to(rewards.dtype)
        )
        weight = self.weight[keep].to(rewards.dtype)
        return (losses * weight).sum() / weight.sum()


class Stacking(nn.Module):
    """A linear function of the members' scores, fitted to held-out preferences (stacking: Wolpert 1992; Breiman 1996).

    The weights maximise the Bradley-Terry likelihood with a ridge penalty on those of the members' scores in standard
    deviations. Each step of the fit is a ridge regression in closed form (iteratively reweighted least squares), and a
    few steps reach the optimum. Pairs leave the intercept open: it makes the mean reward of the fitted rows 0. A
    difference of rewards is the log odds that the better one is preferred.

    Args:
        members: Number of members M.

    Example:
        >>> import torch
        >>> from hf_align.models.fitted_aggregation import Preferences, Stacking
        >>> rows = [{"prompt_ids": [1], "response_ids": [[2], [3]], "label": share} for share in (0.9, 0.2, 0.7)]
        >>> scores = torch.tensor([[2.0, 0.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
        >>> stacking = Stacking(2).fit(scores, Preferences.of(rows))
        >>> bool(stacking.weight[0] > stacking.weight[1])
        True
    """

    weight: Tensor
    bias: Tensor
    fitted: Tensor

    def __init__(self, members: int):
        super().__init__()
        self.register_buffer("weight", torch.full((members,), 1 / members))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def log_odds(self) -> float:
        """What makes a difference of rewards log odds."""
        return 1.0

    def forward(self, scores: Tensor) -> Tensor:
        """Rewards `[R]` of the members' scores `[M, R]`."""
        check_fitted(self, "stacking")
        return weighted_sum(scores, self.weight.to(scores)) + self.bias.to(scores)

    def fit(self, scores: Tensor, preferences: Preferences, *, penalty: float = 1.0) -> Stacking:
        """Fit weights and intercept.

        Args:
            scores: `[M, R]` members' scores of held-out responses.
            preferences: Preferences between these responses.
            penalty: Of half the sum of squares of the weights, beside the sum of the losses over rows: 1 is a standard
                normal prior.

        Returns:
            Itself.

        Raises:
            UserError: A member gives all responses one score.
        """
        scores = scores.detach().double().cpu()
        spread = scores.std(1, correction=0)  # [M]
        if (constant := (spread == 0).nonzero()).numel():
            raise UserError(f"fit: member {int(constant[0])} gives all held-out responses one score; leave it out.")
        differences = (scores[:, preferences.first] - scores[:, preferences.second]).T / spread  # [P, M]
        weight = fit_log_odds(differences, preferences, penalty) / spread
        self.weight.copy_(weight)
        self.bias.copy_(-weight @ scores.mean(1))
        self.fitted.fill_(True)
        return self


class DynamicSelector(nn.Module):
    """A mean of the members' scores whose weights depend on the prompt, fitted to held-out preferences.

    The weights are the softmax of a network (d -> 256 -> 128 -> 64 -> M, ReLU) on the prompt's last hidden state, in
    standard deviations of the fitted prompts, of the backbone without adapter. A new selector weighs all members
    alike, and the fit starts there.

    Args:
        size: Hidden size d of the backbone.
        members: Number of members M.
        seed: Draws the first weights.

    Example:
        >>> import torch
        >>> from hf_align.models.fitted_aggregation import DynamicSelector
        >>> DynamicSelector(576, members=4).shares(torch.randn(2, 576)).tolist()
        [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    """

    center: Tensor
    spread: Tensor
    fitted: Tensor

    def __init__(self, size: int, members: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (size, 256, 128, 64)
            hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
            self.network = nn.Sequential(*hidden, nn.Linear(64, members))
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.register_buffer("fitted", torch.tensor(False))
        self.requires_grad_(False)  # nothing but `fit` trains it

    @property
    def log_odds(self) -> float:
        """What makes a difference of rewards log odds; fitted along."""
        return float(self.log_scale.exp())

    def shares(self, states: Tensor) -> Tensor:
        """Weights `[R, M]` of the members, of sum 1, for prompts' states `[R, d]`."""
        return self.network((states.to(self.center) - self.center) / self.spread).softmax(-1)

    def forward(self, scores: Tensor, states: Tensor) -> Tensor:
        """Rewards `[R]` of the members' scores `[M, R]` and the prompts' states `[R, d]`."""
        check_fitted(self, "dynamic")
        return weighted_sum(scores, self.shares(states).T.to(scores))

    def fit(
        self, scores: Tensor, preferences: Preferences, states: Tensor, *, seed: int = 0, epochs: int = 200
    ) -> DynamicSelector:
        """Fit by gradient descent, stopped early: a fifth of the prompts says which epoch's weights are kept.

        So the selector is at least as good as the mean on that fifth.

        Args:
            scores: `[M, R]` members' scores of held-out responses, on one scale.
            preferences: Preferences between these responses.
            states: `[R, d]` the last hidden state of each response's prompt.
            seed: Draws the fifth.
            epochs: Most passes over all pairs.

        Returns:
            Itself.

        Raises:
            UserError: Too few prompts.
        """
        device = self.center.device
        scores, states = scores.detach().float().cpu(), states.detach().float().cpu()
        validated = _draw_prompts(preferences, seed)
        self.cpu()
        self.center.copy_(states.mean(0))
        self.spread.copy_(states.std(0, correction=0).clamp(min=1e-6))
        mean = scores.mean(0)
        differences = (mean[preferences.first] - mean[preferences.second])[:, None].double()
        scale = float(fit_log_odds(differences, preferences, penalty=1e-6))
        self.log_scale.fill_(max(scale, 1e-3)).log_()

        def loss(chosen: Tensor) -> Tensor:
            return preferences.loss(self.log_scale.exp() * (scores * self.shares(states).T).sum(0), chosen)

        with torch.enable_grad():
            self.requires_grad_(True)
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.01)
            best, kept = float(loss(validated).detach()), copy.deepcopy(self.state_dict())
            since = 0
            for _ in range(epochs):
                optimizer.zero_grad()
                loss(~validated).backward()
                optimizer.step()
                value, since = float(loss(validated).detach()), since + 1
                if value < best:
                    best, kept, since = value, copy.deepcopy(self.state_dict()), 0
                if since == PATIENCE:
                    break
        self.load_state_dict(kept)
        self.requires_grad_(False)
        self.fitted.fill_(True)
        self.to(device)
        return self


PATIENCE = 20
"""Epochs without a better loss on the held-back prompts after which a selector's fit ends."""
LEAST_PROMPTS = 10
"""Fewest prompts to fit a selector on."""


def check_fitted(aggregation: Stacking | DynamicSelector, method: str) -> None:
    """Refuse to score with an aggregation that wasn't fitted."""
    if not aggregation.fitted:
        raise UserError(f"method={method!r} isn't fitted; call fit(dataset) with held-out pairs or rankings first.")


def _draw_prompts(preferences: Preferences, seed: int) -> Tensor:
    """`[P]` whether a pair's prompt is in a fifth of the prompts."""
    prompts = preferences.prompt.unique()
    if len(prompts) < LEAST_PROMPTS:
        raise UserError(
            f"fit: the rows have {len(prompts)} prompts with a preference, and method='dynamic' needs at least "
            f"{LEAST_PROMPTS}, of which a fifth says when to stop; give more rows, or use method='stacking'."
        )
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed))
    return torch.isin(preferences.prompt, prompts[order[: len(prompts) // 5]])


def fit_log_odds(differences: Tensor, preferences: Preferences, penalty: float) -> Tensor:
    """Weights `[M]` that make `differences @ weights` the log odds of the preferences, by Newton's method.

    Minimises the weighted sum of the Bradley-Terry losses + penalty / 2 * |weights|^2, which has one minimum.

    Args:
        differences: `[P, M]` float64, first minus second.
        preferences: With labels and weights.
        penalty: Above 0, so that there is a minimum even if the pairs are separable.
    """
    label, weight = preferences.label, preferences.weight
    members = differences.shape[1]

    def objective(solution: Tensor) -> Tensor:
        odds = differences @ solution
        losses = bradley_terry_loss(odds, torch.zeros_like(odds), label=label)
        return (weight * losses).sum() + penalty / 2 * solution.square().sum()

    solution = differences.new_zeros(members)
    for _ in range(100):
        probability = (differences @ solution).sigmoid()
        gradient = differences.T @ (weight * (probability - label)) + penalty * solution
        curvature = differences.T @ (differences * (weight * probability * (1 - probability))[:, None])
        step = torch.linalg.solve(curvature + penalty * torch.eye(members, dtype=torch.float64), gradient)
        while objective(solution - step) > objective(solution) and step.norm() > 1e-12:
            step = step / 2
        solution = solution - step
        if step.norm() <= 1e-10 * (1 + solution.norm()):
            break
    return solution
