"""A trainer takes FlexAttention where it measures less time and equal numbers, and SDPA in every other case.

Torch has no backward pass of FlexAttention for CPUs: its stand-in is SDPA with the block mask made dense.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.attention.flex_attention import create_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_align.acceleration.flex import can_train
from hf_align.layout.branches import build_branches
from hf_align.models.attention_choice import AttentionChoice, agree, choose_attention
from hf_align.models.policy import PolicyModel
from hf_align.models.wrapper import attention_of
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import save_tiny, tiny_model
from tests.trainers.pairs import options, pairs
from tests.trainers.test_base import same_weights

FLEX = "flex_attention"
FASTER, SLOWER = (0, 2, 2, 3), (0, 1, 1, 3)
"""Clock times around SDPA's pass and around FlexAttention's."""

Install = Callable[..., list[torch.dtype]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Register a stand-in for FlexAttention; returns a list of its calls: the values' dtypes."""

    def install(*, masked: bool = True, error: Exception | None = None) -> Any:
        calls: list[torch.dtype] = []

        def stand_in(_: Any, query: Any, key: Any, value: Any, mask: Any, *, scaling: Any, **options: Any) -> Any:
            calls.append(value.dtype)
            if error is not None and torch.is_grad_enabled():
                raise error
            key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
            dense = create_mask(mask.mask_mod, len(query), None, query.shape[2], query.shape[2], "cpu")
            attend = torch.nn.functional.scaled_dot_product_attention
            how: dict[str, Any] = {"attn_mask": dense} if masked else {"is_causal": True}
            return attend(query, key, value, scale=scaling, **how).transpose(1, 2).contiguous(), None

        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, FLEX, stand_in)  # type: ignore[arg-type]
        return calls

    return install


def showing(clock: tuple[int, ...]) -> Callable[[], float]:
    return iter(map(float, clock)).__next__


def as_on_a_gpu(trainer: Any, clock: tuple[int, ...] = FASTER) -> Any:
    trainer.runner.measures_flex, trainer.runner.clock = True, showing(clock)
    return trainer


def dpo(tmp_path: Path, model: Any = None, **changes: Any) -> DPOTrainer:
    own = {name: changes.pop(name) for name in ("ref_model", "peft_config") if name in changes}
    config = DPOConfig(**options(tmp_path / "out", max_steps=2, **changes))
    return DPOTrainer(model or save_tiny(tmp_path / "model"), args=config, train_dataset=pairs(4), **own)


def trained_by_sdpa(tmp_path: Path, **changes: Any) -> DPOTrainer:
    trainer = dpo(tmp_path, **changes)
    trainer.train()
    assert trainer.runner.attention_choice is None
    return trainer


def chosen(trainer: Any) -> AttentionChoice:
    assert trainer.runner.attention_choice is not None
    return trainer.runner.attention_choice


LORA = {"peft_config": LoraConfig(r=4, target_modules="all-linear")}


@pytest.mark.parametrize(
    "changes",
    [
        LORA,
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in ({}, {"layout": "branch"})),
        pytest.param({"activation_recompute": "full"}, marks=pytest.mark.slow),
    ],
)
def test_flex_attention_is_taken_where_it_is_faster(
    changes: dict[str, Any],
    tmp_path: Path,
    install: Install,
    caplog: pytest.LogCaptureFixture,
):
    calls = install()
    trainer = as_on_a_gpu(dpo(tmp_path, **changes))
    with caplog.at_level("INFO", logger="hf_align"):
        trainer.train()
    assert chosen(trainer) == AttentionChoice(
        FLEX, "the first batch takes 1 s with 'flex_attention' and 2 s with 'sdpa'", measured=True
    )
    lines = [record for record in caplog.records if record.message.startswith("Attention uses")]
    assert [line.levelname for line in lines] == ["INFO"] and "'flex_attention': the first batch" in lines[0].message
    trained = len(calls)
    assert trained >= 2 * (3 + 2 * 2)  # per layer: three passes of the choice, two steps of policy and reference
    assert [attention_of(model.model) for model in trainer.branch_models()] == ["sdpa"] * len(trainer.branch_models())
    plain = trained_by_sdpa(tmp_path, **changes)
    assert len(calls) == trained
    same_weights(trainer.model, plain.model)
    first, by_sdpa = (
        [log["rewards/margins"] for log in t.state.log_history if "loss" in log] for t in (trainer, plain)
    )
    assert first[0] == 0, "the reference attends as the policy does"
    assert first == pytest.approx(by_sdpa, abs=1e-5)


def test_a_reward_model_is_trained_by_it(tmp_path: Path, install: Install):
    install()
    folder = save_tiny(tmp_path / "model")
    config = RewardConfig(**options(tmp_path / "out", max_steps=2))
    plain, trainer = (RewardTrainer(folder, args=config, train_dataset=pairs(4)) for _ in range(2))
    for each in (plain, as_on_a_gpu(trainer)):
        each.train()
    assert chosen(trainer).implementation == FLEX and plain.runner.attention_choice is None
    same_weights(trainer.model, plain.model)


