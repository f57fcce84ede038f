"""Losses of a reward model's auxiliary tasks. Rows without a label (NaN) count nothing."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hf_align.errors import UserError
from hf_align.losses.inputs import prepare

TaskKind = Literal["regression", "binary"] | int  # an int: the number of classes


def task_loss(outputs: Tensor, labels: Tensor, kind: TaskKind) -> Tensor:
    """Loss of one task's head, per row.

    - "regression": squared error, `(output - label)^2`.
    - "binary": cross-entropy of sigmoid(output) with the label, a probability (0 and 1 where it is a class).
    - a number n: cross-entropy of softmax(outputs) over n classes.

    Args:
        outputs: `[S]`; `[S, n]` for n classes.
        labels: `[S]` floats: the target, the probability, or the class from 0. NaN: no label.
        kind: What the task predicts.

    Returns:
        `[S]` losses, 0 without a label: leave these rows out of a mean (`~labels.isnan()`).

    Raises:
        UserError: An unknown kind, or a label that the kind doesn't allow.
        ValueError: Shapes differ.
    """
    classes = kind if isinstance(kind, int) else 0
    if kind not in ("regression", "binary") and classes < 2:
        raise UserError(f'A task must be "regression", "binary" or a number of classes from 2 on, got {kind!r}.')
    expected = (*labels.shape, classes) if classes else tuple(labels.shape)
    if labels.dim() != 1 or tuple(outputs.shape) != expected:
        raise ValueError(
            f"outputs must be {'[S, ' + str(classes) + ']' if classes else '[S]'} and labels [S], got "
            f"{list(outputs.shape)} and {list(labels.shape)}."
        )
    (outputs,), (labels,) = prepare(outputs=outputs), prepare(labels=labels)
    counts = ~labels.isnan()
    labels = labels.masked_fill(~counts, 0.0)
    outputs = outputs.masked_fill(~(counts[:, None] if classes else counts), 0.0)
    _check_labels(labels, kind)
    if kind == "regression":
        losses = (outputs - labels).square()
    elif kind == "binary":
        losses = binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    else:
        losses = cross_entropy(outputs, labels.long(), reduction="none")
    return torch.where(counts, losses, 0.0)


def _check_labels(labels: Tensor, kind: TaskKind) -> None:
    if kind == "regression":
        allowed, meaning = labels.isfinite(), "a finite number"
    elif kind == "binary":
        allowed, meaning = (labels >= 0) & (labels <= 1), "a probability from 0 to 1"
    else:
        allowed, meaning = (labels >= 0) & (labels < kind) & (labels == labels.floor()), f"a class from 0 to {kind - 1}"
    bad = (~allowed).nonzero()
    if bad.numel() > 0:
        raise UserError(
            f"A label of this task must be {meaning}, or NaN for none, but row {int(bad[0])} of the batch has "
            f"{labels[bad[0]].item()}."
        )
