"""One score of several members' scores: fixed rules, and two that are fitted on held-out preferences.

Notation: M members, R responses, P preferences (pairs of responses to one prompt), d = the backbone's hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, pairwise
from math import isfinite, isnan
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hf_align.collators.rankings import preferences_of
from hf_align.errors import UserError
from hf_align.losses import bradley_terry_loss
from hf_align.numbers import number_problem

Rule = Literal["mean", "median", "trimmed_mean", "min", "uncertainty_weighted"]
Fitted = Literal["dynamic", "stacking"]
Method = Rule | Fitted | Literal["weight_average"]
RULES: tuple[str, ...] = get_args(Rule)
"""Methods that are formulas of the members' scores."""
FITTED: tuple[str, ...] = get_args(Fitted)
"""Methods that have to be fitted on held-out rows."""
METHODS: tuple[str, ...] = (*RULES, *FITTED, "weight_average")
WEIGHTED = ("mean", "weight_average")
"""Methods that take weights of the members."""


def check_method(
    method: str,
    members: int,
    *,
    weights: Sequence[float] | None = None,
    trim: float = 0.2,
    uncertainty_coef: float = 1.0,
) -> None:
    """Refuse settings that no ensemble of so many members can have, or that would have no effect.

    Raises:
        UserError: An unknown method, weights that don't fit it or the members, a trim that cuts nobody or everybody, a
            coefficient below 0, or one of them isn't a number.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; use one of {', '.join(METHODS)}.")
    if members < 1:
        raise UserError("members is empty; give at least one reward model.")
    for name, value in (("trim", trim), ("uncertainty_coef", uncertainty_coef)):
        if number_problem(value) == "not a number":
            raise UserError(f"{name} is {value!r}; give a number.")
    if weights is not None:
        if isinstance(weights, str | Mapping) or not isinstance(weights, Iterable):
            raise UserError(f"weights is {weights!r}; give a list of numbers, one for each member.")
        if any(number_problem(weight) == "not a number" for weight in weights):
            raise UserError(f"weights are {weights!r}; give a list of numbers, one for each member.")
        _check_weights(method, members, [float(weight) for weight in weights])
    if method == "trimmed_mean":
        if not 0 < trim < 0.5:
            raise UserError(f"trim is {trim}; it is the share of members cut at each end, above 0 and below 0.5.")
        if int(trim * members) == 0:
            raise UserError(
                f"trim={trim} of {members} members cuts none at either end, which would be the mean; "
                + (f"give trim={_least_trim(members)}." if members > 2 else "use method='mean', or 3 members or more.")
            )
    if not (isfinite(uncertainty_coef) and uncertainty_coef >= 0):
        raise UserError(f"uncertainty_coef is {uncertainty_coef}; give a number from 0 (which is the mean).")


def _check_weights(method: str, members: int, weights: list[float]) -> None:
    if method not in WEIGHTED:
        raise UserError(
            f"weights have no effect on method={method!r}; leave them out, or use method='mean' or 'weight_average'."
        )
    if len(weights) != members:
        raise UserError(f"weights has {len(weights)} numbers and there are {members} members; give one for each.")
    if not all(isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise UserError(f"weights are {weights}; give finite numbers from 0, not all 0.")


def _least_trim(members: int) -> float:
    """The smallest trim in hundredths that cuts a member at each end."""
    return next(share / 100 for share in range(1, 50) if int(share / 100 * members))


def aggregate(
    scores: Tensor,
    method: str,
    *,
    weights: Sequence[float] | None = None,
    trim: float = 0.2,
    uncertainty_coef: float = 1.0,
) -> Tensor:
    """Combine the members' scores of each response by a rule.

    - "mean": the mean, weighted by `weights / sum(weights)`.
    - "median": the middle score; of an even number of members the mean of the two in the middle.
    - "trimmed_mean": the mean without the `int(trim * M)` lowest and as many highest scores.
    - "min": the lowest score (worst-case optimisation, Coste et al. 2023).
    - "uncertainty_weighted": mean - uncertainty_coef * variance (of the M scores, divided by M; Coste et al.).

    All but the mean compare the members' scores with each other, so they have to be on one scale.

    Args:
        scores: `[M, R]`.
        method: One of `RULES`.
        weights: Of the members, for "mean"; they need not sum to 1. Default: all alike.
        trim: Share of the members cut at each end, for "trimmed_mean".
        uncertainty_coef: Coefficient of the variance, for "uncertainty_weighted".

    Returns:
        `[R]`.

    Raises:
        UserError: See `check_method`.

    Example:
        >>> import torch
        >>> from hf_align.models.aggregation import aggregate
        >>> scores = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
        >>> [aggregate(scores, method).tolist()[0] for method in ("mean", "median", "min")]
        [3.0, 2.0, 1.0]
        >>> aggregate(scores, "uncertainty_weighted", uncertainty_coef=0.5).tolist()  # variance 14 / 3
        [0.6666667461395264, 0.0]
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be [members, responses], got {list(scores.shape)}.")
    if method in METHODS and method not in RULES:
        raise UserError(f"method={method!r} is no rule on scores alone; use one of {', '.join(RULES)}.")
    members = len(scores)
    check_method(method, members, weights=weights, trim=trim, uncertainty_coef=uncertainty_coef)
    if method == "mean":
        return _mean(scores, [float(weight) for weight in weights] if weights is not None else None)
    if method == "min":
        return scores.amin(0)
    if method == "uncertainty_weighted":
        mean = _mean(scores)
        return mean - uncertainty_coef * _mean((scores - mean).square())
    cut = int(trim * members) if method == "trimmed_mean" else (members - 1) // 2
    return _mean(scores.sort(0).values[cut : members - cut])


def _mean(scores: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    weights = [1.0] * len(scores) if weights is None else weights
    return _weighted_sum(scores, weights) / sum(weights)


def _weighted_sum(scores: Tensor, weights: Iterable[float | Tensor]) -> Tensor:
    """`weights @ scores`, member by member: a response's score must not depend on how many others are in the batch."""
    return reduce(torch.add, [weight * of_member for weight, of_member in zip(weights, scores, strict=True)])


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
        >>> from hf_align.models.aggregation import Preferences, Stacking
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
        return _weighted_sum(scores, self.weight.to(scores)) + self.bias.to(scores)

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
        >>> from hf_align.models.aggregation import DynamicSelector
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
        return _weighted_sum(scores, self.shares(states).T.to(scores))

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
