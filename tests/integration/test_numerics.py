"""Every layout and way of keeping activations gives the results and gradients of plain transformers."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, cast

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import save_tiny

DOCUMENTS = [
    ([5, 6, 7, 8, 9, 10], [[20, 21, 258], [22, 23, 24, 25, 26]]),
    ([11], [[30, 31, 32, 258]]),
    ([15, 16], [[50, 51], [52], [53, 54, 55], [56, 258], [57, 58], [59], [60, 61, 62, 63, 258]]),
    ([12, 13, 14], [[40], [41, 42, 43, 258], [44, 45]]),
]
"""Prompts with 2, 1, 7 and 3 responses."""
LAYOUTS = ("branch", "packed", "separate")
RECOMPUTE = ("none", "selective", "full")
BOUND, GRADIENT_BOUND = 1e-4, 1e-3
"""Tolerances: nats, rewards and values in float32; shares of a gradient's norm."""
TEMPERATURE = 0.7


class Result(NamedTuple):
    """Results of a task to compare: numbers by name, and the gradients of a function of all of them."""

    numbers: dict[str, Tensor]
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def build(task: str, folder: str) -> nn.Module:
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    if task == "reward":
        model: nn.Module = RewardModel.from_backbone(folder, lora=lora)
    elif task == "dpo":
        model = PolicyModel(load_policy(folder, lora=lora))
    else:
        model = PolicyWithValueHead(load_policy(folder, lora=lora), value_model=cast(Any, task.removeprefix("ppo, ")))
        for parameter in model.value_parameters():
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def with_gradients(model: nn.Module, numbers: dict[str, Tensor]) -> Result:
    """The gradients of an uneven sum: a swapped or lost row must not cancel out."""
    model.zero_grad()
    loss = sum((x * torch.linspace(0.5, 2, x.numel())).sum() for x in numbers.values())
    cast(Tensor, loss).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return Result({name: x.detach() for name, x in numbers.items()}, gradients)


def ours(model: Any, task: str, branches: Branches) -> Result:
    options = {"temperature": TEMPERATURE} if task.startswith("ppo") else {}
    output = model(branches, **options)
    if isinstance(output, Tensor):
        output = {"rewards": output} if task == "reward" else {"logps": branches.sum_by_branch(output)}
    return with_gradients(model, output)


def plain(model: Any, task: str) -> Result:
    """The same by transformers' own forward on each prompt + response separately."""
    results: dict[str, list[Tensor]] = {}

    def note(name: str, value: Tensor) -> None:
        results.setdefault(name, []).append(value)

    for prompt, responses in DOCUMENTS:
        for response in responses:
            ids = torch.tensor([prompt + response])
            if task == "reward":
                note("rewards", model.model(input_ids=ids).logits[0])
                continue
            output = model.model(input_ids=ids, output_hidden_states=True)
            temperature = TEMPERATURE if task.startswith("ppo") else 1.0
            logps = (output.logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
            logps = logps[range(len(response)), response]
            note("logps", logps.sum()[None] if task == "dpo" else logps)
            if task.startswith("ppo"):
                note("values", model.value_head(value_states(model, ids, output)[len(prompt) - 1 : -1])[:, 0])
    return with_gradients(model, {name: torch.cat(values) for name, values in results.items()})


@cache
def expected_of(task: str, folder: str) -> Result:
    """Those of the model that `build` makes, the same each time."""
    return plain(build(task, folder), task)


def value_states(model: PolicyWithValueHead, ids: Tensor, output: Any) -> Tensor:
    """The value head's inputs, `[T, d]`."""
    if model.value_model == "shared":
        return output.hidden_states[-1][0]
    other = cast(Any, model.value_backbone).model
    return other(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]


def laid_out(layout: str) -> Branches:
    branches = build_branches(DOCUMENTS, pad_token_id=259, row_tokens=30 if layout == "packed" else None)
    return branches.as_separate() if layout == "separate" else branches


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", ["dpo", "reward", "ppo, shared", "ppo, separate"])
def test_layouts_and_recompute_give_the_numbers_of_plain_transformers(
    folder: str, task: str, layout: str, recompute: str
):
    model: Any = build(task, folder)
    expected = expected_of(task, folder)
    if recompute == "selective":
        enable_selective_recompute(model)
    elif recompute == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    actual = ours(model, task, laid_out(layout))
    assert actual.numbers.keys() == expected.numbers.keys()
    for name, numbers in expected.numbers.items():
        torch.testing.assert_close(actual.numbers[name], numbers, atol=BOUND, rtol=0, msg=name)
        assert numbers.std() > 10 * BOUND, "numbers that could be mistaken for one another show nothing"
    assert actual.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        assert (actual.gradients[name] - gradient).norm() <= GRADIENT_BOUND * gradient.norm() + 1e-7, name


def test_the_layouts_differ():
    rows = {layout: laid_out(layout).input_ids.shape[0] for layout in LAYOUTS}
    assert rows == {"branch": 4, "packed": 2, "separate": 13}
