"""A batch of pairs, as losses on pairs get it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hf_align.losses.inputs import prepare


@dataclass(frozen=True)
class PreferenceBatch:
    """Log-probs and lengths of B pairs of a chosen and a rejected response, in float32 (float64 stays).

    Attributes:
        chosen_logps: `[B]` summed log-probs of the chosen responses under the policy, in nats, with gradient.
        rejected_logps: `[B]`, of the rejected ones.
        chosen_lengths: `[B]` tokens of the chosen responses.
        rejected_lengths: `[B]`, of the rejected ones.
        ref_chosen_logps: `[B]` under the reference; None if no loss of the run needs one.
        ref_rejected_logps: `[B]`, likewise.
        flat_token_logps: `[N]` log-probs of all response tokens under the policy, pair by pair, the chosen response's
            first; None if they aren't given.

    Raises:
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import PreferenceBatch
        >>> batch = PreferenceBatch(
        ...     chosen_logps=torch.tensor([-3.0]),
        ...     rejected_logps=torch.tensor([-4.0]),
        ...     chosen_lengths=torch.tensor([2]),
        ...     rejected_lengths=torch.tensor([1]),
        ...     flat_token_logps=torch.tensor([-1.0, -2.0, -4.0]),
        ... )
        >>> batch.token_logps
        tensor([[[-1., -2.],
                 [-4.,  0.]]])
        >>> batch.chosen_means
        tensor([-1.5000])
    """

    chosen_logps: Tensor
    rejected_logps: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    ref_chosen_logps: Tensor | None = None
    ref_rejected_logps: Tensor | None = None
    flat_token_logps: Tensor | None = None

    def __post_init__(self) -> None:
        names = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
        logps = {name: value for name in names if (value := getattr(self, name)) is not None}
        lengths = {"chosen_lengths": self.chosen_lengths, "rejected_lengths": self.rejected_lengths}
        for name, value in zip((*logps, *lengths), prepare(**logps, **lengths), strict=True):
            if name in logps:
                object.__setattr__(self, name, value)

    @property
    def chosen_means(self) -> Tensor:
        """`[B]` mean log-probs of the chosen responses' tokens."""
        return per_token(self.chosen_logps, self.chosen_lengths)

    @property
    def rejected_means(self) -> Tensor:
        """`[B]`, of the rejected responses' tokens."""
        return per_token(self.rejected_logps, self.rejected_lengths)

    @property
    def chosen_log_ratios(self) -> Tensor:
        """`[B]` log(policy / reference) of the chosen responses."""
        return self.chosen_logps - self._of_reference(self.ref_chosen_logps)

    @property
    def rejected_log_ratios(self) -> Tensor:
        """`[B]`, of the rejected responses."""
        return self.rejected_logps - self._of_reference(self.ref_rejected_logps)

    @cached_property
    def token_mask(self) -> Tensor:
        """`[B, 2, T]` bool: the tokens that exist, of the chosen and the rejected responses."""
        lengths = torch.stack([self.chosen_lengths, self.rejected_lengths], 1)  # [B, 2]
        longest = int(lengths.max()) if lengths.numel() else 0
        return torch.arange(longest, device=lengths.device) < lengths[..., None]

    @cached_property
    def token_logps(self) -> Tensor:
        """`[B, 2, T]` log-probs of the tokens of the chosen and the rejected responses, 0 where there is none."""
        if self.flat_token_logps is None:
            raise ValueError("This batch was made without flat_token_logps.")
        flat = self.flat_token_logps
        return flat.new_zeros(self.token_mask.shape).masked_scatter(self.token_mask, flat)

    def flipped(self) -> PreferenceBatch:
        """The same pairs with chosen and rejected swapped."""
        flat = self.flat_token_logps
        return replace(
            self,
            chosen_logps=self.rejected_logps,
            rejected_logps=self.chosen_logps,
            chosen_lengths=self.rejected_lengths,
            rejected_lengths=self.chosen_lengths,
            ref_chosen_logps=self.ref_rejected_logps,
            ref_rejected_logps=self.ref_chosen_logps,
            flat_token_logps=None if flat is None else self.token_logps.flip(1)[self.token_mask.flip(1)],
        )

    def _of_reference(self, logps: Tensor | None) -> Tensor:
        if logps is None:
            raise ValueError("This batch has no log-probs of a reference, and the loss needs them.")
        return logps


def per_token(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums over responses' tokens as means; an empty response has 0."""
    return values / lengths.clamp(min=1)
