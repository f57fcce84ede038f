"""Chunked log-probs compared with autograd on the full matrix, and their memory."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from hf_align.losses.logprobs import (
    CHUNK_BUDGET,
    DEFAULT_CHUNK_SIZE,
    chunk_rows,
    entropy_from_logps,
    response_logps,
    response_logps_from_head,
)

N, D, V = 37, 16, 101
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "scaled": {"logit_scale": 0.25},
    "softcapped": {"softcap": 3.0},
    "all": {"temperature": 1.3, "logit_scale": 2.0, "softcap": 5.0},
}


def inputs(dtype: torch.dtype = torch.float32, n: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=gen).to(dtype) for shape in ((n, D), (V, D), (V,)))
    targets = torch.randint(V, (n,), generator=gen)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


def on_full_matrix(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias).float() * logit_scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    dist = torch.distributions.Categorical(logits=logits / temperature)
    return dist.log_prob(targets), dist.entropy()


def upstream(n: int = N) -> tuple[Tensor, Tensor]:
    return torch.linspace(-2.0, 3.0, n), torch.linspace(1.0, -0.5, n)


@pytest.mark.parametrize("chunk_size", [8, N, 1000])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_values_and_gradients_equal_autograd_on_the_full_matrix(head: dict[str, Any], chunk_size: int) -> None:
    hidden, weight, bias, targets = inputs()
    expected, _ = on_full_matrix(hidden, weight, targets, bias=bias, **head)
    actual = response_logps(hidden, weight, targets, bias=bias, chunk_size=chunk_size, **head)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    into = (hidden, weight, bias)
    expected_grads = torch.autograd.grad(expected @ upstream()[0], into)
    actual_grads = torch.autograd.grad(actual @ upstream()[0], into)
    torch.testing.assert_close(actual_grads, expected_grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_frozen_head_gives_hidden_the_same_gradient(head: dict[str, Any]) -> None:
    hidden, weight, bias, targets = inputs()
    expected, _ = on_full_matrix(hidden, weight, targets, bias=bias, **head)
    (expected_grad,) = torch.autograd.grad(expected @ upstream()[0], hidden)
    frozen = {"bias": bias.detach(), "chunk_size": 8, **head}
    actual, entropy = response_logps(hidden, weight.detach(), targets, return_entropy=True, **frozen)
    assert not entropy.requires_grad
    (actual_grad,) = torch.autograd.grad(actual @ upstream()[0], hidden)
    torch.testing.assert_close(actual_grad, expected_grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_what_requires_a_gradient_gets_one(trained: tuple[int, ...]) -> None:
    *tensors, targets = inputs()
    for index, tensor in enumerate(tensors):
        tensor.requires_grad_(index in trained)
    hidden, weight, bias = tensors
    into = [tensors[index] for index in trained]
    expected, _ = on_full_matrix(hidden, weight, targets, bias=bias)
    expected_grads = torch.autograd.grad(expected @ upstream()[0], into)
    response_logps(hidden, weight, targets, bias=bias, chunk_size=8).backward(upstream()[0])
    torch.testing.assert_close(tuple(t.grad for t in into), expected_grads, atol=1e-5, rtol=1e-5)
    assert all(tensor.grad is None for index, tensor in enumerate(tensors) if index not in trained)


@pytest.mark.parametrize("weight_trained", [True, False])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_entropy_and_its_gradient(head: dict[str, Any], weight_trained: bool) -> None:
    hidden, weight, bias, targets = inputs()
    into = (hidden, weight, bias) if weight_trained else (hidden,)
    expected = on_full_matrix(hidden, weight, targets, bias=bias, **head)
    expected_grads = torch.autograd.grad(expected[0] @ upstream()[0] + expected[1] @ upstream()[1], into)
    if not weight_trained:
        weight, bias = weight.detach(), bias.detach()
    actual = response_logps(
        hidden, weight, targets, bias=bias, chunk_size=8, return_entropy=True, entropy_grad=True, **head
    )
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    (actual[0] @ upstream()[0] + actual[1] @ upstream()[1]).backward()
    torch.testing.assert_close(tuple(t.grad for t in into), expected_grads, atol=2e-5, rtol=1e-5)


def test_double_precision_passes_gradcheck() -> None:
    hidden, weight, bias, targets = inputs(torch.float64, n=5)
    hidden, weight, bias = (t.detach()[..., :7].requires_grad_() for t in (hidden, weight[:7], bias))
    targets = targets % 7

    def function(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return response_logps(
            hidden, weight, targets, bias=bias, softcap=4.0, chunk_size=2, return_entropy=True, entropy_grad=True
        )

    assert torch.autograd.gradcheck(function, (hidden, weight, bias))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "16-bit tensors"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_products_keep_softmax_and_sums_in_fp32(dtype: torch.dtype, autocast: bool) -> None:
    hidden, weight, bias, targets = inputs(torch.float32 if autocast else dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        # As a model computes: 16-bit logits, then a log-softmax in fp32.
        logits = torch.nn.functional.linear(hidden, weight)
        assert logits.dtype == dtype
        expected = torch.log_softmax(logits.float() + bias.float(), -1).gather(-1, targets[:, None]).squeeze(-1)
        actual = response_logps(hidden, weight, targets, bias=bias, chunk_size=8)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    into = (hidden, weight, bias)
    expected_grads = torch.autograd.grad(expected @ upstream()[0], into)
    actual_grads = torch.autograd.grad(actual @ upstream()[0], into)
    step = torch.finfo(dtype).eps
    for got, want in zip(actual_grads, expected_grads, strict=True):
        assert got.dtype == want.dtype
        assert (got - want).norm() <= 2 * step * want.norm()


def test_weight_gradient_of_many_chunks_does_not_drown_in_sixteen_bits() -> None:
    # 1024 equal contributions, one a chunk: a bf16 running sum would stop growing after 256 of them.
    hidden = torch.ones(1024, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    response_logps(hidden, weight, torch.zeros(1024, dtype=torch.long), chunk_size=1).sum().backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [512.0, -512.0]


def test_a_bf16_head_on_fp32_hidden_states_keeps_each_gradients_dtype() -> None:
    hidden, weight, _, targets = inputs()
    weight = weight.detach().bfloat16().requires_grad_()
    response_logps(hidden, weight, targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("frozen", [True, False])
def test_no_tokens_is_an_empty_result_with_zero_gradients(frozen: bool) -> None:
    hidden, weight, _, targets = inputs(n=0)
    weight.requires_grad_(not frozen)
    logps, entropy = response_logps(hidden, weight, targets, return_entropy=True)
    assert logps.shape == entropy.shape == (0,)
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, D)
    assert frozen or (weight.grad is not None and not weight.grad.any())


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    logps, entropy = response_logps(hidden, weight, torch.tensor([0, 0]), return_entropy=True, entropy_grad=True)
    assert logps.tolist() == [0.0, -2e4]
    assert entropy.tolist() == [0.0, 0.0]
    (logps.sum() + entropy.sum()).backward()
    assert hidden.grad is not None
    assert hidden.grad.flatten().tolist() == [0.0, 2.0]


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_lora_on_the_head_trains_through_the_generic_path(options: dict[str, Any]) -> None:
    hidden, weight, _, targets = inputs()
    gen = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, D, generator=gen).requires_grad_(), torch.randn(V, 4, generator=gen).requires_grad_()
    weight = weight.detach()
    into = (hidden, down, up)
    expected = on_full_matrix(hidden, weight + up @ down, targets, **options)
    expected_grads = torch.autograd.grad(expected[0] @ upstream()[0] + expected[1] @ upstream()[1], into)

    def head(hidden: Tensor) -> Tensor:
        return hidden @ weight.t() + hidden @ down.t() @ up.t()

    actual = response_logps_from_head(hidden, head, targets, chunk_size=8, return_entropy=True, **options)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)
    actual_grads = torch.autograd.grad(actual[0] @ upstream()[0] + actual[1] @ upstream()[1], into)
    torch.testing.assert_close(actual_grads, expected_grads, atol=1e-4, rtol=1e-5)
    alone = response_logps_from_head(hidden, head, targets, chunk_size=8, **options)
    torch.testing.assert_close(alone, actual[0])


def test_generic_path_without_tokens_keeps_the_head_in_the_graph() -> None:
    hidden, weight, _, targets = inputs(n=0)
    logps = response_logps_from_head(hidden, lambda h: h @ weight.t(), targets)
    logps.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_entropy_from_logps_counts_ruled_out_tokens_as_nothing() -> None:
    logps = torch.log_softmax(torch.tensor([[0.0, 0.0, -torch.inf]]), -1)
    torch.testing.assert_close(entropy_from_logps(logps), torch.tensor([2.0]).log())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"softcap": 0.0}, "softcap"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"targets": torch.zeros(3, dtype=torch.long)}, "targets"),
        ({"lm_head_weight": torch.zeros(V, D + 1)}, "lm_head_weight"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    hidden, weight, _, targets = inputs()
    with pytest.raises(ValueError, match=message):
        response_logps(**{"hidden": hidden, "lm_head_weight": weight, "targets": targets, **change})


def allocations(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes: the most alive at once, and the largest single allocation, while `run` runs."""
    gc.collect()  # garbage of earlier tests would be freed, and counted, while it runs
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        run()
    events: list[tuple[int, int]] = []

    def collect(nodes: list[Any]) -> None:
        for node in nodes:
            if node.typed[0] == _EventType.Allocation:
                events.append((node.start_time_ns, node.typed[1].alloc_size))
            collect(node.children)

    assert prof.profiler is not None
    assert prof.profiler.kineto_results is not None
    collect(prof.profiler.kineto_results.experimental_event_tree())
    alive = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        alive += size
        peak = max(peak, alive)
    return peak, max(size for _, size in events)