def test_sdpa_stays_where_it_is_faster(tmp_path: Path, install: Install):
    install()
    trainer = as_on_a_gpu(dpo(tmp_path), SLOWER)
    trainer.train()
    assert chosen(trainer).implementation == "sdpa" and chosen(trainer).measured
    same_weights(trainer.model, trained_by_sdpa(tmp_path).model, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        ({"masked": False}, "'flex_attention' disagrees: log-probs or rewards differ by"),
        (
            {"error": RuntimeError("no such kernel\nat line 3")},
            "the comparison with 'flex_attention' failed with RuntimeError: no such kernel",
        ),
        (
            {"error": torch.OutOfMemoryError("too much")},
            "the comparison with 'flex_attention' failed with OutOfMemoryError: too much",
        ),
    ],
)
def test_sdpa_stays_where_flex_attention_is_wrong_or_fails(
    stand_in: dict[str, Any],
    reason: str,
    tmp_path: Path,
    install: Install,
    caplog: pytest.LogCaptureFixture,
):
    install(**stand_in)
    trainer = as_on_a_gpu(dpo(tmp_path))
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer.train()
    choice = chosen(trainer)
    assert choice.implementation == "sdpa" and not choice.measured and choice.reason.startswith(reason)
    assert f"Attention uses 'sdpa': {choice.reason}." in caplog.messages
    same_weights(trainer.model, trained_by_sdpa(tmp_path).model, atol=0, rtol=0)


def test_a_wrong_gradient_is_noticed(install: Install, monkeypatch: pytest.MonkeyPatch):
    install()
    right = ALL_ATTENTION_FUNCTIONS[FLEX]

    def detached(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return right(module, query, key.detach(), value, *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, FLEX, detached)  # type: ignore[arg-type]
    branches = build_branches([([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]])], pad_token_id=0)
    policy = PolicyModel(tiny_model()).train()
    choice = choose_attention(policy, [], branches, lambda m, b: m(b), exact=True, clock=showing(FASTER))
    assert choice.implementation == "sdpa" and "disagrees" in choice.reason and "(bound 0.001)" in choice.reason


@pytest.mark.parametrize("clock", [FASTER, SLOWER, ()], ids=["faster", "slower", "a clock that fails"])
def test_it_leaves_no_trace(clock: tuple[int, ...], install: Install):
    install()
    lora = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3, init_lora_weights=False)
    policy = PolicyModel(get_peft_model(tiny_model(), lora)).train()
    for weight in policy.parameters():
        weight.grad = torch.ones_like(weight) if weight.requires_grad else None
    branches = build_branches([([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]])], pad_token_id=0)
    before = torch.get_rng_state()
    choice = choose_attention(policy, [], branches, lambda m, b: m(b), exact=True, clock=showing(clock))
    # With dropout the noise of another padding is large, and gradients only agree if the same is dropped.
    assert choice.measured == bool(clock), choice.reason
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None or (weight.grad == 1).all() for weight in policy.parameters())
    assert attention_of(policy.model) == "sdpa" and isinstance(policy.model, PeftModel) and policy.training


def test_autocast_is_that_of_training(tmp_path: Path, install: Install):
    calls = install()
    trainer = as_on_a_gpu(dpo(tmp_path, bf16=True))
    trainer.train()
    assert chosen(trainer).measured and set(calls) == {torch.bfloat16}


def test_processes_agree():
    flex = AttentionChoice(FLEX, "the first batch takes 1 s", measured=True)
    failed = AttentionChoice("sdpa", "the comparison failed", measured=False)
    assert agree([flex, flex]) is flex
    assert agree([flex, failed]) is agree([failed, flex]) is failed
    assert agree([flex, None]) is None, "one process had nothing to choose"


@pytest.mark.parametrize(
    "changes", [{"activation_recompute": "selective"}, {"layout": "separate"}, {"ref_model": tiny_model(1)}]
)
def test_there_is_nothing_to_choose(changes: dict[str, Any], tmp_path: Path, install: Install):
    calls = install()
    trainer = as_on_a_gpu(dpo(tmp_path, **changes))
    trainer.train()
    assert trainer.runner.attention_choice is None and not calls


def test_objects_keep_what_their_owner_loaded(tmp_path: Path, install: Install):
    calls = install()
    config = IPOConfig(**options(tmp_path / "out"))
    tokenizer = dpo(tmp_path).processing_class
    trainer = IPOTrainer(tiny_model(), args=config, train_dataset=pairs(4), processing_class=tokenizer)  # type: ignore[arg-type]
    as_on_a_gpu(trainer).train()
    assert trainer.runner.attention_choice is None and not calls


def test_evaluation_alone_chooses_nothing(tmp_path: Path, install: Install):
    calls = install()
    trainer = as_on_a_gpu(dpo(tmp_path))
    trainer.evaluate(trainer.train_dataset)  # type: ignore[arg-type]
    assert trainer.runner.attention_choice is None and not calls


def test_a_reference_by_name_attends_as_the_policy_does(tmp_path: Path, install: Install):
    install()
    reference = save_tiny(tmp_path / "reference", seed=1)
    trainer = as_on_a_gpu(dpo(tmp_path, ref_model=reference))
    seen: list[str] = []
    reference_model = trainer.branch_models()[1]
    reference_model.register_forward_pre_hook(lambda *_: seen.append(attention_of(reference_model.model)))
    trainer.train()
    assert chosen(trainer).implementation == FLEX
    assert seen == sorted(seen, reverse=True) and seen.count(FLEX) >= 3, "compared with SDPA first, then two steps"


def test_a_gpu_is_needed(tmp_path: Path):
    assert dpo(tmp_path).runner.measures_flex == torch.cuda.is_available()
    assert [can_train(torch.device(kind)) for kind in ("cpu", "cuda")] == [False, True]
