"""A model's scaling and capping of its LM head's output, measured on the model itself.

Only the positions that matter go through the LM head, outside the model's own forward, which may also change logits:
divide them (Granite), multiply them (Cohere, Falcon-H1), cap them softly (Gemma 2, RecurrentGemma). Each family's
config has other names for that, so the forward is run once instead, with numbers in place of logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.attention_choice import without_flex
from hf_align.models.wrapper import BranchModel, forward_replaced, unwrapped

SMALL, LARGE = 1e-3, 1e6
"""Test logits near zero, where a cap does nothing, and far beyond any cap."""
BETWEEN = (-40.0, -3.0, -0.5, 0.5, 3.0, 40.0)
"""Logits at which the measured form must equal the model's."""


@dataclass(frozen=True)
class LogitTransform:
    """Transform of a head's output x: `softcap * tanh(scale * x / softcap)`, or `scale * x` without cap."""

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Transform logits."""
        logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()

    def options(self) -> dict[str, float]:
        """The transform as options of `response_logps`."""
        scale = {} if self.scale == 1.0 else {"logit_scale": self.scale}
        return scale if self.softcap is None else {**scale, "softcap": self.softcap}


_MEASURED: WeakKeyDictionary[nn.Module, LogitTransform] = WeakKeyDictionary()


def logit_transform(wrapper: BranchModel) -> LogitTransform:
    """The transform of a wrapped language model; measured at the first call, in a pass over two tokens.

    Raises:
        UserError: The transform has another form, so log-probs could only be computed from the model's whole logits.
    """
    model = unwrapped(wrapper)
    if model not in _MEASURED:
        points = torch.tensor([SMALL, LARGE, *BETWEEN])
        _MEASURED[model] = _fit(points, _transformed(wrapper, points), type(model).__name__)
    return _MEASURED[model]


@torch.no_grad()
def _transformed(wrapper: BranchModel, points: Tensor) -> Tensor:
    """The model's transform of the logits `[P]`: `[P]` float32 on the CPU."""
    head: Any = unwrapped(wrapper).get_output_embeddings()
    two_tokens = build_branches([([0], [[0]])], pad_token_id=0).as_separate().to(next(head.parameters()).device)

    def logits_of(hidden: Tensor) -> Tensor:
        return points.to(hidden.device).expand(*hidden.shape[:2], -1).clone()

    with evaluation_mode(wrapper), without_flex(wrapper), forward_replaced(head, logits_of):
        return wrapper.inner_forward(two_tokens).logits[0, -1].float().cpu()


def _fit(points: Tensor, values: Tensor, name: str) -> LogitTransform:
    small, large = (values[:2] / points[:2]).tolist()
    scale = 1.0 if abs(small - 1) < 1e-5 else small
    is_capped = abs(large) < 0.5 * abs(scale)
    transform = LogitTransform(scale, large * LARGE if is_capped else None)
    between = slice(-len(BETWEEN), None)  # small or large values may exceed the range of 16 bits
    if not torch.allclose(transform(points[between]), values[between], rtol=1e-2):
        raise UserError(
            f"{name} changes its head's logits by more than a factor and a soft cap, so log-probs can't be "
            "computed from the head alone; use another model."
        )
    return transform