CHUNK, WIDE, NARROW = 16, 20_000, 8
BUFFER = CHUNK * WIDE * 4
# Beside the buffers of [chunk, vocab]: numbers a token ([N] and [N, d]) and the gradient of the weight ([V, d]).
REST = 512 * (NARROW + 8) * 8 + 2 * WIDE * NARROW * 4


@pytest.mark.parametrize("weight_trained", [True, False])
@pytest.mark.parametrize(
    ("options", "buffers"),
    [
        ({}, 1),
        ({"return_entropy": True}, 2),
        ({"softcap": 5.0}, 2),
        ({"return_entropy": True, "entropy_grad": True}, 2),
    ],
)
def test_never_more_than_chunk_times_vocab(options: dict[str, Any], buffers: int, weight_trained: bool) -> None:
    weight = torch.randn(WIDE, NARROW, requires_grad=weight_trained)
    targets = torch.arange(512)
    peaks = []
    for n in (64, 512):
        hidden = torch.randn(n, NARROW, requires_grad=True)

        def run(hidden: Tensor = hidden, targets: Tensor = targets[:n]) -> None:
            result: Any = response_logps(hidden, weight, targets, chunk_size=CHUNK, **options)
            torch.stack([part.sum() for part in (result if isinstance(result, tuple) else (result,))]).sum().backward()

        peak, largest = allocations(run)
        assert largest <= BUFFER
        peaks.append(peak)
    assert peaks[1] <= buffers * BUFFER + REST
    assert peaks[1] - peaks[0] < BUFFER / 4  # eight times the tokens, no further matrix


def test_generic_path_is_bounded_and_the_measurement_sees_a_full_matrix() -> None:
    weight = torch.randn(WIDE, NARROW, requires_grad=True)
    hidden, targets = torch.randn(512, NARROW, requires_grad=True), torch.arange(512)

    def full() -> None:
        on_full_matrix(hidden, weight, targets)[0].sum().backward()

    def generic() -> None:
        result: Any = response_logps_from_head(hidden, lambda h: h @ weight.t(), targets, chunk_size=CHUNK)
        result.sum().backward()

    assert allocations(full)[1] >= 512 * WIDE * 4
    peak, largest = allocations(generic)
    assert largest <= BUFFER
    assert peak <= 3 * BUFFER + REST


def test_a_chunk_fits_the_budget_whatever_the_vocabulary():
    assert chunk_rows(1000) == DEFAULT_CHUNK_SIZE
    assert 4 * 256_000 * chunk_rows(256_000) <= CHUNK_BUDGET
    assert 3 * 4 * 152_000 * chunk_rows(152_000, copies=3) <= CHUNK_BUDGET
    assert chunk_rows(10**9) == 16, "a product over fewer rows is as slow as one over these"
