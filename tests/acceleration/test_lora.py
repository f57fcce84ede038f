"""LoRA in one operation against peft's own forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hf_align.acceleration import lora
from hf_align.acceleration.lora import fuse_lora
from hf_align.models.adapters import active_adapter
from tests.acceleration.operations import operations


class Net(nn.Module):
    """Two projections of the same hidden states, and one of their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 32), nn.Linear(24, 32, bias=False)
        self.out = nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.first(x)) * self.second(x))


def adapted(*, fused: bool, **config: Any) -> PeftModel:
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["first", "second", "out"], "init_lora_weights": False}
    model = get_peft_model(Net(), LoraConfig(**{**options, **config}))  # type: ignore[arg-type]
    if fused:
        fuse_lora(model)
    return model


def run(model: nn.Module, autocast: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The output, and the gradients of its square by parameter and input."""
    model.zero_grad()
    torch.manual_seed(1)
    x = torch.randn(3, 5, 24).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(x)
    out.to(dtype).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"out": out.detach(), "x": x.grad, **gradients}  # type: ignore[dict-item]


FUSED = "_LoraLinear"
"""The operation in which a fused layer runs."""


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}])
def test_outputs_and_gradients_are_pefts(config: dict[str, Any]):
    with operations() as calls:
        ours, theirs = (run(adapted(fused=fused, **config).double(), dtype=torch.float64) for fused in (True, False))
    assert calls[FUSED] == 3 and ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-10, rtol=1e-10)


def test_in_bfloat16_it_is_no_further_from_float32_than_peft():
    exact = run(adapted(fused=False))
    errors = []
    for fused in (True, False):
        with operations() as calls:
            actual = run(adapted(fused=fused), autocast=True)
        assert calls[FUSED] == (3 if fused else 0)
        assert all(actual[name].dtype == exact[name].dtype for name in exact if name != "out")
        errors.append(sum(float((actual[name].float() - exact[name]).square().sum()) for name in exact))
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize("autocast", [False, True])
def test_a_new_adapter_changes_nothing_to_the_bit(autocast: bool):
    model = adapted(fused=True, init_lora_weights=True)
    with_adapter = run(model, autocast)["out"]
    with active_adapter(model, None):
        without = run(model, autocast)["out"]
    assert torch.equal(with_adapter, without)
    base = adapted(fused=False, init_lora_weights=True).get_base_model()
    assert torch.equal(without, run(base, autocast)["out"]), "and nothing to what the base alone computes"


def test_layers_keep_one_cast_of_a_shared_input_and_the_inner_products():
    inner: Any = adapted(fused=True).get_base_model()
    kept: dict[int, Tensor] = {}  # kept alive, or another one would get its storage

    def pack(x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x
        return x

    x = torch.randn(500, 24, requires_grad=True)
    with saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        outputs = inner.first(x), inner.second(x)
    assert all(out.requires_grad for out in outputs)
    assert sum(x.untyped_storage().nbytes() for x in kept.values()) == 2 * 500 * (24 + 4 + 4)


def hooked(model: PeftModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *args: None)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda model: model.merge_adapter(), id="merged"),
        pytest.param(hooked, id="hooks on the base layers"),
        pytest.param(lambda model: model.get_base_model().requires_grad_(True), id="trained base"),
    ],
)
def test_what_it_cant_do_goes_pefts_way(prepare: Callable[[PeftModel], Any]):
    ours, theirs = adapted(fused=True), adapted(fused=False)
    prepare(ours)
    prepare(theirs)
    with operations() as calls:
        actual, expected = run(ours), run(theirs)
    assert not calls[FUSED]
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in actual)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}])
def test_variants_go_pefts_way(config: dict[str, Any]):
    with operations() as calls:
        run(adapted(fused=True, **config).train())
    assert not calls[FUSED]


def test_inputs_changed_in_place_are_cast_again():
    model = adapted(fused=True)
    x = torch.randn(2, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(x)
        x.mul_(2)
        again = model(x)
        assert torch.equal(again, model(x.clone()))


def test_fused_for_a_while_and_then_as_before():
    model = adapted(fused=False)

    def fused_layers() -> int:
        with operations() as calls:
            run(model)
        return calls[FUSED]

    undo = fuse_lora(model)
    assert fused_layers() == 3
    undo()
    assert fused_layers() == 0
    undo_first, undo_second = fuse_lora(model), fuse_lora(model)
    undo_first()
    assert fused_layers() == 3, "another user still needs it"
    undo_second()
    assert fused_layers() == 0 and not any("forward" in vars(module) for module in model.modules())


def test_the_installed_peft_is_asked_whether_it_computes_the_same(monkeypatch: pytest.MonkeyPatch):
    lora.computes_as_peft.cache_clear()
    state = torch.get_rng_state()
    assert lora.computes_as_peft() and torch.equal(torch.get_rng_state(), state)
    original = LoraLinear.forward
    monkeypatch.setattr(LoraLinear, "forward", lambda self, x: original(self, x) + 0.01 * x.mean())
    lora.computes_as_peft.cache_clear()
    try:
        assert not lora.computes_as_peft()
    finally:
        lora.computes_as_peft.cache_clear()


def test_without_gradients_the_output_is_the_same_to_the_bit():
    model = adapted(fused=True)
    x = torch.randn(5, 7, 24)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            with torch.no_grad():
                plain = model(x)
            assert torch.equal(plain, model(x))
