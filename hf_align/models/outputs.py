"""The output of a sequence classifier that is the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_align.errors import UserError

MOST_NAMES = 12
"""Labels listed in a message."""


@dataclass(frozen=True)
class Output:
    """One output of a classifier.

    Attributes:
        index: Its column.
        label: Its name in the model's config.
        count: Outputs of the model.
        log_odds: Whether the outputs are a softmax over classes, so that only differences mean something. The reward is
            then log P(label) - log P(any other).
    """

    index: int
    label: str
    count: int
    log_odds: bool = False

    def rewards(self, logits: Tensor) -> Tensor:
        """Rewards `[R]` of logits `[R, count]`."""
        column = logits[:, self.index]
        if not self.log_odds:
            return column
        others = [n for n in range(self.count) if n != self.index]
        return column - logits[:, others].logsumexp(-1)

    def __str__(self) -> str:
        if self.count == 1:
            return "its only output"
        kind = "log odds against the others" if self.log_odds else "as it is"
        return f"{self.label} (output {self.index} in 0 to {self.count - 1}, {kind})"


def choose_output(config: Any, chosen: str | int | None, name: str) -> Output:
    """Find the output that is the reward.

    Args:
        config: The classifier's config.
        chosen: Index or label; None for a model with one output.
        name: The model, for messages.

    Raises:
        UserError: There are several and none is chosen, or there is no such output.
    """
    count: int = config.num_labels
    labels = [str((config.id2label or {}).get(n, n)) for n in range(count)]
    names = ", ".join(f"{n}: {label}" for n, label in enumerate(labels[:MOST_NAMES]))
    names += f", ... {count - 1}: {labels[-1]}" if count > MOST_NAMES else ""
    if chosen is None and count > 1:
        raise UserError(f"{name} has {count} outputs ({names}); choose the one that is the reward by output=NAME.")
    index = 0 if chosen is None else _index(chosen, labels)
    if index is None or not 0 <= index < count:
        raise UserError(f"output is {chosen!r}, and {name} has {names}; give one of these numbers or names.")
    softmax = count > 1 and config.problem_type == "single_label_classification"
    return Output(index, labels[index], count, softmax)


def _index(chosen: str | int, labels: list[str]) -> int | None:
    folded = [label.casefold() for label in labels]
    if str(chosen).casefold() in folded:
        return folded.index(str(chosen).casefold())
    return int(chosen) if str(chosen).isdecimal() else None
