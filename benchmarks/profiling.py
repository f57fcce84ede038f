"""A step's time by group of torch.profiler's operators."""

from __future__ import annotations

import re
from collections.abc import Mapping

GROUPS: dict[str, str] = {
    "attention": "attention",
    "matrix products": "mm addmm bmm baddbmm linear matmul dot mv",
    "optimizer": "adamw adam optimizer foreach",
    "casts and copies": "copy to contiguous clone cat stack",
    "softmax and log-probs": "softmax logsumexp exp log gather multinomial sort topk cumsum",
    "norms and activations": "mul add sub div pow mean rsqrt silu sigmoid neg sum addcmul norm cos sin tanh",
    "indexing": "index embedding scatter masked where nonzero arange slice select",
    "memory": "empty zeros zero fill resize ones full set",
}
"""Groups of operators by the words in their names; the first match counts."""
OTHER, OUTSIDE = "other operators", "outside operators (Python, autograd's engine)"


def group_of(operator: str) -> str:
    """The group an operator belongs to."""
    words = set(re.split(r"[^a-z]+", operator.split("::")[-1].lower()))
    return next((group for group, marks in GROUPS.items() if words & set(marks.split())), OTHER)


def breakdown(operators: Mapping[str, float], wall: float) -> dict[str, float]:
    """Seconds of each group, largest first.

    Args:
        operators: Self CPU seconds by operator, from `torch.profiler`.
        wall: Seconds of the whole step.
    """
    groups: dict[str, float] = {}
    for operator, seconds in operators.items():
        group = group_of(operator)
        groups[group] = groups.get(group, 0.0) + seconds
    groups[OUTSIDE] = max(0.0, wall - sum(groups.values()))
    return dict(sorted(groups.items(), key=lambda item: -item[1]))
