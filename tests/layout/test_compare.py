"""Comparison of layouts: every output counts by itself, however many others agree."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_align.layout.branches import Branches
from hf_align.layout.compare import compare_layouts

DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9, 1], [[10, 4], [11, 12]])]
CPU = torch.device("cpu")


def sums(branches: Branches) -> Tensor:
    """Sum of each response's tokens."""
    return branches.sum_by_branch(branches.input_ids.flatten()[branches.response_positions()].float())


def outputs(branches: Branches, wrong: Tensor | float = 0.0) -> Tensor:
    """64 outputs of each response, the last of them off by `wrong`."""
    columns = sums(branches)[:, None].repeat(1, 64)
    columns[:, -1] += wrong
    return columns


def test_one_wrong_output_of_many_is_the_difference():
    for layout in ("plain", "branch"):

        def numbers(branches: Branches) -> Tensor:
            alone = len(branches.last) == 1
            of_layout = not alone and (branches.separate == (layout == "plain"))  # noqa: B023
            return outputs(branches, 0.5 if of_layout else 0.0)

        differences = compare_layouts(numbers, DOCUMENTS, CPU)
        assert (differences.plain.item(), differences.branch.item()) == (
            (0.5, 0.0) if layout == "plain" else (0.0, 0.5)
        )


def test_one_output_that_sees_other_responses_is_a_leak():
    def numbers(branches: Branches) -> Tensor:
        if branches.separate:
            return outputs(branches)
        doc = branches.doc_ids.flatten()[branches.last]
        others = torch.zeros(2).index_add(0, doc, sums(branches))[doc]
        return outputs(branches, others * 1e-3)

    assert compare_layouts(numbers, DOCUMENTS, CPU).branch.isinf()
    assert compare_layouts(outputs, DOCUMENTS, CPU).branch == 0
