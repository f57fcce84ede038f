"""Supervised contrastive loss on embeddings (Khosla et al. 2020, eq. 2, the sum outside of the logarithm).

Notation: S rows, e dimensions.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_align.errors import UserError
from hf_align.losses.inputs import prepare


def contrastive_loss(embeddings: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Pull rows of one label together and push the others away, per row as the anchor.

    With s the cosine similarity divided by the temperature, P(i) the other rows of i's label and A(i) all other rows:
    `-mean over p in P(i) of (s_ip - logsumexp over a in A(i) of s_ia)`. The anchor is in neither, so a row is never its
    own positive.

    Args:
        embeddings: `[S, e]`, of any length: they are normalised here.
        labels: `[S]` integers; rows of one number are positives of each other. -1: no label, and the row has no part in
            the loss, not as a negative either.
        temperature: > 0.

    Returns:
        `[S]` losses, 0 for rows that aren't anchors (`is_anchor`): leave them out of a mean.

    Raises:
        UserError: temperature is not positive, or labels aren't whole numbers.
        ValueError: Not one label for each embedding.
    """
    if not temperature > 0:
        raise UserError(f"temperature must be greater than 0, got {temperature}; 0.1 is a usual value.")
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings must be [S, e] and labels [S], got {list(embeddings.shape)} and {list(labels.shape)}."
        )
    anchors = is_anchor(labels)
    (vectors,) = prepare(embeddings=embeddings)
    vectors = normalize(vectors, dim=-1)
    similarity = vectors @ vectors.T / temperature  # [S, S]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & ~itself & (labels >= 0)
    lowest = torch.finfo(similarity.dtype).min  # in place of -inf, which has NaN gradients where no other row is left
    log_all = torch.where((labels >= 0) & ~itself, similarity, lowest).logsumexp(-1, keepdim=True)
    log_probs = torch.where(positive, similarity - log_all, 0.0)
    return torch.where(anchors, -log_probs.sum(-1) / positive.sum(-1).clamp(min=1), 0.0)


def is_anchor(labels: Tensor) -> Tensor:
    """Whether each row has a positive, another row of its label: `[S]` integers -> `[S]` booleans.

    Raises:
        UserError: Labels aren't whole numbers.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise UserError(f"labels must be whole numbers (an integer tensor), got {labels.dtype}.")
    return (labels >= 0) & ((labels[:, None] == labels).sum(-1) > 1)
