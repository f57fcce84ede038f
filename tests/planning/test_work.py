"""Kernels of operations, and of an optimizer step, against what can be counted by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from hf_align.planning.trace import Trace, new_fakes
from hf_align.planning.work import Attention, Pass, Product, Work, step_work


def counted(function: Any, *sizes: tuple[int, ...], **settings: Any) -> dict[Any, float]:
    mode = new_fakes()
    with mode:
        tensors = [torch.empty(size, **settings) for size in sizes]
    with Trace(mode, tensors) as trace:
        function(*tensors)
    return dict(trace.measured().work.counts)


def test_products_know_their_shapes_and_their_gradients_too() -> None:
    def loss(x: torch.Tensor, weight: torch.Tensor) -> None:
        functional.linear(x, weight).sum().backward()

    counts = counted(loss, (10, 20), (30, 20), requires_grad=True)
    products = {
        (kernel.m, kernel.k, kernel.n): count for kernel, count in counts.items() if isinstance(kernel, Product)
    }
    assert products == {(10, 20, 30): 1, (10, 30, 20): 1, (30, 10, 20): 1}
    product = next(kernel for kernel in counts if isinstance(kernel, Product) and kernel.n == 30)
    assert product.operations == 2 * 10 * 20 * 30
    assert product.bytes == 4 * (10 * 20 + 20 * 30 + 10 * 30)
    assert product.transposed == (False, True)


def test_views_and_new_memory_are_no_work_and_passes_count_what_they_touch() -> None:
    def work(x: torch.Tensor) -> None:
        torch.empty_like(x.view(50, 2).T)
        _ = x.expand(7, 100) + 1  # reads the 100 numbers once

    assert counted(work, (1, 100)) == {Pass(4.0 * (100 + 700)): 1}
    table = counted(lambda table: functional.embedding(torch.tensor([3, 5]), table), (1000, 8))
    assert table == {Pass(2.0 * 2 * 8 * 4): 1}, "two rows are read and written, not the table"


def test_fused_attention_is_one_kernel() -> None:
    size = (2, 3, 16, 8)
    counts = counted(functional.scaled_dot_product_attention, size, size, size)
    (kernel,) = (kernel for kernel in counts if isinstance(kernel, Attention))
    assert kernel.operations == 2 * 2 * (2 * 3 * 16 * 16 * 8)
    assert kernel._replace(backward=True).operations == 2.5 * kernel.operations


def test_experts_multiply_by_their_own_weights() -> None:
    """8 experts, 2 of them for each of 12 tokens: 24 rows, 3 each."""

    def work(rows: torch.Tensor, weights: torch.Tensor) -> None:
        ends = (torch.arange(8, dtype=torch.int32) + 1) * 3
        out = torch._grouped_mm(rows, weights, offs=ends)  # type: ignore[attr-defined]
        out.sum().backward()

    counts = counted(work, (24, 16), (8, 16, 32), requires_grad=True)
    products = {kernel[:4] for kernel in counts if isinstance(kernel, Product)}
    assert products == {(8, 3, 16, 32), (8, 3, 32, 16), (8, 16, 3, 32)}
    mode = new_fakes()
    with mode:
        scores = torch.empty(12, 8)
    with Trace(mode, [scores]):
        chosen = scores.topk(2).indices
    assert chosen.flatten().bincount().tolist() == [3] * 8 and (chosen[:, 0] != chosen[:, 1]).all()


def test_work_is_linear() -> None:
    one, two = Work({Pass(8.0): 1, Pass(16.0): 2}), Work({Pass(8.0): 3})
    assert (one + 2 * two).counts == {Pass(8.0): 7, Pass(16.0): 2}
    assert (one - two).without_negative().counts == {Pass(16.0): 2}
    assert one.calls == 3


NAMES = {
    name: Work({Pass(float(number)): 1}) for number, name in enumerate(("update", "forward", "prompts", "token"), 1)
}


def part(works: dict[str, Work], name: str) -> dict[str, float]:
    names = {kernel: key for key, work in NAMES.items() for kernel in work.counts}
    return {names[kernel]: count for kernel, count in works[name].counts.items()}


def test_a_dpo_step_has_an_update_and_a_reference_pass_for_each_micro_batch() -> None:
    args = SimpleNamespace(gradient_accumulation_steps=4, precompute_ref_log_probs=False)
    works = step_work(args, NAMES, reference=True)
    assert part(works, "update") == {"update": 4} and part(works, "reference") == {"forward": 4}
    args.precompute_ref_log_probs = True
    assert set(step_work(args, NAMES, reference=True)) == {"update"}
    assert set(step_work(args, NAMES, reference=False)) == {"update"}


def test_a_ppo_step_has_its_share_of_a_rollout() -> None:
    args = SimpleNamespace(
        gradient_accumulation_steps=2,
        num_mini_batches=3,
        steps_per_rollout=12,
        responses_per_rollout=48,
        max_new_tokens=25,
    )
    works = step_work(args, {**NAMES, "rewards": Work()}, reference=True)
    assert part(works, "rollout") == pytest.approx({"prompts": 1 / 12, "token": 24 / 12})
    assert part(works, "scoring") == pytest.approx({"forward": (6 + 6 - 1) / 12}), "the first update takes one over"
    assert part(works, "update") == {"update": 2}
