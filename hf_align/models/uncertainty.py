"""How unsure an ensemble, or a single reward model, is of its scores.

Notation: M members, R responses, T passes with dropout. What is said of M scores of a response holds for M differences
of the scores of two responses, too: these functions take either. A difference's uncertainty isn't that of its two
scores: what members disagree on for both responses alike cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from hf_align.errors import UserError
from hf_align.models.heads import linear_layers, reward_part
from hf_align.models.reward import RewardModel
from hf_align.models.wrapper import forward_replaced

MEASURES = ("std", "entropy", "variance_ratio", "mc_dropout")
"""Measures of uncertainty by name; all but the last compare members."""
DROPPED, RELATIVE = "mc_dropout", ("entropy", "variance_ratio")
"""The measure that takes further passes, and those that are relative to the reference set's mean."""
PENALTY = "penalty"
"""What a method takes off the members' mean: no measure of uncertainty, but given beside them by name."""
PASSES = 10
DROPOUT = 0.1


def measures_of(asked: bool | Iterable[str]) -> list[str]:
    """Names of the measures that are asked for, as in `RewardEnsemble.score`.

    Raises:
        UserError: There is no such measure.
    """
    if isinstance(asked, bool):
        return list(MEASURES) if asked else []
    names = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [name for name in names if name not in (*MEASURES, PENALTY)]:
        raise UserError(f"return_uncertainty has {unknown[0]!r}; use True, or some of {', '.join(MEASURES)}.")
    return names


def disagreement(measure: str, scores: Tensor, log_odds: Sequence[float] | Tensor) -> Tensor:
    """A measure that compares members, "std", "entropy" or "variance_ratio", of their scores: `[M, R] -> [R]`."""
    if measure == "entropy":
        return preference_entropy(scores, log_odds)
    return variation_ratio(scores) if measure == "variance_ratio" else deviation(scores)


def deviation(scores: Tensor) -> Tensor:
    """Standard deviation over the M members: `[M, R] -> [R]`, of the M scores themselves (divided by M)."""
    return scores.std(0, correction=0)


def preference_entropy(scores: Tensor, log_odds: Sequence[float] | Tensor) -> Tensor:
    """Entropy, in nats, of what the members together say: is the response better than the reference set's mean?

    H(p) = -p log p - (1 - p) log(1 - p), p the mean over members of sigmoid(score * log_odds): 0 where all are sure of
    one answer, log 2 where p is one half, be it that members disagree or that all are unsure.

    Args:
        scores: `[M, R]`, normalised, so that 0 is the reference set's mean; or differences of two responses' scores:
            then p is P(first is better).
        log_odds: `[M]` what makes a difference of a member's rewards log odds (`RewardModel.log_odds`).

    Returns:
        `[R]`.
    """
    odds = scores * torch.as_tensor(log_odds, dtype=scores.dtype, device=scores.device)[:, None]
    p, rest = odds.sigmoid().mean(0), (-odds).sigmoid().mean(0)  # 1 - p would round to 0
    return -(torch.xlogy(p, p) + torch.xlogy(rest, rest))


def variation_ratio(scores: Tensor) -> Tensor:
    """Share of the members that aren't on the side of most: Freeman's variation ratio (1965) of the scores' signs.

    A member is for the response if its score is above 0, the reference set's mean, against it below, and half of each
    at 0. So the ratio is between 0 (all agree) and one half. (A variance divided by the mean, as some textbooks define
    a variance ratio, is undefined at a mean of 0, where normalised rewards are, and changes with an offset.)

    Args:
        scores: `[M, R]`, normalised, or differences of two responses' scores.

    Returns:
        `[R]`.
    """
    above = (scores.sign().mean(0) + 1) / 2  # share of members for it
    return torch.minimum(above, 1 - above)


@contextmanager
def mc_dropout(model: nn.Module, p: float = DROPOUT, *, generator: torch.Generator | None = None) -> Iterator[None]:
    """Let `model` score as one network drawn by dropout inside this context (Gal and Ghahramani 2016).

    What is dropped are inputs of LoRA adapters, and of reward heads the pooled state: each input with probability p,
    the others are divided by 1 - p. It is drawn once, when the context is entered, for all responses and tokens: so
    scores in one context are those of one network, whatever the batches, and can be compared with each other. Neither
    the dropout nor the mode that the model was trained in matters. Afterwards everything is as before.

    Args:
        model: A `RewardModel`, a `RewardEnsemble`, or a module that contains reward models.
        p: Probability, at least 0 and below 1.
        generator: Draws what is dropped, on the CPU. Default: a new one, of seed 0.

    Raises:
        UserError: p is out of range, or there is nothing to drop.

    Example:
        >>> from hf_align import RewardModel
        >>> from hf_align.models.uncertainty import mc_dropout
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> score = lambda: model.score(["The film was"], [" a joy."])
        >>> before = score()
        >>> with mc_dropout(model):
        ...     dropped = score()
        >>> dropped != before, score() == before
        (True, True)
    """
    if not 0 <= p < 1:
        raise UserError(f"p is {p}; the probability of dropout is at least 0 and below 1.")
    generator = generator or torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                for lora_a in module.lora_A.values():
                    if isinstance(lora_a, nn.Linear):
                        drop = _Drop(lora_a.in_features, p, generator)
                        stack.callback(lora_a.register_forward_pre_hook(drop.hook).remove)
        heads = {id(module.head): module for module in model.modules() if isinstance(module, RewardModel)}
        if not heads:
            raise UserError("mc_dropout drops inputs of reward heads and their adapters; give a RewardModel.")
        for reward in heads.values():
            size = linear_layers(reward_part(reward.head))[0].in_features
            stack.enter_context(forward_replaced(reward.head, _Drop(size, p, generator).before(reward.head.forward)))
        yield


class _Drop:
    """Multiplies inputs `[..., size]` by a mask `[size]`, drawn once."""

    def __init__(self, size: int, p: float, generator: torch.Generator):
        self.mask = (torch.rand(size, generator=generator) >= p) / (1 - p)

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs * self.mask.to(inputs)

    def hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self(args[0]), *args[1:])

    def before(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda inputs: forward(self(inputs))


def dropout_scores(
    model: nn.Module,
    score: Callable[[], Sequence[float] | Tensor],
    *,
    passes: int = PASSES,
    p: float = DROPOUT,
    seed: int = 0,
) -> Tensor:
    """Scores of T networks drawn by dropout; `deviation` of them is the uncertainty.

    Args:
        model: As in `mc_dropout`.
        score: Scores R responses with the model, always the same ones.
        passes: T.
        p: Probability of dropout.
        seed: Draws what is dropped; nothing else does.

    Returns:
        `[T, R]` float32.

    Example:
        >>> from hf_align import RewardModel
        >>> from hf_align.models.uncertainty import deviation, dropout_scores
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> scores = dropout_scores(model, lambda: model.score(["The film was"], [" a joy."]))
        >>> scores.shape, deviation(scores).shape
        (torch.Size([10, 1]), torch.Size([1]))
    """
    if passes < 2:
        raise UserError(f"passes is {passes}; a deviation takes at least 2.")
    generator = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(passes):
        with mc_dropout(model, p, generator=generator):
            results.append(torch.as_tensor(score(), dtype=torch.float32))
    return torch.stack(results)
