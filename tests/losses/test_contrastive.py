"""The supervised contrastive loss compared with a double loop and rows computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses import contrastive_loss
from hf_align.losses.contrastive import is_anchor


def by_loops(embeddings: Tensor, labels: list[int], temperature: float) -> list[float]:
    vectors = [(row / row.norm()).tolist() for row in embeddings]
    rows = [i for i, label in enumerate(labels) if label >= 0]

    def similarity(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) / temperature)

    losses = []
    for i, label in enumerate(labels):
        positives = [j for j in rows if j != i and labels[j] == label]
        everything = sum(similarity(i, j) for j in rows if j != i)
        terms = [-math.log(similarity(i, j) / everything) for j in positives]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return losses


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_a_double_loop(temperature: float) -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(9, 4, dtype=torch.float64)
    labels = [0, 1, 0, 7, 1, 0, -1, 2, -1]  # 7 and 2 have no positive, -1 no label
    losses = contrastive_loss(embeddings, torch.tensor(labels), temperature=temperature)
    assert losses.tolist() == pytest.approx(by_loops(embeddings, labels, temperature))
    assert is_anchor(torch.tensor(labels)).tolist() == [label in (0, 1) for label in labels]
    assert losses.ne(0).tolist() == is_anchor(torch.tensor(labels)).tolist()


def test_by_hand_the_anchor_is_never_its_own_positive() -> None:
    # Two opposite rows of one label and one at a right angle: each of the two sees -1 (its positive) and 0.
    embeddings = torch.tensor([[2.0, 0.0], [-5.0, 0.0], [0.0, 1.0]])
    losses = contrastive_loss(embeddings, torch.tensor([0, 0, 1]), temperature=1.0)
    assert losses.tolist() == pytest.approx([math.log(1 + math.e), math.log(1 + math.e), 0.0], abs=1e-6)
    alone = contrastive_loss(embeddings, torch.tensor([0, 0, -1]), temperature=1.0)
    assert alone.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)  # nothing to be told from


def test_gradients_equal_numeric_ones_and_rows_without_a_label_get_none() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, -1, 3])
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, labels, temperature=0.5), (embeddings,))
    (gradient,) = torch.autograd.grad(contrastive_loss(embeddings, labels).sum(), embeddings)
    assert (gradient[4] == 0).all()
    assert (gradient[5] != 0).any()  # no anchor, but a negative of the others


def test_extreme_sixteen_bit_and_few_rows_stay_finite() -> None:
    embeddings = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e-4, 0.0]], requires_grad=True)
    losses = contrastive_loss(embeddings, torch.tensor([0, 0, 1]), temperature=1e-3)
    assert losses[0].item() == pytest.approx(1000 * (1 + math.sqrt(0.5)), rel=1e-4)
    assert torch.autograd.grad(losses.sum(), embeddings)[0].isfinite().all()
    assert contrastive_loss(embeddings.bfloat16(), torch.tensor([0, 0, 1])).dtype == torch.float32
    for labels in ([0], [-1], []):
        rows = torch.ones(len(labels), 2, requires_grad=True)
        none = contrastive_loss(rows, torch.tensor(labels, dtype=torch.long))
        assert none.tolist() == [0.0] * len(labels)
        assert torch.autograd.grad(none.sum(), rows)[0].isfinite().all()


def test_unusable_arguments_are_refused() -> None:
    rows = torch.ones(2, 3)
    with pytest.raises(UserError, match="temperature"):
        contrastive_loss(rows, torch.tensor([0, 0]), temperature=0.0)
    with pytest.raises(UserError, match="whole numbers"):
        contrastive_loss(rows, torch.tensor([0.0, 0.0]))
    with pytest.raises(ValueError, match="labels"):
        contrastive_loss(rows, torch.tensor([0]))
